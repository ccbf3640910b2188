// One long row of tokens: what is held out of it, and windows of that to measure on.
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

// Up to `most` windows of X tokens at even distances, [n, X] int64: a fixed set to measure on.
Tensor spread_windows(std::span<const int32_t> ids, int64_t most, int64_t X);

}  // namespace hadal
