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

// B windows of X tokens, [B, X] int64, at places drawn by (seed, step): the batch of a step is the same
// whatever came before.
Tensor random_windows(std::span<const int32_t> ids, int64_t B, int64_t X, uint64_t seed, int64_t step);

// Rows first ... first + n - 1 of an endless sequence of such windows, [n, X] int64: row r is a function of
// (seed, r).
Tensor window_rows(std::span<const int32_t> ids, int64_t first, int64_t n, int64_t X, uint64_t seed);

// Up to `most` windows of X tokens at even distances, [n, X] int64: a fixed set to measure on.
Tensor spread_windows(std::span<const int32_t> ids, int64_t most, int64_t X);

}  // namespace hadal
