// Memory and output.
#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "attack.h"

namespace {

void touch(char* block, size_t size) {
  for (size_t at = 0; block && at < size; at += 4096) static_cast<volatile char*>(block)[at] = 1;
}

void malloc_bomb() {
  for (int i = 0; i < 100000; ++i) touch(static_cast<char*>(std::malloc(1 << 20)), 1 << 20);
  broke("100 GB");
}

void new_bomb() {
  for (int i = 0; i < 100000; ++i) touch(new (std::nothrow) char[1 << 20], 1 << 20);
  broke("100 GB");
}

void lazy_bomb() {
  void* block = ::mmap(nullptr, size_t{64} << 30, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block == MAP_FAILED) return;
  touch(static_cast<char*>(block), size_t{64} << 30);
  broke("64 GB mapped");
}

void shared_bomb() {
  for (int i = 0; i < 1000; ++i) {
    void* block = ::mmap(nullptr, 1 << 24, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) return;
    touch(static_cast<char*>(block), 1 << 24);
  }
  broke("16 GB of shared memory");
}

void brk_bomb() {
  for (int i = 0; i < 100000; ++i) {
    char* block = static_cast<char*>(::sbrk(1 << 20));
    if (block == reinterpret_cast<char*>(-1)) return;
    touch(block, 1 << 20);
  }
  broke("100 GB by brk");
}

void lock_memory() {
  void* block = ::mmap(nullptr, 1 << 24, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  broke_if(::mlock(block, 1 << 24) == 0, "locked memory");
  broke_if(::mlockall(MCL_FUTURE) == 0, "all memory locked");
}

int recurse(int depth) {
  char block[1024];
  asm volatile("" : : "r"(block) : "memory");  // or the frames would be optimised away
  return depth < 0 ? 0 : recurse(depth + 1) + block[depth % 1024];
}

void map_many() {
  for (int i = 0; i < 1000000; ++i)
    if (::mmap(nullptr, 8192, i % 2 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
               0) == MAP_FAILED)
      return;
}

void flood(int fd) {
  static char block[1 << 16];
  std::memset(block, 'x', sizeof block);
  for (;;) (void)!::write(fd, block, sizeof block);
}

void flood_both() {
  for (;;) {
    (void)!::write(1, "out\n", 4);
    (void)!::write(2, "err\n", 4);
  }
}

void flood_then_hang() {
  static char block[1 << 20];
  (void)!::write(1, block, sizeof block);
  (void)!::write(1, block, sizeof block);
  for (;;) ::pause();
}

void byte_by_byte() {
  for (;;) (void)!::write(1, "x", 1);
}

void zero_bytes() {
  static char block[1 << 16];
  for (int i = 0; i < 1000; ++i) (void)!::write(1, block, sizeof block);
}

}  // namespace

std::vector<Attack> resource_attacks() {
  return {
      {"malloc_bomb", malloc_bomb},
      {"new_bomb", new_bomb},
      {"lazy_bomb", lazy_bomb},
      {"shared_bomb", shared_bomb},
      {"brk_bomb", brk_bomb},
      {"lock_memory", lock_memory},
      {"endless_recursion", [] { recurse(0); }},
      {"map_many", map_many},
      {"flood_out", [] { flood(1); }},
      {"flood_err", [] { flood(2); }},
      {"flood_both", flood_both},
      {"flood_then_hang", flood_then_hang},
      {"byte_by_byte", byte_by_byte},
      {"zero_bytes", zero_bytes},
  };
}
