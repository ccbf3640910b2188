#include "hadal/ops/half_ffn.h"

#include <algorithm>
#include <vector>

#include "hadal/ops/data.h"

namespace hadal {
namespace {

int64_t rows_of_a_piece(int64_t M) {
  return std::max<int64_t>(1, kHalfGrain / M);
}

}  // namespace

void half_ffn_forward(const HalfKernels& k, const HalfFfn& w, const HalfRows& x, float* gate_up, float* out) {
  const int64_t D = w.D, M = w.M;
  if (M % kHalfUnit == 0) {
    half_times_transposed(k, x, half_weights(k, {w.gate, w.up}, M, D, HalfSide::kTransposed), gate_up, 2 * M);
  } else {
    half_times_transposed(k, x, half_weights(k, {w.gate}, M, D, HalfSide::kTransposed), gate_up, 2 * M);
    half_times_transposed(k, x, half_weights(k, {w.up}, M, D, HalfSide::kTransposed), gate_up + M, 2 * M);
  }
  const Tensor hidden = empty({x.n, M}), hidden_half = empty_half({x.n, M});
  const float scale = half_scale(half_largest(x.n, rows_of_a_piece(M), [&](int64_t r, int64_t n) {
    return k.swiglu(gate_up + r * 2 * M, floats(hidden) + r * M, n, M);
  }));
  half_round_to(k, floats(hidden), scale, halves(hidden_half), x.n * M);
  half_times_transposed(k, {halves(hidden_half), scale, x.n, M},
                        half_weights(k, {w.down}, D, M, HalfSide::kTransposed), out, D);
}

void half_ffn_backward(const HalfKernels& k, const HalfFfn& w, const HalfRows& x, const HalfRows& dy,
                       const float* gate_up, const float* weight, const HalfFfnGradients& to) {
  const int64_t D = w.D, M = w.M, n = x.n;
  const Tensor dhidden = empty({n, M}), hidden = empty({n, M}), dgate_up = empty({n, 2 * M});
  half_times(k, dy, half_weights(k, {w.down}, D, M, HalfSide::kPlain), floats(dhidden));
  const int64_t piece = rows_of_a_piece(M);
  std::vector<float> top_d(static_cast<size_t>((n + piece - 1) / piece));
  const float scale_h = half_scale(half_largest(n, piece, [&](int64_t r, int64_t rows) {
    HalfKernels::SwigluBackward s{.gate_up = gate_up + r * 2 * M,
                                  .dhidden = floats(dhidden) + r * M,
                                  .weight = weight ? weight + r : nullptr,
                                  .dgate_up = floats(dgate_up) + r * 2 * M,
                                  .hidden = floats(hidden) + r * M,
                                  .dweight = to.dweight ? to.dweight + r : nullptr};
    k.swiglu_backward(s, rows, M);
    top_d[static_cast<size_t>(r / piece)] = s.max_dgate_up;
    return s.max_hidden;
  }));
  const float scale_d = half_scale(*std::max_element(top_d.begin(), top_d.end()));
  const Tensor hidden_half = empty_half({n, M}), dgate_up_half = empty_half({n, 2 * M});
  half_round_to(k, floats(hidden), scale_h, halves(hidden_half), n * M);
  half_round_to(k, floats(dgate_up), scale_d, halves(dgate_up_half), n * 2 * M);
  half_gradient(k, dy, D, {halves(hidden_half), scale_h, n, M}, M, to.ddown);
  const HalfRows dgate{halves(dgate_up_half), scale_d, n, 2 * M}, dup{dgate.x + M, scale_d, n, 2 * M};
  half_gradient(k, dgate, M, x, D, to.dgate);
  half_gradient(k, dup, M, x, D, to.dup);
  half_times(k, dgate, half_weights(k, {w.gate, w.up}, M, D, HalfSide::kPlain), to.dx);
}

}  // namespace hadal
