// Big tables in 2 MiB pages where the system gives them on request: far fewer page faults and TLB misses when
// a vocabulary is loaded.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <new>

namespace hadal {

template <class T>
struct HugePageAllocator {
  using value_type = T;
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;

  HugePageAllocator() = default;
  template <class U>
  HugePageAllocator(const HugePageAllocator<U>&) {}

  T* allocate(std::size_t count) {
    const std::size_t bytes = count * sizeof(T);
    if (bytes < kHugePage / 2) return static_cast<T*>(::operator new(bytes));
    const std::size_t whole = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    void* memory = ::operator new (whole, std::align_val_t{kHugePage});
    madvise(memory, whole, MADV_HUGEPAGE);  // a wish; it works without
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t count) {
    if (count * sizeof(T) < kHugePage / 2)
      ::operator delete(memory);
    else
      ::operator delete (memory, std::align_val_t{kHugePage});
  }
  bool operator==(const HugePageAllocator&) const { return true; }
};

}  // namespace hadal
