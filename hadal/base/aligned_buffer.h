// Memory for kernels: aligned to a cache line, not initialised, grown and never shrunk.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace hadal {

template <typename T>
class AlignedBuffer {
 public:
  // Room for n values; what was there is lost if it grows. n < 0 counts as 0.
  T* ensure(int64_t n) {
    if (n > size_) {
      const size_t bytes = (static_cast<size_t>(n) * sizeof(T) + 63) / 64 * 64;
      data_.reset(static_cast<T*>(::operator new (bytes, std::align_val_t{64})));
      size_ = n;
    }
    return data_.get();
  }
  T* data() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t size_ = 0;
};

}  // namespace hadal
