#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "hadal/base/check.h"
#include "hadal/kernels/half.h"
#include "hadal/kernels/train.h"
#include "hadal/ops/data.h"
#include "hadal/ops/expert_order.h"
#include "hadal/ops/half.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

uint16_t* halves(const Tensor& x) {
  return static_cast<uint16_t*>(x.data_ptr());
}
Tensor empty_half(at::IntArrayRef shape) {
  return at::empty(shape, at::kHalf);
}

// The table a function was applied with, for its backward pass.
const HalfKernels& keep_format(AutogradContext* ctx, HalfFormat format) {
  ctx->saved_data["format"] = static_cast<int64_t>(format);
  return half_kernels(format);
}
const HalfKernels& kept_format(AutogradContext* ctx) {
  return half_kernels(static_cast<HalfFormat>(ctx->saved_data["format"].toInt()));
}

constexpr int64_t kGrain = 1 << 15;  // values a thread takes at least

using Half = HalfTensor;

float max_abs(const HalfKernels& k, const float* x, int64_t n) {
  const int64_t blocks = (n + kGrain - 1) / kGrain;
  std::vector<float> top(static_cast<size_t>(blocks));
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      top[static_cast<size_t>(b)] = k.max_abs(x + b * kGrain, std::min(kGrain, n - b * kGrain));
  });
  return blocks > 0 ? *std::max_element(top.begin(), top.end()) : 0.0f;
}

void round_to(const HalfKernels& k, const float* x, float scale, uint16_t* y, int64_t n) {
  parallel_for(n, kGrain, [&](int64_t b, int64_t e) { k.round(x + b, scale, y + b, e - b); });
}

Half round(const HalfKernels& k, const Tensor& x) {
  Half h{empty_half(x.sizes()), half_scale(max_abs(k, floats(x), x.numel()))};
  round_to(k, floats(x), h.scale, halves(h.x), x.numel());
  return h;
}

// Weights w_NK side by side, each times the same scale: as the right factor of x w^T, packed, or of dy w,
// row by row.
enum class Side { kTransposed, kPlain };
struct HalfWeights {
  Tensor x;
  float scale;
  int64_t N, K;  // of all together
};
HalfWeights round_weights(const HalfKernels& k, std::initializer_list<const float*> parts, int64_t N,
                          int64_t K, Side side) {
  const auto num_parts = static_cast<int64_t>(parts.size());
  const int64_t rows = side == Side::kTransposed ? (N + kHalfUnit - 1) / kHalfUnit * kHalfUnit : N;
  HalfWeights w{empty_half({num_parts * rows, K}), 1, num_parts * N, K};
  float top = 0;
  for (const float* part : parts) top = std::max(top, max_abs(k, part, N * K));
  w.scale = half_scale(top);
  uint16_t* to = halves(w.x);
  for (const float* part : parts) {
    if (side == Side::kPlain) {
      round_to(k, part, w.scale, to, N * K);
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

// Rows of c shared out to threads.
void multiply(const HalfKernels& k, const HalfProduct& whole) {
  const int64_t grain = std::max<int64_t>(8, (1 << 20) / std::max<int64_t>(1, whole.N * whole.K));
  parallel_for((whole.M + 7) / 8, (grain + 7) / 8, [&](int64_t begin, int64_t end) {
    HalfProduct p = whole;
    const int64_t first = begin * 8;
    p.a += first * p.a_row, p.c += first * p.c_row, p.M = std::min(end * 8, whole.M) - first;
    k.multiply(p);
  });
}

// What a thread needs while it works on some rows; it is asked for again and again.
struct Rows {
  const uint16_t* x;
  float scale;
  int64_t n, stride;
};

// y [n, N] = x w^T
void times_transposed(const HalfKernels& k, const Rows& x, const HalfWeights& w, float* y, int64_t y_row) {
  multiply(k, {.M = x.n,
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
// dx [n, K] = dy w, or added to
void times(const HalfKernels& k, const Rows& dy, const HalfWeights& w, float* dx, bool adds = false) {
  multiply(k, {.M = dy.n,
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
// dw [N, K] = dy^T x, dy [n, N], x [n, K]
void gradient(const HalfKernels& k, const Rows& dy, int64_t N, const Rows& x, int64_t K, float* dw) {
  multiply(k, {.M = N,
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
               .add = false});
}

Rows rows(const Half& h) {
  const int64_t width = h.x.size(-1);
  return {halves(h.x), h.scale, h.x.numel() / width, width};
}

class HalfLinear : public Function<HalfLinear> {
 public:
  static Tensor forward(AutogradContext* ctx, HalfFormat format, const Tensor& x_in, const Tensor& w_NK) {
    const HalfKernels& k = keep_format(ctx, format);
    const Half x = round(k, x_in.contiguous());
    const int64_t N = w_NK.size(0), K = w_NK.size(1);
    std::vector<int64_t> shape = x_in.sizes().vec();
    shape.back() = N;
    const Tensor y = at::empty(shape, w_NK.options());
    times_transposed(k, rows(x), round_weights(k, {floats(w_NK)}, N, K, Side::kTransposed), floats(y), N);
    ctx->save_for_backward({x.x, w_NK});
    ctx->saved_data["scale"] = static_cast<double>(x.scale);
    return y;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const HalfKernels& k = kept_format(ctx);
    const Tensors saved = ctx->get_saved_variables();
    const Half x{saved[0], static_cast<float>(ctx->saved_data["scale"].toDouble())};
    const Tensor& w_NK = saved[1];
    const int64_t N = w_NK.size(0), K = w_NK.size(1);
    const Half dy = round(k, grads[0].contiguous());
    const Tensor dx = at::empty(x.x.sizes(), w_NK.options()), dw_NK = at::empty_like(w_NK);
    times(k, rows(dy), round_weights(k, {floats(w_NK)}, N, K, Side::kPlain), floats(dx));
    gradient(k, rows(dy), N, rows(x), K, floats(dw_NK));
    return {Tensor(), dx, dw_NK};
  }
};

// One feed-forward network, an expert or a whole layer's, on some rows.
struct FfnSizes {
  int64_t D, M;
};
struct Ffn {
  FfnSizes size;
  const float *gate, *up, *down;
};

// gate_up [n, 2M] is kept for the backward pass. out [n, D]
void ffn_forward(const HalfKernels& k, const Ffn& w, const Rows& x, float* gate_up, float* out) {
  const auto [D, M] = w.size;
  if (M % kHalfUnit == 0) {
    times_transposed(k, x, round_weights(k, {w.gate, w.up}, M, D, Side::kTransposed), gate_up, 2 * M);
  } else {
    times_transposed(k, x, round_weights(k, {w.gate}, M, D, Side::kTransposed), gate_up, 2 * M);
    times_transposed(k, x, round_weights(k, {w.up}, M, D, Side::kTransposed), gate_up + M, 2 * M);
  }
  const Tensor hidden = at::empty({x.n, M}, at::kFloat), hidden_half = empty_half({x.n, M});
  const int64_t block = std::max<int64_t>(1, kGrain / M), blocks = (x.n + block - 1) / block;
  std::vector<float> top(static_cast<size_t>(blocks));
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      top[static_cast<size_t>(b)] = k.swiglu(gate_up + b * block * 2 * M, floats(hidden) + b * block * M,
                                             std::min(block, x.n - b * block), M);
  });
  const float scale = half_scale(*std::max_element(top.begin(), top.end()));
  round_to(k, floats(hidden), scale, halves(hidden_half), x.n * M);
  times_transposed(k, {halves(hidden_half), scale, x.n, M},
                   round_weights(k, {w.down}, D, M, Side::kTransposed), out, D);
}

// dy is not yet weighted (null: weights 1).
struct FfnGradients {
  float *dgate, *dup, *ddown, *dx;
  float* dweight;  // null: not wanted
};
void ffn_backward(const HalfKernels& k, const Ffn& w, const Rows& x, const Rows& dy, const float* gate_up,
                  const float* weight, const FfnGradients& to) {
  const auto [D, M] = w.size;
  const int64_t n = x.n;
  const Tensor dhidden = at::empty({n, M}, at::kFloat), hidden = at::empty({n, M}, at::kFloat),
               dgate_up = at::empty({n, 2 * M}, at::kFloat);
  times(k, dy, round_weights(k, {w.down}, D, M, Side::kPlain), floats(dhidden));
  const int64_t block = std::max<int64_t>(1, kGrain / M), blocks = (n + block - 1) / block;
  std::vector<float> top_h(static_cast<size_t>(blocks)), top_d(static_cast<size_t>(blocks));
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t r = b * block;
      HalfKernels::SwigluBackward s{.gate_up = gate_up + r * 2 * M,
                                    .dhidden = floats(dhidden) + r * M,
                                    .weight = weight ? weight + r : nullptr,
                                    .dgate_up = floats(dgate_up) + r * 2 * M,
                                    .hidden = floats(hidden) + r * M,
                                    .dweight = to.dweight ? to.dweight + r : nullptr};
      k.swiglu_backward(s, std::min(block, n - r), M);
      top_h[static_cast<size_t>(b)] = s.max_hidden, top_d[static_cast<size_t>(b)] = s.max_dgate_up;
    }
  });
  const Tensor hidden_half = empty_half({n, M}), dgate_up_half = empty_half({n, 2 * M});
  const float scale_h = half_scale(*std::max_element(top_h.begin(), top_h.end()));
  const float scale_d = half_scale(*std::max_element(top_d.begin(), top_d.end()));
  round_to(k, floats(hidden), scale_h, halves(hidden_half), n * M);
  round_to(k, floats(dgate_up), scale_d, halves(dgate_up_half), n * 2 * M);
  gradient(k, dy, D, {halves(hidden_half), scale_h, n, M}, M, to.ddown);
  const Rows dgate{halves(dgate_up_half), scale_d, n, 2 * M}, dup{dgate.x + M, scale_d, n, 2 * M};
  gradient(k, dgate, M, x, D, to.dgate);
  gradient(k, dup, M, x, D, to.dup);
  times(k, dgate, round_weights(k, {w.gate, w.up}, M, D, Side::kPlain), to.dx);
}

Ffn ffn(const Tensor& gate_FD, const Tensor& up_FD, const Tensor& down_DF) {
  return {{gate_FD.size(1), gate_FD.size(0)}, floats(gate_FD), floats(up_FD), floats(down_DF)};
}

class HalfMlp : public Function<HalfMlp> {
 public:
  static Tensor forward(AutogradContext* ctx, HalfFormat format, const Tensor& x_in, const Tensor& gate_FD,
                        const Tensor& up_FD, const Tensor& down_DF) {
    const HalfKernels& k = keep_format(ctx, format);
    const Half x = round(k, x_in.contiguous());
    const Rows x_rows = rows(x);
    const Tensor gate_up = at::empty({x_rows.n, 2 * gate_FD.size(0)}, gate_FD.options());
    const Tensor y = at::empty(x_in.sizes(), gate_FD.options());
    ffn_forward(k, ffn(gate_FD, up_FD, down_DF), x_rows, floats(gate_up), floats(y));
    ctx->save_for_backward({x.x, gate_up, gate_FD, up_FD, down_DF});
    ctx->saved_data["scale"] = static_cast<double>(x.scale);
    return y;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const HalfKernels& k = kept_format(ctx);
    const Tensors saved = ctx->get_saved_variables();
    const Half x{saved[0], static_cast<float>(ctx->saved_data["scale"].toDouble())};
    const Half dy = round(k, grads[0].contiguous());
    const Tensor dx = at::empty(x.x.sizes(), saved[2].options()), dgate = at::empty_like(saved[2]),
                 dup = at::empty_like(saved[3]), ddown = at::empty_like(saved[4]);
    ffn_backward(k, ffn(saved[2], saved[3], saved[4]), rows(x), rows(dy), floats(saved[1]), nullptr,
                 {floats(dgate), floats(dup), floats(ddown), floats(dx), nullptr});
    return {Tensor(), dx, dgate, dup, ddown};
  }
};

Tensor gather_rows(const Tensor& x_TD, const Tensor& token_U) {
  const int64_t U = token_U.numel(), D = x_TD.size(1);
  const Tensor out = empty_half({U, D});
  const int64_t* token = longs(token_U);
  parallel_for(U, std::max<int64_t>(1, kGrain / D), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) std::copy_n(halves(x_TD) + token[u] * D, D, halves(out) + u * D);
  });
  return out;
}

// Slots and weights of each token, and with a shared expert its row and the weight 1 behind them: rows of the
// shared expert follow the U sorted ones.
struct Slots {
  std::vector<int64_t> place;
  std::vector<float> weight;
  int64_t num;  // of a token
};
Slots slots(const Tensor& place_U, const Tensor& weight_TA, bool shared) {
  const int64_t T = weight_TA.size(0), A = weight_TA.size(1), X = A + (shared ? 1 : 0);
  Slots s{std::vector<int64_t>(static_cast<size_t>(T * X), 0),
          std::vector<float>(static_cast<size_t>(T * X), 1), X};
  for (int64_t t = 0; t < T; ++t) {
    std::copy_n(longs(place_U) + t * A, A, s.place.begin() + t * X);
    std::copy_n(floats(weight_TA) + t * A, A, s.weight.begin() + t * X);
    if (shared) s.place[static_cast<size_t>(t * X + A)] = T * A + t;
  }
  return s;
}

class HalfMoe : public Function<HalfMoe> {
 public:
  // Shared weights: empty tensors where there is no shared expert.
  static Tensor forward(AutogradContext* ctx, HalfFormat format, const Tensor& x_in, const Tensor& expert_TA,
                        const Tensor& weight_in, const Tensor& gate_EMD, const Tensor& up_EMD,
                        const Tensor& down_EDM, const Tensor& gate_FD, const Tensor& up_FD,
                        const Tensor& down_DF) {
    const HalfKernels& k = keep_format(ctx, format);
    const Tensor weight_TA = weight_in.contiguous();
    const int64_t T = x_in.size(0), D = x_in.size(1), A = expert_TA.size(1), E = gate_EMD.size(0),
                  M = gate_EMD.size(1), U = T * A;
    const bool shared = gate_FD.numel() > 0;
    const Half x = round(k, x_in.contiguous());
    const ExpertOrder order = sort_by_expert(expert_TA, E);
    const Tensor copy_UD = gather_rows(x.x, order.token_U);
    const Tensor gate_up = at::empty({U, 2 * M}, gate_EMD.options()),
                 out_XD = at::empty({U + (shared ? T : 0), D}, gate_EMD.options());
    for_each_expert(order.begin_E, [&](int64_t e, int64_t begin, int64_t n) {
      ffn_forward(k, expert(gate_EMD, up_EMD, down_EDM, e), {halves(copy_UD) + begin * D, x.scale, n, D},
                  floats(gate_up) + begin * 2 * M, floats(out_XD) + begin * D);
    });
    Tensor shared_gate_up;
    if (shared) {
      shared_gate_up = at::empty({T, 2 * gate_FD.size(0)}, gate_EMD.options());
      ffn_forward(k, ffn(gate_FD, up_FD, down_DF), rows(x), floats(shared_gate_up), floats(out_XD) + U * D);
    }
    const Tensor y_TD = at::empty({T, D}, gate_EMD.options());
    const Slots s = slots(order.place_U, weight_TA, shared);
    parallel_for(T, std::max<int64_t>(1, kGrain / (A * D)), [&](int64_t b, int64_t e) {
      train_kernels().combine(floats(out_XD), s.place.data() + b * s.num, s.weight.data() + b * s.num,
                              floats(y_TD) + b * D, e - b, s.num, D);
    });
    ctx->save_for_backward({x.x, weight_TA, gate_EMD, up_EMD, down_EDM, gate_up, order.token_U, order.place_U,
                            gate_FD, up_FD, down_DF, shared_gate_up});
    ctx->saved_data["begin"] = order.begin_E;
    ctx->saved_data["scale"] = static_cast<double>(x.scale);
    return y_TD;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const HalfKernels& k = kept_format(ctx);
    const Tensors saved = ctx->get_saved_variables();
    const Tensor &weight_TA = saved[1], &gate_EMD = saved[2], &up_EMD = saved[3], &down_EDM = saved[4],
                 &gate_up = saved[5], &token_U = saved[6], &place_U = saved[7];
    const Half x{saved[0], static_cast<float>(ctx->saved_data["scale"].toDouble())};
    const std::vector<int64_t> begin_E = ctx->saved_data["begin"].toIntVector();
    const int64_t T = x.x.size(0), D = x.x.size(1), A = weight_TA.size(1), E = gate_EMD.size(0),
                  M = gate_EMD.size(1), U = T * A;
    const bool shared = saved[8].numel() > 0;
    const Half dy = round(k, grads[0].contiguous());
    const Tensor copy_UD = gather_rows(x.x, token_U), dout_UD = gather_rows(dy.x, token_U);
    Tensor dgate_EMD = at::empty_like(gate_EMD), dup_EMD = at::empty_like(up_EMD),
           ddown_EDM = at::empty_like(down_EDM);
    for (int64_t e = 0; e < E; ++e)  // no rows: no gradient
      if (begin_E[static_cast<size_t>(e)] == begin_E[static_cast<size_t>(e + 1)])
        for (const Tensor* gradient : {&dgate_EMD, &dup_EMD, &ddown_EDM}) gradient->select(0, e).zero_();
    const Tensor dcopy_XD = at::empty({U + (shared ? T : 0), D}, gate_EMD.options()),
                 dweight_TA = at::empty_like(weight_TA);
    const std::vector<int64_t> copy = copy_of_row(place_U);
    for_each_expert(begin_E, [&](int64_t e, int64_t begin, int64_t n) {
      std::vector<float> weight(static_cast<size_t>(n)), dweight(static_cast<size_t>(n));
      const auto copy_at = [&](int64_t row) { return copy[static_cast<size_t>(begin + row)]; };
      for (int64_t row = 0; row < n; ++row)
        weight[static_cast<size_t>(row)] = floats(weight_TA)[copy_at(row)];
      ffn_backward(k, expert(gate_EMD, up_EMD, down_EDM, e), {halves(copy_UD) + begin * D, x.scale, n, D},
                   {halves(dout_UD) + begin * D, dy.scale, n, D}, floats(gate_up) + begin * 2 * M,
                   weight.data(),
                   {floats(dgate_EMD) + e * M * D, floats(dup_EMD) + e * M * D, floats(ddown_EDM) + e * M * D,
                    floats(dcopy_XD) + begin * D, dweight.data()});
      for (int64_t row = 0; row < n; ++row)
        floats(dweight_TA)[copy_at(row)] = dweight[static_cast<size_t>(row)];
    });
    Tensor dgate_FD, dup_FD, ddown_DF;
    if (shared) {
      dgate_FD = at::empty_like(saved[8]), dup_FD = at::empty_like(saved[9]),
      ddown_DF = at::empty_like(saved[10]);
      ffn_backward(k, ffn(saved[8], saved[9], saved[10]), rows(x), rows(dy), floats(saved[11]), nullptr,
                   {floats(dgate_FD), floats(dup_FD), floats(ddown_DF), floats(dcopy_XD) + U * D, nullptr});
    }
    const Tensor dx_TD = at::empty({T, D}, gate_EMD.options());
    const Slots s = slots(place_U, weight_TA, shared);
    parallel_for(T, std::max<int64_t>(1, kGrain / (A * D)), [&](int64_t b, int64_t e) {
      train_kernels().sum_rows(floats(dcopy_XD), s.place.data() + b * s.num, floats(dx_TD) + b * D, e - b,
                               s.num, D);
    });
    return {Tensor(), dx_TD, Tensor(), dweight_TA, dgate_EMD, dup_EMD, ddown_EDM, dgate_FD, dup_FD, ddown_DF};
  }

 private:
  static Ffn expert(const Tensor& gate_EMD, const Tensor& up_EMD, const Tensor& down_EDM, int64_t e) {
    const int64_t M = gate_EMD.size(1), D = gate_EMD.size(2), at = e * M * D;
    return {{D, M}, floats(gate_EMD) + at, floats(up_EMD) + at, floats(down_EDM) + at};
  }
};

// RMSNorm of rows, and back, as in fused_autograd.cc.
struct Normed {
  Tensor y, rstd;
};
Normed normed(const Tensor& x_TX, const Tensor& gain_X, double eps) {
  const int64_t T = x_TX.size(0), X = x_TX.size(1);
  Normed n{at::empty_like(x_TX), at::empty({T}, x_TX.options())};
  parallel_for(T, std::max<int64_t>(1, kGrain / X), [&](int64_t b, int64_t e) {
    train_kernels().rms_norm(floats(x_TX) + b * X, floats(gain_X), floats(n.y) + b * X, floats(n.rstd) + b,
                             e - b, X, static_cast<float>(eps));
  });
  return n;
}
Tensor normed_backward(const Tensor& dy, const Tensor& x, const Tensor& gain, const Tensor& rstd,
                       Tensor& dgain) {
  constexpr int64_t kBlock = 128;
  const int64_t T = x.size(0), X = x.size(1), blocks = (T + kBlock - 1) / kBlock;
  const Tensor dx = at::empty_like(x), partial = at::zeros({blocks, X}, x.options());
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t at = b * kBlock * X;
      train_kernels().rms_norm_backward(floats(dy) + at, floats(x) + at, floats(gain),
                                        floats(rstd) + b * kBlock, nullptr, floats(dx) + at,
                                        floats(partial) + b * X, std::min(kBlock, T - b * kBlock), X);
    }
  });
  dgain = partial.sum(0);
  return dx;
}

class HalfMlaInputs : public Function<HalfMlaInputs> {
 public:
  static Tensors forward(AutogradContext* ctx, HalfFormat format, const Tensor& x_in, const Tensor& q_down,
                         const Tensor& q_norm, const Tensor& q_up, const Tensor& kv_down,
                         const Tensor& kv_norm, const Tensor& kv_up, double eps) {
    const HalfKernels& k = keep_format(ctx, format);
    const Half x = round(k, x_in.contiguous());
    const Rows x_rows = rows(x);
    const int64_t T = x_rows.n, D = q_down.size(1), C = kv_up.size(1), R = kv_down.size(0) - C;
    const auto product = [&](const Rows& left, const float* w, int64_t N, int64_t K) {
      const Tensor y = at::empty({T, N}, q_down.options());
      times_transposed(k, left, round_weights(k, {w}, N, K, Side::kTransposed), floats(y), N);
      return y;
    };
    const int64_t Q = q_down.size(0);
    const Tensor q_raw = product(x_rows, floats(q_down), Q, D),
                 c_raw = product(x_rows, floats(kv_down), C, D),
                 rope_key = product(x_rows, floats(kv_down) + C * D, R, D);
    const Normed q = normed(q_raw, q_norm, eps), c = normed(c_raw, kv_norm, eps);
    const Half q_half = round(k, q.y), c_half = round(k, c.y);
    const Tensor query = product(rows(q_half), floats(q_up), q_up.size(0), Q),
                 kv = product(rows(c_half), floats(kv_up), kv_up.size(0), C);
    ctx->save_for_backward({x.x, q_down, q_norm, q_up, kv_down, kv_norm, kv_up, q_raw, c_raw, q.rstd, c.rstd,
                            q_half.x, c_half.x});
    ctx->saved_data["scales"] = std::vector<double>{x.scale, q_half.scale, c_half.scale};
    const auto shaped = [&](const Tensor& y) {
      std::vector<int64_t> shape = x_in.sizes().vec();
      shape.back() = y.size(1);
      return y.view(shape);
    };
    return {shaped(query), shaped(kv), shaped(rope_key)};
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const HalfKernels& k = kept_format(ctx);
    const Tensors saved = ctx->get_saved_variables();
    const std::vector<double> scales = ctx->saved_data["scales"].toDoubleVector();
    const Half x{saved[0], static_cast<float>(scales[0])}, q{saved[11], static_cast<float>(scales[1])},
        c{saved[12], static_cast<float>(scales[2])};
    const Tensor &q_down = saved[1], &q_up = saved[3], &kv_down = saved[4], &kv_up = saved[6];
    const int64_t D = q_down.size(1), Q = q_down.size(0), C = kv_up.size(1), R = kv_down.size(0) - C;
    Tensor dq_up = at::empty_like(q_up), dkv_up = at::empty_like(kv_up), dq_norm, dkv_norm;
    const Half dq_raw =
        through_up(k, round(k, grads[0].contiguous()), q, q_up, dq_up, saved[7], saved[2], saved[9], dq_norm);
    const Half dc_raw = through_up(k, round(k, grads[1].contiguous()), c, kv_up, dkv_up, saved[8], saved[5],
                                   saved[10], dkv_norm);
    const Half drope = round(k, grads[2].contiguous());
    const Tensor dx = at::empty(x.x.sizes(), q_down.options()), dq_down = at::empty_like(q_down),
                 dkv_down = at::empty_like(kv_down);
    times(k, rows(dq_raw), round_weights(k, {floats(q_down)}, Q, D, Side::kPlain), floats(dx));
    times(k, rows(dc_raw), round_weights(k, {floats(kv_down)}, C, D, Side::kPlain), floats(dx),
          /*adds=*/true);
    times(k, rows(drope), round_weights(k, {floats(kv_down) + C * D}, R, D, Side::kPlain), floats(dx),
          /*adds=*/true);
    gradient(k, rows(dq_raw), Q, rows(x), D, floats(dq_down));
    gradient(k, rows(dc_raw), C, rows(x), D, floats(dkv_down));
    gradient(k, rows(drope), R, rows(x), D, floats(dkv_down) + C * D);
    return {Tensor(), dx, dq_down, dq_norm, dq_up, dkv_down, dkv_norm, dkv_up, Tensor()};
  }

 private:
  // From the gradient of up-projected rows to that of the latent before its norm.
  static Half through_up(const HalfKernels& k, const Half& dy, const Half& latent, const Tensor& up,
                         const Tensor& dup, const Tensor& raw, const Tensor& gain, const Tensor& rstd,
                         Tensor& dgain) {
    const int64_t N = up.size(0), K = up.size(1);
    const Tensor dlatent = at::empty_like(raw);
    times(k, rows(dy), round_weights(k, {floats(up)}, N, K, Side::kPlain), floats(dlatent));
    gradient(k, rows(dy), N, rows(latent), K, floats(dup));
    return round(k, normed_backward(dlatent, raw, gain, rstd, dgain));
  }
};

class HalfHeadLoss : public Function<HalfHeadLoss> {
 public:
  static Tensor forward(AutogradContext* ctx, HalfFormat format, const Tensor& hidden_in,
                        const Tensor& head_WD, const Tensor& target_in, double divisor, bool with_gradients) {
    const HalfKernels& k = half_kernels(format);
    const Tensor target_T = target_in.contiguous();
    const int64_t T = hidden_in.size(0), W = head_WD.size(0), D = head_WD.size(1);
    const Half hidden = round(k, hidden_in.contiguous());
    const HalfWeights head = round_weights(k, {floats(head_WD)}, W, D, Side::kTransposed);
    const Tensor loss_T = at::empty({T}, head_WD.options());
    // Rows a cache line apart from multiples of 4096: a column of them shall not fall into one cache set.
    const int64_t W_row = (W + kHalfUnit - 1) / kHalfUnit * kHalfUnit + kHalfUnit;
    constexpr int64_t kLogits = 4 << 20, kPiece = 64;  // gradients alive at once; rows of fp32 logits
    const int64_t chunk = std::clamp<int64_t>(kLogits / W, 16, std::max<int64_t>(T, 16));
    const Tensor logit =
        at::empty({std::min(std::min(chunk, kPiece * num_threads()), T), W}, head_WD.options());
    const Half dlogit{empty_half({std::min(chunk, T), W_row}), kHalfLimit};
    Tensor dhidden_TD, dhead_WD;
    if (with_gradients) dhidden_TD = at::empty({T, D}, head_WD.options()), dhead_WD = at::empty_like(head_WD);
    HalfWeights head_plain;
    if (with_gradients) head_plain = round_weights(k, {floats(head_WD)}, W, D, Side::kPlain);
    for (int64_t first = 0; first < T; first += chunk) {
      const int64_t n = std::min(chunk, T - first);
      for (int64_t begin = 0; begin < n; begin += logit.size(0)) {
        const int64_t at = first + begin, rows = std::min(logit.size(0), n - begin);
        times_transposed(k, {halves(hidden.x) + at * D, hidden.scale, rows, D}, head, floats(logit), W);
        parallel_for(rows, 8, [&](int64_t b, int64_t e) {
          k.cross_entropy(floats(logit) + b * W, longs(target_T) + at + b, floats(loss_T) + at + b,
                          halves(dlogit.x) + (begin + b) * W_row, W_row, dlogit.scale, e - b, W);
        });
      }
      if (!with_gradients) continue;
      const Rows d{halves(dlogit.x), dlogit.scale * static_cast<float>(divisor), n, W_row};
      times(k, d, head_plain, floats(dhidden_TD) + first * D);
      multiply(k, {.M = W,
                   .N = D,
                   .K = n,
                   .a = d.x,
                   .a_row = 1,
                   .a_k = W_row,
                   .b = halves(hidden.x) + first * D,
                   .b_unit = kHalfUnit,
                   .b_k = D,
                   .c = floats(dhead_WD),
                   .c_row = D,
                   .alpha = 1 / (d.scale * hidden.scale),
                   .add = first > 0});
    }
    if (with_gradients) ctx->save_for_backward({dhidden_TD, dhead_WD});
    return loss_T.sum(at::kDouble).div(divisor).to(at::kFloat);
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const double factor = grads[0].item<double>();
    const Tensor none;
    if (factor == 1.0) return {none, saved[0], saved[1], none, none, none};
    return {none, saved[0] * factor, saved[1] * factor, none, none, none};
  }
};

}  // namespace

HalfTensor half_rounded(HalfFormat format, const Tensor& x) {
  return round(half_kernels(format), x);
}

Tensor half_linear(HalfFormat format, const Tensor& x, const Tensor& w_NK) {
  HADAL_CHECK(x.size(-1) == w_NK.size(1)) << x.size(-1) << " columns for a weight of " << w_NK.size(1);
  return HalfLinear::apply(format, x, w_NK);
}

Tensor half_mlp(HalfFormat format, const Tensor& x, const Tensor& gate_FD, const Tensor& up_FD,
                const Tensor& down_DF) {
  return HalfMlp::apply(format, x, gate_FD, up_FD, down_DF);
}

Tensor half_experts(HalfFormat format, const Tensor& x_TD, const Tensor& expert_TA, const Tensor& weight_TA,
                    const Tensor& gate_EMD, const Tensor& up_EMD, const Tensor& down_EDM) {
  const Tensor none = at::empty({0}, at::kFloat);
  return HalfMoe::apply(format, x_TD, expert_TA, weight_TA, gate_EMD, up_EMD, down_EDM, none, none, none);
}

Tensor half_moe(HalfFormat format, const Tensor& x_TD, const Tensor& expert_TA, const Tensor& weight_TA,
                const Tensor& gate_EMD, const Tensor& up_EMD, const Tensor& down_EDM, const Tensor& gate_FD,
                const Tensor& up_FD, const Tensor& down_DF) {
  return HalfMoe::apply(format, x_TD, expert_TA, weight_TA, gate_EMD, up_EMD, down_EDM, gate_FD, up_FD,
                        down_DF);
}

MlaInputs half_mla_inputs(HalfFormat format, const Tensor& x, const MlaProjections& w, double eps) {
  Tensors y = HalfMlaInputs::apply(format, x, w.q_down, w.q_norm, w.q_up, w.kv_down, w.kv_norm, w.kv_up, eps);
  return {y[0], y[1], y[2]};
}

Tensor half_head_loss(HalfFormat format, const Tensor& hidden_TD, const Tensor& head_WD,
                      const Tensor& target_T, double divisor) {
  const bool with_gradients =
      c10::GradMode::is_enabled() && (hidden_TD.requires_grad() || head_WD.requires_grad());
  return HalfHeadLoss::apply(format, hidden_TD, head_WD, target_T, divisor, with_gradients);
}

}  // namespace hadal
