#include "hadal/data/permutation.h"

#include <bit>

#include "hadal/base/check.h"
#include "hadal/base/random.h"

namespace hadal {
namespace {

// Finaliser of MurmurHash3 (Appleby): every bit of x reaches every bit of the result.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD;
  x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53;
  return x ^ (x >> 33);
}

}  // namespace

Permutation::Permutation(int64_t n, uint64_t seed, uint64_t stream) : n_(static_cast<uint64_t>(n)) {
  HADAL_CHECK(n >= 1) << "got " << n;
  half_bits_ = (static_cast<uint64_t>(std::bit_width(n_ - 1)) + 1) / 2;
  mask_ = (uint64_t{1} << half_bits_) - 1;
  for (int i = 0; i < kRounds; i += 2) {
    const auto bits = philox(seed, stream, static_cast<uint64_t>(i));
    keys_[i] = uint64_t{bits[0]} << 32 | bits[1];
    keys_[i + 1] = uint64_t{bits[2]} << 32 | bits[3];
  }
}

int64_t Permutation::operator()(int64_t i) const {
  uint64_t x = static_cast<uint64_t>(i);
  if (n_ == 1) return 0;
  do {
    uint64_t left = x >> half_bits_, right = x & mask_;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (mix(right ^ key) & mask_);
      left = right, right = next;
    }
    x = left << half_bits_ | right;
  } while (x >= n_);
  return static_cast<int64_t>(x);
}

}  // namespace hadal
