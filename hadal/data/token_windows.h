// Training batches cut from one long row of tokens.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "hadal/tensor/fwd.h"

namespace hadal {

// The last `held_out_share` of the ids is never trained on.
struct TokenSplit {
  std::vector<int32_t> train, held_out;
};
// Throws invalid_argument if either part is shorter than one window of X tokens.
TokenSplit split_tokens(std::span<const int32_t> ids, double held_out_share, int64_t X);

// Rows first ... first + n - 1 of an endless sequence of windows of X tokens at random places, [n, X] int64:
// row r is a function of (seed, r), whatever was read before.
Tensor window_rows(std::span<const int32_t> ids, int64_t first, int64_t n, int64_t X, uint64_t seed);

// Up to `most` windows of X tokens at even distances, [n, X] int64: a fixed set to measure on.
Tensor spread_windows(std::span<const int32_t> ids, int64_t most, int64_t X);

}  // namespace hadal
