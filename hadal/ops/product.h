// A matrix product in place, and how work is cut, for the autograd functions.
#pragma once
#include <algorithm>

#include "hadal/tensor/tensor.h"

namespace hadal {

// Rows a thread takes at least: enough work that starting it does not show.
inline int64_t grain(int64_t row_values) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, row_values));
}

// Rows of T x W logits that are alive at a time: 16 MB in fp32, at least 16 rows.
inline int64_t logit_rows(int64_t T, int64_t W) {
  return std::clamp<int64_t>((4 << 20) / W, 16, std::max<int64_t>(T, 16));
}

// out = a b, or out += a b. bf16 as in linear().
void multiply(Tensor out, const Tensor& a, const Tensor& b, bool bf16, bool adds = false);

}  // namespace hadal
