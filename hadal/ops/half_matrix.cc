#include "hadal/ops/half_matrix.h"

#include <algorithm>
#include <vector>

#include "hadal/ops/data.h"

namespace hadal {

float half_largest(int64_t total, int64_t piece, const std::function<float(int64_t, int64_t)>& of) {
  const int64_t pieces = (total + piece - 1) / piece;
  std::vector<float> top(static_cast<size_t>(pieces));
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      top[static_cast<size_t>(p)] = of(p * piece, std::min(piece, total - p * piece));
  });
  return pieces > 0 ? *std::max_element(top.begin(), top.end()) : 0.0f;
}

namespace {

float max_abs(const HalfKernels& k, const float* x, int64_t n) {
  return half_largest(n, kHalfGrain,
                      [&](int64_t first, int64_t count) { return k.max_abs(x + first, count); });
}

}  // namespace

void half_round_to(const HalfKernels& k, const float* x, float scale, uint16_t* y, int64_t n) {
  parallel_for(n, kHalfGrain, [&](int64_t b, int64_t e) { k.round(x + b, scale, y + b, e - b); });
}

HalfTensor half_rounded(const HalfKernels& k, const Tensor& x) {
  HalfTensor h{empty_half(x.sizes()), half_scale(max_abs(k, floats(x), x.numel()))};
  half_round_to(k, floats(x), h.scale, halves(h.x), x.numel());
  return h;
}

HalfTensor half_rounded(HalfFormat format, const Tensor& x) {
  return half_rounded(half_kernels(format), x);
}

HalfWeights half_weights(const HalfKernels& k, std::initializer_list<const float*> parts, int64_t N,
                         int64_t K, HalfSide side) {
  const auto num_parts = static_cast<int64_t>(parts.size());
  const int64_t rows = side == HalfSide::kTransposed ? (N + kHalfUnit - 1) / kHalfUnit * kHalfUnit : N;
  HalfWeights w{empty_half({num_parts * rows, K}), 1, num_parts * N, K};
  float top = 0;
  for (const float* part : parts) top = std::max(top, max_abs(k, part, N * K));
  w.scale = half_scale(top);
  uint16_t* to = halves(w.x);
  for (const float* part : parts) {
    if (side == HalfSide::kPlain) {
      half_round_to(k, part, w.scale, to, N * K);
    } else {
      parallel_for(rows / kHalfUnit, 8, [&](int64_t b, int64_t e) {
        const int64_t first = b * kHalfUnit;
        k.pack_transposed(part + first * K, w.scale, to + first * K, std::min(e * kHalfUnit, N) - first, K);
      });
    }
    to += rows * K;
  }
  return w;
}

HalfRows half_rows(const HalfTensor& x) {
  const int64_t width = x.x.size(-1);
  return {halves(x.x), x.scale, x.x.numel() / width, width};
}

void half_multiply(const HalfKernels& k, const HalfProduct& whole) {
  const int64_t grain = std::max<int64_t>(8, (1 << 20) / std::max<int64_t>(1, whole.N * whole.K));
  parallel_for((whole.M + 7) / 8, (grain + 7) / 8, [&](int64_t begin, int64_t end) {
    HalfProduct p = whole;
    const int64_t first = begin * 8;
    p.a += first * p.a_row, p.c += first * p.c_row, p.M = std::min(end * 8, whole.M) - first;
    k.multiply(p);
  });
}

void half_times_transposed(const HalfKernels& k, const HalfRows& x, const HalfWeights& w, float* y,
                           int64_t y_row) {
  half_multiply(k, {.M = x.n,
                    .N = w.N,
                    .K = w.K,
                    .a = x.x,
                    .a_row = x.stride,
                    .a_k = 1,
                    .b = halves(w.x),
                    .b_unit = kHalfUnit * w.K,
                    .b_k = kHalfUnit,
                    .c = y,
                    .c_row = y_row,
                    .alpha = 1 / (x.scale * w.scale),
                    .add = false});
}

void half_times(const HalfKernels& k, const HalfRows& dy, const HalfWeights& w, float* dx, bool adds) {
  half_multiply(k, {.M = dy.n,
                    .N = w.K,
                    .K = w.N,
                    .a = dy.x,
                    .a_row = dy.stride,
                    .a_k = 1,
                    .b = halves(w.x),
                    .b_unit = kHalfUnit,
                    .b_k = w.K,
                    .c = dx,
                    .c_row = w.K,
                    .alpha = 1 / (dy.scale * w.scale),
                    .add = adds});
}

void half_gradient(const HalfKernels& k, const HalfRows& dy, int64_t N, const HalfRows& x, int64_t K,
                   float* dw, bool adds) {
  half_multiply(k, {.M = N,
                    .N = K,
                    .K = dy.n,
                    .a = dy.x,
                    .a_row = 1,
                    .a_k = dy.stride,
                    .b = x.x,
                    .b_unit = kHalfUnit,
                    .b_k = x.stride,
                    .c = dw,
                    .c_row = K,
                    .alpha = 1 / (dy.scale * x.scale),
                    .add = adds});
}

}  // namespace hadal
