// Shuffles that need no memory: where element i goes is computed, not looked up.
#pragma once
#include <cstdint>

namespace hadal {

// A permutation of [0, n) as a function of (seed, stream): a Feistel network on the next even power of two,
// walked along its cycle until it falls below n (Black and Rogaway, CT-RSA 2002). n >= 1; O(1).
class Permutation {
 public:
  Permutation(int64_t n, uint64_t seed, uint64_t stream);
  int64_t operator()(int64_t i) const;  // 0 <= i < n

 private:
  static constexpr int kRounds = 8;
  uint64_t n_, half_bits_, mask_;
  uint64_t keys_[kRounds];
};

}  // namespace hadal
