#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "hadal/base/check.h"
#include "hadal/kernels/train.h"
#include "hadal/ops/data.h"
#include "hadal/ops/expert_order.h"
#include "hadal/ops/half_ffn.h"
#include "hadal/ops/kept_gradients.h"
#include "hadal/ops/norm_rows.h"
#include "hadal/ops/product.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

// The table a function was applied with, for its backward pass.
const HalfKernels& keep_format(AutogradContext* ctx, HalfFormat format) {
  ctx->saved_data["format"] = static_cast<int64_t>(format);
  return half_kernels(format);
}
const HalfKernels& kept_format(AutogradContext* ctx) {
  return half_kernels(static_cast<HalfFormat>(ctx->saved_data["format"].toInt()));
}

class HalfLinear : public Function<HalfLinear> {
 public:
  static Tensor forward(AutogradContext* ctx, HalfFormat format, const Tensor& x_in, const Tensor& w_NK) {
    const HalfKernels& k = keep_format(ctx, format);
    const HalfTensor x = half_rounded(k, x_in.contiguous());
    const int64_t N = w_NK.size(0), K = w_NK.size(1);
    std::vector<int64_t> shape = x_in.sizes().vec();
    shape.back() = N;
    const Tensor y = at::empty(shape, w_NK.options());
    half_times_transposed(k, half_rows(x), half_weights(k, {floats(w_NK)}, N, K, HalfSide::kTransposed),
                          floats(y), N);
    ctx->save_for_backward({x.x, w_NK});
    ctx->saved_data["scale"] = static_cast<double>(x.scale);
    return y;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const HalfKernels& k = kept_format(ctx);
    const Tensors saved = ctx->get_saved_variables();
    const HalfTensor x{saved[0], static_cast<float>(ctx->saved_data["scale"].toDouble())};
    const Tensor& w_NK = saved[1];
    const int64_t N = w_NK.size(0), K = w_NK.size(1);
    const HalfTensor dy = half_rounded(k, grads[0].contiguous());
    const Tensor dx = at::empty(x.x.sizes(), w_NK.options()), dw_NK = at::empty_like(w_NK);
    half_times(k, half_rows(dy), half_weights(k, {floats(w_NK)}, N, K, HalfSide::kPlain), floats(dx));
    half_gradient(k, half_rows(dy), N, half_rows(x), K, floats(dw_NK));
    return {Tensor(), dx, dw_NK};
  }
};

HalfFfn ffn(const Tensor& gate_FD, const Tensor& up_FD, const Tensor& down_DF) {
  return {gate_FD.size(1), gate_FD.size(0), floats(gate_FD), floats(up_FD), floats(down_DF)};
}

class HalfMlp : public Function<HalfMlp> {
 public:
  static Tensor forward(AutogradContext* ctx, HalfFormat format, const Tensor& x_in, const Tensor& gate_FD,
                        const Tensor& up_FD, const Tensor& down_DF) {
    const HalfKernels& k = keep_format(ctx, format);
    const HalfTensor x = half_rounded(k, x_in.contiguous());
    const HalfRows x_rows = half_rows(x);
    const Tensor gate_up = at::empty({x_rows.n, 2 * gate_FD.size(0)}, gate_FD.options());
    const Tensor y = at::empty(x_in.sizes(), gate_FD.options());
    half_ffn_forward(k, ffn(gate_FD, up_FD, down_DF), x_rows, floats(gate_up), floats(y));
    ctx->save_for_backward({x.x, gate_up, gate_FD, up_FD, down_DF});
    ctx->saved_data["scale"] = static_cast<double>(x.scale);
    return y;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const HalfKernels& k = kept_format(ctx);
    const Tensors saved = ctx->get_saved_variables();
    const HalfTensor x{saved[0], static_cast<float>(ctx->saved_data["scale"].toDouble())};
    const HalfTensor dy = half_rounded(k, grads[0].contiguous());
    const Tensor dx = at::empty(x.x.sizes(), saved[2].options()), dgate = at::empty_like(saved[2]),
                 dup = at::empty_like(saved[3]), ddown = at::empty_like(saved[4]);
    half_ffn_backward(k, ffn(saved[2], saved[3], saved[4]), half_rows(x), half_rows(dy), floats(saved[1]),
                      nullptr, {floats(dgate), floats(dup), floats(ddown), floats(dx), nullptr});
    return {Tensor(), dx, dgate, dup, ddown};
  }
};

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
    const HalfTensor x = half_rounded(k, x_in.contiguous());
    const ExpertOrder order = sort_by_expert(expert_TA, E);
    const Tensor copy_UD = rows_at(x.x, order.token_U);
    const Tensor gate_up = at::empty({U, 2 * M}, gate_EMD.options()),
                 out_XD = at::empty({U + (shared ? T : 0), D}, gate_EMD.options());
    for_each_expert(order.begin_E, [&](int64_t e, int64_t begin, int64_t n) {
      half_ffn_forward(k, expert(gate_EMD, up_EMD, down_EDM, e), {halves(copy_UD) + begin * D, x.scale, n, D},
                       floats(gate_up) + begin * 2 * M, floats(out_XD) + begin * D);
    });
    Tensor shared_gate_up;
    if (shared) {
      shared_gate_up = at::empty({T, 2 * gate_FD.size(0)}, gate_EMD.options());
      half_ffn_forward(k, ffn(gate_FD, up_FD, down_DF), half_rows(x), floats(shared_gate_up),
                       floats(out_XD) + U * D);
    }
    const Tensor y_TD = at::empty({T, D}, gate_EMD.options());
    const Slots s = slots(order.place_U, weight_TA, shared);
    parallel_for(T, std::max<int64_t>(1, kHalfGrain / (A * D)), [&](int64_t b, int64_t e) {
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
    const HalfTensor x{saved[0], static_cast<float>(ctx->saved_data["scale"].toDouble())};
    const std::vector<int64_t> begin_E = ctx->saved_data["begin"].toIntVector();
    const int64_t T = x.x.size(0), D = x.x.size(1), A = weight_TA.size(1), E = gate_EMD.size(0),
                  M = gate_EMD.size(1), U = T * A;
    const bool shared = saved[8].numel() > 0;
    const HalfTensor dy = half_rounded(k, grads[0].contiguous());
    const Tensor copy_UD = rows_at(x.x, token_U), dout_UD = rows_at(dy.x, token_U);
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
      half_ffn_backward(
          k, expert(gate_EMD, up_EMD, down_EDM, e), {halves(copy_UD) + begin * D, x.scale, n, D},
          {halves(dout_UD) + begin * D, dy.scale, n, D}, floats(gate_up) + begin * 2 * M, weight.data(),
          {floats(dgate_EMD) + e * M * D, floats(dup_EMD) + e * M * D, floats(ddown_EDM) + e * M * D,
           floats(dcopy_XD) + begin * D, dweight.data()});
      for (int64_t row = 0; row < n; ++row)
        floats(dweight_TA)[copy_at(row)] = dweight[static_cast<size_t>(row)];
    });
    Tensor dgate_FD, dup_FD, ddown_DF;
    if (shared) {
      dgate_FD = at::empty_like(saved[8]), dup_FD = at::empty_like(saved[9]),
      ddown_DF = at::empty_like(saved[10]);
      half_ffn_backward(
          k, ffn(saved[8], saved[9], saved[10]), half_rows(x), half_rows(dy), floats(saved[11]), nullptr,
          {floats(dgate_FD), floats(dup_FD), floats(ddown_DF), floats(dcopy_XD) + U * D, nullptr});
    }
    const Tensor dx_TD = at::empty({T, D}, gate_EMD.options());
    const Slots s = slots(place_U, weight_TA, shared);
    parallel_for(T, std::max<int64_t>(1, kHalfGrain / (A * D)), [&](int64_t b, int64_t e) {
      train_kernels().sum_rows(floats(dcopy_XD), s.place.data() + b * s.num, floats(dx_TD) + b * D, e - b,
                               s.num, D);
    });
    return {Tensor(), dx_TD, Tensor(), dweight_TA, dgate_EMD, dup_EMD, ddown_EDM, dgate_FD, dup_FD, ddown_DF};
  }

 private:
  static HalfFfn expert(const Tensor& gate_EMD, const Tensor& up_EMD, const Tensor& down_EDM, int64_t e) {
    const int64_t M = gate_EMD.size(1), D = gate_EMD.size(2), at = e * M * D;
    return {D, M, floats(gate_EMD) + at, floats(up_EMD) + at, floats(down_EDM) + at};
  }
};

class HalfMlaInputs : public Function<HalfMlaInputs> {
 public:
  static Tensors forward(AutogradContext* ctx, HalfFormat format, const Tensor& x_in, const Tensor& q_down,
                         const Tensor& q_norm, const Tensor& q_up, const Tensor& kv_down,
                         const Tensor& kv_norm, const Tensor& kv_up, double eps) {
    const HalfKernels& k = keep_format(ctx, format);
    const HalfTensor x = half_rounded(k, x_in.contiguous());
    const HalfRows x_rows = half_rows(x);
    const int64_t T = x_rows.n, D = q_down.size(1), C = kv_up.size(1), R = kv_down.size(0) - C;
    const auto product = [&](const HalfRows& left, const float* w, int64_t N, int64_t K) {
      const Tensor y = at::empty({T, N}, q_down.options());
      half_times_transposed(k, left, half_weights(k, {w}, N, K, HalfSide::kTransposed), floats(y), N);
      return y;
    };
    const int64_t Q = q_down.size(0);
    const Tensor q_raw = product(x_rows, floats(q_down), Q, D),
                 c_raw = product(x_rows, floats(kv_down), C, D),
                 rope_key = product(x_rows, floats(kv_down) + C * D, R, D);
    const NormedRows q = norm_rows(q_raw, q_norm, eps), c = norm_rows(c_raw, kv_norm, eps);
    const HalfTensor q_half = half_rounded(k, q.y), c_half = half_rounded(k, c.y);
    const Tensor query = product(half_rows(q_half), floats(q_up), q_up.size(0), Q),
                 kv = product(half_rows(c_half), floats(kv_up), kv_up.size(0), C);
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
    const HalfTensor x{saved[0], static_cast<float>(scales[0])}, q{saved[11], static_cast<float>(scales[1])},
        c{saved[12], static_cast<float>(scales[2])};
    const Tensor &q_down = saved[1], &q_up = saved[3], &kv_down = saved[4], &kv_up = saved[6];
    const int64_t D = q_down.size(1), Q = q_down.size(0), C = kv_up.size(1), R = kv_down.size(0) - C;
    Tensor dq_up = at::empty_like(q_up), dkv_up = at::empty_like(kv_up), dq_norm, dkv_norm;
    const HalfTensor dq_raw = through_up(k, half_rounded(k, grads[0].contiguous()), q, q_up, dq_up, saved[7],
                                         saved[2], saved[9], dq_norm);
    const HalfTensor dc_raw = through_up(k, half_rounded(k, grads[1].contiguous()), c, kv_up, dkv_up,
                                         saved[8], saved[5], saved[10], dkv_norm);
    const HalfTensor drope = half_rounded(k, grads[2].contiguous());
    const Tensor dx = at::empty(x.x.sizes(), q_down.options()), dq_down = at::empty_like(q_down),
                 dkv_down = at::empty_like(kv_down);
    half_times(k, half_rows(dq_raw), half_weights(k, {floats(q_down)}, Q, D, HalfSide::kPlain), floats(dx));
    half_times(k, half_rows(dc_raw), half_weights(k, {floats(kv_down)}, C, D, HalfSide::kPlain), floats(dx),
               /*adds=*/true);
    half_times(k, half_rows(drope), half_weights(k, {floats(kv_down) + C * D}, R, D, HalfSide::kPlain),
               floats(dx),
               /*adds=*/true);
    half_gradient(k, half_rows(dq_raw), Q, half_rows(x), D, floats(dq_down));
    half_gradient(k, half_rows(dc_raw), C, half_rows(x), D, floats(dkv_down));
    half_gradient(k, half_rows(drope), R, half_rows(x), D, floats(dkv_down) + C * D);
    return {Tensor(), dx, dq_down, dq_norm, dq_up, dkv_down, dkv_norm, dkv_up, Tensor()};
  }

 private:
  // From the gradient of up-projected rows to that of the latent before its norm.
  static HalfTensor through_up(const HalfKernels& k, const HalfTensor& dy, const HalfTensor& latent,
                               const Tensor& up, const Tensor& dup, const Tensor& raw, const Tensor& gain,
                               const Tensor& rstd, Tensor& dgain) {
    const int64_t N = up.size(0), K = up.size(1);
    const Tensor dlatent = at::empty_like(raw);
    half_times(k, half_rows(dy), half_weights(k, {floats(up)}, N, K, HalfSide::kPlain), floats(dlatent));
    half_gradient(k, half_rows(dy), N, half_rows(latent), K, floats(dup));
    const NormGradients d = norm_rows_backward(dlatent, raw, gain, rstd, {});
    dgain = d.dgain_D;
    return half_rounded(k, d.dx);
  }
};

class HalfHeadLoss : public Function<HalfHeadLoss> {
 public:
  static Tensor forward(AutogradContext* ctx, HalfFormat format, const Tensor& hidden_in,
                        const Tensor& head_WD, const Tensor& target_in, double divisor, bool with_gradients) {
    const HalfKernels& k = half_kernels(format);
    const Tensor target_T = target_in.contiguous();
    const int64_t T = hidden_in.size(0), W = head_WD.size(0), D = head_WD.size(1);
    const HalfTensor hidden = half_rounded(k, hidden_in.contiguous());
    const HalfWeights head = half_weights(k, {floats(head_WD)}, W, D, HalfSide::kTransposed);
    const Tensor loss_T = at::empty({T}, head_WD.options());
    // Rows a cache line apart from multiples of 4096: a column of them shall not fall into one cache set.
    const int64_t W_row = (W + kHalfUnit - 1) / kHalfUnit * kHalfUnit + kHalfUnit;
    constexpr int64_t kPiece = 64;  // rows of fp32 logits; `chunk` of gradients
    const int64_t chunk = logit_rows(T, W);
    const Tensor logit =
        at::empty({std::min(std::min(chunk, kPiece * num_threads()), T), W}, head_WD.options());
    const HalfTensor dlogit{empty_half({std::min(chunk, T), W_row}), kHalfLimit};
    Tensor dhidden_TD, dhead_WD;
    if (with_gradients) dhidden_TD = at::empty({T, D}, head_WD.options()), dhead_WD = at::empty_like(head_WD);
    HalfWeights head_plain;
    if (with_gradients) head_plain = half_weights(k, {floats(head_WD)}, W, D, HalfSide::kPlain);
    for (int64_t first = 0; first < T; first += chunk) {
      const int64_t n = std::min(chunk, T - first);
      for (int64_t begin = 0; begin < n; begin += logit.size(0)) {
        const int64_t at = first + begin, rows = std::min(logit.size(0), n - begin);
        half_times_transposed(k, {halves(hidden.x) + at * D, hidden.scale, rows, D}, head, floats(logit), W);
        parallel_for(rows, 8, [&](int64_t b, int64_t e) {
          k.cross_entropy(floats(logit) + b * W, longs(target_T) + at + b, floats(loss_T) + at + b,
                          halves(dlogit.x) + (begin + b) * W_row, W_row, dlogit.scale, e - b, W);
        });
      }
      if (!with_gradients) continue;
      const HalfRows d{halves(dlogit.x), dlogit.scale * static_cast<float>(divisor), n, W_row};
      half_times(k, d, head_plain, floats(dhidden_TD) + first * D);
      half_gradient(k, d, W, {halves(hidden.x) + first * D, hidden.scale, n, D}, D, floats(dhead_WD),
                    /*adds=*/first > 0);
    }
    if (with_gradients) ctx->save_for_backward({dhidden_TD, dhead_WD});
    return loss_T.sum(at::kDouble).div(divisor).to(at::kFloat);
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const auto [dhidden_TD, dhead_WD] = kept_gradients(ctx->get_saved_variables(), grads[0]);
    const Tensor none;
    return {none, dhidden_TD, dhead_WD, none, none, none};
  }
};

}  // namespace

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
