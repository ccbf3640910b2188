#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "hadal/ops/expert_order.h"
#include "hadal/ops/plain.h"
#include "hadal/ops/rope.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

Tensor rounded(const Tensor& x, Products products) {
  return products == Products::kBf16 ? x.to(at::kBFloat16) : x;
}

// Each token's row, once for each of its experts: x[token_U[u]]. The gradient is gathered too, from rows
// place_TA, in a fixed order, where LibTorch would add atomically.
class CopyRows : public Function<CopyRows> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x_TD, const Tensor& token_U,
                        const Tensor& place_TA) {
    ctx->save_for_backward({place_TA});
    return x_TD.index_select(0, token_U);
  }
  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensor place_TA = ctx->get_saved_variables()[0], none;
    const Tensor dy_UD = grads[0].index_select(0, place_TA.flatten());
    return {dy_UD.view({place_TA.size(0), place_TA.size(1), -1}).sum(1), none, none};
  }
};

// The weighted sum of each token's rows, in fp32 and in ascending expert. copy_U: t*A + a of each row. Of
// what LibTorch would keep for the backward pass, only the rows as they are.
class CombineRows : public Function<CombineRows> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& row_UD, const Tensor& weight_TA,
                        const Tensor& place_TA, const Tensor& copy_U) {
    ctx->save_for_backward({row_UD, weight_TA, place_TA, copy_U});
    return (by_token(row_UD, place_TA) * weight_TA.unsqueeze(-1)).sum(1);
  }
  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const Tensor &row_UD = saved[0], &weight_TA = saved[1], &place_TA = saved[2], &copy_U = saved[3], none;
    const Tensor& dy_TD = grads[0];
    const Tensor dweight_TA = (by_token(row_UD, place_TA) * dy_TD.unsqueeze(1)).sum(-1);
    const Tensor weight_U = weight_TA.flatten().index_select(0, copy_U);
    const Tensor drow_UD =
        dy_TD.index_select(0, copy_U.floor_divide(weight_TA.size(1))) * weight_U.unsqueeze(-1);
    return {drow_UD.to(row_UD.scalar_type()), dweight_TA, none, none};
  }

 private:
  static Tensor by_token(const Tensor& row_UD, const Tensor& place_TA) {  // [T, A, D]
    return row_UD.index_select(0, place_TA.flatten())
        .view({place_TA.size(0), place_TA.size(1), -1})
        .to(at::kFloat);
  }
};

// Copies of tokens, sorted by expert: where each expert's end. In bf16 the device alone knows.
struct Groups {
  Tensor end_E;               // int32; undefined: `rows` it is
  std::vector<int64_t> rows;  // of each expert
};

Groups groups_of(const Tensor& expert_TA, const Tensor& x, int64_t E, int64_t D, int64_t M) {
  const Tensor count_E = expert_counts(expert_TA, E);
  // The grouped product reads rows in pieces of 16 bytes.
  const bool grouped = x.scalar_type() == at::kBFloat16 && D % 8 == 0 && M % 8 == 0;
  if (grouped) return {count_E.cumsum(0).to(at::kInt), {}};
  return {Tensor(), to_ints(count_E)};
}

// Each expert's rows times its matrix, transposed.
Tensor grouped_product(const Tensor& x_UX, const Tensor& w_EYX, const Groups& groups) {
  if (groups.end_E.defined()) return at::_grouped_mm(x_UX, w_EYX.transpose(1, 2), groups.end_E);
  const std::vector<Tensor> w = w_EYX.unbind(0);  // not select: its backward stacks the gradients once
  std::vector<Tensor> parts;
  int64_t begin = 0;
  for (size_t e = 0; e < w.size(); begin += groups.rows[e++])
    if (groups.rows[e] > 0) parts.push_back(x_UX.narrow(0, begin, groups.rows[e]).matmul(w[e].t()));
  return at::cat(parts, 0);
}

class HeadLoss : public Function<HeadLoss> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden_TD, const Tensor& head_WD,
                        const Tensor& target_T, double divisor, bool with_gradients, bool bf16) {
    const Products products = bf16 ? Products::kBf16 : Products::kF32;
    const Tensor in_TD = rounded(hidden_TD, products), head = rounded(head_WD, products);
    const int64_t T = hidden_TD.size(0), W = head_WD.size(0);
    constexpr int64_t kLogits = 64 << 20;  // values alive at once, 256 MB
    const int64_t chunk = std::clamp<int64_t>(kLogits / W, 16, std::max<int64_t>(T, 16));
    const Tensor loss_T = at::empty({T}, hidden_TD.options().dtype(at::kFloat));
    Tensor dhidden_TD, dhead_WD;
    if (with_gradients) dhidden_TD = at::empty_like(hidden_TD), dhead_WD = at::zeros_like(head_WD);
    for (int64_t first = 0; first < T; first += chunk) {
      const int64_t n = std::min(chunk, T - first);
      const Tensor in = in_TD.narrow(0, first, n), target = target_T.narrow(0, first, n);
      const Tensor counts = target.ge(0), column = target.clamp_min(0).unsqueeze(1);
      Tensor probability_XW = in.matmul(head.t()).to(at::kFloat).log_softmax(-1);  // X: rows of the chunk
      loss_T.narrow(0, first, n).copy_(probability_XW.gather(1, column).squeeze(1).neg() * counts);
      if (!with_gradients) continue;
      probability_XW.exp_();
      probability_XW.scatter_add_(1, column, at::full_like(column, -1, at::kFloat));
      probability_XW.mul_((counts.to(at::kFloat) / divisor).unsqueeze(1));
      const Tensor dlogit_XW = rounded(probability_XW, products);
      dhidden_TD.narrow(0, first, n).copy_(dlogit_XW.matmul(head));
      dhead_WD.add_(dlogit_XW.t().matmul(in));
    }
    if (with_gradients) ctx->save_for_backward({dhidden_TD, dhead_WD});
    return loss_T.sum(at::kDouble).div(divisor).to(at::kFloat);
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const Tensor none;
    return {saved[0] * grads[0], saved[1] * grads[0], none, none, none, none};
  }
};

// Keys that each query sees: not after it, not before its document.
Tensor visible_BXSL(const Tensor& segment_start_BS) {  // X: 1, for all heads
  const int64_t S = segment_start_BS.size(1);
  const Tensor key_L = at::arange(S, segment_start_BS.options());
  return key_L.le(key_L.unsqueeze(1)).logical_and(key_L.ge(segment_start_BS.unsqueeze(-1))).unsqueeze(1);
}

}  // namespace

Tensor plain_linear(const Tensor& x, const Tensor& w, Products products) {
  return rounded(x, products).matmul(rounded(w, products).t());
}

Tensor plain_rms_norm(const Tensor& x, const Tensor& gain_D, double eps) {
  return at::rms_norm(x.to(at::kFloat).contiguous(), {x.size(-1)}, gain_D, eps);
}

Tensor plain_attention(const AttentionSizes& s, const Tensor& query, const Tensor& kv, const Tensor& rope_key,
                       const RopeAngles& angles, const Tensor& segment_start_BS) {
  const int64_t B = query.size(0), S = query.size(1), K = s.N + s.R;
  const Tensor query_BSHK = query.unflatten(-1, {s.H, K}), kv_BSHX = kv.unflatten(-1, {s.H, s.N + s.V});
  const Tensor q_BHSK =
      at::cat({query_BSHK.narrow(-1, 0, s.N), rope(query_BSHK.narrow(-1, s.N, s.R), angles)}, -1)
          .transpose(1, 2);
  const Tensor key_rope = rope(rope_key, angles).unsqueeze(2).expand({-1, -1, s.H, -1});
  const Tensor k_BHSK = at::cat({kv_BSHX.narrow(-1, 0, s.N), key_rope}, -1).transpose(1, 2);
  Tensor value = kv_BSHX.narrow(-1, s.N, s.V).contiguous().transpose(1, 2);  // kernels ask for aligned starts
  // The fastest kernel has one size for keys and values.
  const bool padded = value.scalar_type() == at::kBFloat16 && s.V < K;
  if (padded) value = at::constant_pad_nd(value, {0, K - s.V});
  std::optional<Tensor> visible;
  if (segment_start_BS.defined() && segment_start_BS.numel() > 0) visible = visible_BXSL(segment_start_BS);
  const Tensor out = at::scaled_dot_product_attention(q_BHSK, k_BHSK, value, visible, /*dropout_p=*/0.0,
                                                      /*is_causal=*/!visible, s.scale);
  return out.narrow(-1, 0, s.V).transpose(1, 2).reshape({B, S, s.H * s.V});
}

Tensor plain_experts(const Tensor& x_TD, const Tensor& expert_TA, const Tensor& weight_TA,
                     const Tensor& gate_EMD, const Tensor& up_EMD, const Tensor& down_EDM,
                     Products products) {
  const int64_t T = x_TD.size(0), D = x_TD.size(1), A = expert_TA.size(1);
  const int64_t E = gate_EMD.size(0), M = gate_EMD.size(1);
  HADAL_SHAPE(expert_TA, T, A);
  HADAL_SHAPE(gate_EMD, E, M, D);
  const Tensor copy_U = std::get<1>(expert_TA.flatten().sort(std::optional<bool>(true), 0));
  const Tensor place_TA = std::get<1>(copy_U.sort(0)).view({T, A});
  const Tensor x = rounded(x_TD, products);
  const Groups groups = groups_of(expert_TA, x, E, D, M);
  const auto product = [&](const Tensor& rows, const Tensor& w) {
    return grouped_product(rows, rounded(w, products), groups);
  };
  const Tensor copy_UD = CopyRows::apply(x, copy_U.floor_divide(A), place_TA);
  const Tensor hidden_UM = at::silu(product(copy_UD, gate_EMD)) * product(copy_UD, up_EMD);
  return CombineRows::apply(product(hidden_UM, down_EDM), weight_TA, place_TA, copy_U);
}

Tensor plain_head_loss(const Tensor& hidden_TD, const Tensor& head_WD, const Tensor& target_T, double divisor,
                       Products products) {
  const bool with_gradients =
      c10::GradMode::is_enabled() && (hidden_TD.requires_grad() || head_WD.requires_grad());
  return HeadLoss::apply(hidden_TD, head_WD, target_T, divisor, with_gradients, products == Products::kBf16);
}

}  // namespace hadal
