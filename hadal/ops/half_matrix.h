// Matrices rounded to 16 bits under a scale of their own, and their products, of which the functions of
// half.h are made.
#pragma once
#include <cstdint>
#include <initializer_list>

#include "hadal/kernels/half.h"
#include "hadal/ops/half.h"
#include "hadal/tensor/make.h"

namespace hadal {

constexpr int64_t kHalfGrain = 1 << 15;  // values a thread takes at least

inline uint16_t* halves(const Tensor& x) {
  return static_cast<uint16_t*>(x.data_ptr());
}
inline Tensor empty_half(at::IntArrayRef shape) {
  return empty(shape, at::kHalf);
}

// The largest of what of(first, n) says of pieces of [0, total), `piece` long.
float half_largest(int64_t total, int64_t piece, const std::function<float(int64_t, int64_t)>& of);

void half_round_to(const HalfKernels& k, const float* x, float scale, uint16_t* y, int64_t n);
HalfTensor half_rounded(const HalfKernels& k, const Tensor& x);  // contiguous

// Weights w_NK side by side, each times the same scale: as the right factor of x w^T, packed, or of dy w,
// row by row.
enum class HalfSide { kTransposed, kPlain };
struct HalfWeights {
  Tensor x;
  float scale;
  int64_t N, K;  // of all together
};
HalfWeights half_weights(const HalfKernels& k, std::initializer_list<const float*> parts, int64_t N,
                         int64_t K, HalfSide side);

// Rows of a rounded matrix, `stride` apart.
struct HalfRows {
  const uint16_t* x;
  float scale;
  int64_t n, stride;
};
HalfRows half_rows(const HalfTensor& x);

// Rows of c shared out to threads.
void half_multiply(const HalfKernels& k, const HalfProduct& whole);
// y [n, N] = x w^T
void half_times_transposed(const HalfKernels& k, const HalfRows& x, const HalfWeights& w, float* y,
                           int64_t y_row);
// dx [n, K] = dy w, or added to
void half_times(const HalfKernels& k, const HalfRows& dy, const HalfWeights& w, float* dx, bool adds = false);
// dw [N, K] = dy^T x, dy [n, N], x [n, K], or added to
void half_gradient(const HalfKernels& k, const HalfRows& dy, int64_t N, const HalfRows& x, int64_t K,
                   float* dw, bool adds = false);

}  // namespace hadal
