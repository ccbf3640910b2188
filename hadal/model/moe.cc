#include "hadal/model/moe.h"

#include <cmath>

#include "hadal/base/check.h"
#include "hadal/model/choose_experts.h"
#include "hadal/ops/expert_order.h"
#include "hadal/ops/fused.h"
#include "hadal/ops/half.h"
#include "hadal/ops/linear.h"
#include "hadal/ops/recompute.h"
#include "hadal/ops/tensor_sum.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

constexpr double kNormEpsilon = 1e-20;  // keeps an all-zero choice finite, as the references do

}  // namespace

Routing route(const MoeConfig& moe, const Tensor& logit_TE, const Tensor& bias_E, const Tensor& chosen_TA) {
  const int64_t T = logit_TE.size(0), E = moe.num_experts;
  HADAL_SHAPE(logit_TE, T, E);
  const Tensor wide_TE = logit_TE.to(at::kFloat);
  const Tensor affinity_TE = moe.scoring == Scoring::kSigmoid ? wide_TE.sigmoid() : wide_TE.softmax(-1);

  const Tensor expert_TA =
      chosen_TA.defined() ? chosen_TA : choose_experts(moe, affinity_TE.detach(), bias_E);
  Tensor weight_TA = affinity_TE.gather(1, expert_TA);
  const bool normalize = moe.normalize && moe.top_k > 1;
  if (normalize) weight_TA = weight_TA / (weight_TA.sum(-1, /*keepdim=*/true) + kNormEpsilon);
  // The V2 code either normalises or scales (spec 7.1); V3 does both.
  if (moe.scoring == Scoring::kSigmoid || !normalize) weight_TA = weight_TA * moe.scale;
  return {expert_TA, weight_TA, affinity_TE};
}

Tensor mlp(const MlpWeights& w, const Tensor& in, const TrainingPass& pass) {
  HADAL_CHECK(!pass.tensor_sum || pass.products == Products::kF32) << "matrices are cut in fp32";
  const Tensor x = into_parts(in, pass.tensor_sum);
  if (pass.fp8) return fp8_mlp(*pass.fp8, x, w.gate, w.up, w.down);
  if (const auto format = half_format(pass.products, x)) return half_mlp(*format, x, w.gate, w.up, w.down);
  const Tensor gate = linear(x, w.gate, pass.products), up = linear(x, w.up, pass.products);
  const Tensor hidden = x.scalar_type() == at::kFloat ? fused_swiglu(gate, up) : silu(gate) * up;
  const Tensor y = linear(hidden, w.down, pass.products);
  Discarded discarded(pass.recompute == Recompute::kSelective);
  discarded.add(hidden, [gate = gate.detach(), up = up.detach()] { return fused_swiglu(gate, up); });
  discarded.free_until_gradient_of({y});
  return out_of_parts(y, pass.tensor_sum);
}

Tensor experts_reference(const ExpertWeights& w, const Tensor& x_TD, const Routing& routing) {
  const int64_t T = x_TD.size(0), D = x_TD.size(1), A = routing.expert_TA.size(1), E = w.gate_EMD.size(0);
  HADAL_SHAPE(x_TD, T, D);
  const Tensor flat_U = routing.expert_TA.flatten();
  const auto [sorted_U, order_U] = flat_U.sort(std::optional<bool>(true), 0);
  const std::vector<int64_t> count_E = to_ints(expert_counts(routing.expert_TA, E));
  const Tensor copy_UD = x_TD.index_select(0, order_U.floor_divide(A));

  // unbind, not select: its backward stacks the experts' gradients once.
  const std::vector<Tensor> gate = w.gate_EMD.unbind(0), up = w.up_EMD.unbind(0), down = w.down_EDM.unbind(0);
  std::vector<Tensor> parts;
  int64_t begin = 0;
  for (size_t e = 0; e < count_E.size(); begin += count_E[e++])
    if (count_E[e] > 0) parts.push_back(mlp({gate[e], up[e], down[e]}, copy_UD.narrow(0, begin, count_E[e])));
  // Back to token order: slot a of token t stands at place_U[t*A + a] of the sorted rows.
  const Tensor place_U = std::get<1>(order_U.sort(0));
  const Tensor out_TAD = concat(parts, 0).index_select(0, place_U).view({T, A, D}).to(at::kFloat);
  return (out_TAD * routing.weight_TA.unsqueeze(-1)).sum(1);
}

Tensor experts(const ExpertWeights& w, const Tensor& x_TD, const Routing& routing) {
  if (x_TD.scalar_type() != at::kFloat) return experts_reference(w, x_TD, routing);
  return fused_experts(x_TD, routing.expert_TA, routing.weight_TA, w.gate_EMD, w.up_EMD, w.down_EDM);
}

MoeOutput moe_block(const MoeConfig& moe, const MoeWeights& w, const Tensor& x_TD, const TrainingPass& pass,
                    const Tensor& chosen_TA) {
  MoeOutput result;
  result.logit_TE = x_TD.to(at::kFloat).matmul(w.router_ED.to(at::kFloat).t());
  result.routing = route(moe, result.logit_TE, w.balance_bias_E, chosen_TA);
  Routing kept = result.routing;
  if (pass.kept_slots) kept.weight_TA = kept.weight_TA * pass.kept_slots(result.routing);
  const ExpertWeights& e = w.experts;
  if (const auto format = half_format(pass.products, x_TD);
      format && !pass.fp8 && w.shared.gate.defined() && !pass.exchange) {
    result.y_TD = half_moe(*format, x_TD, kept.expert_TA, kept.weight_TA, e.gate_EMD, e.up_EMD, e.down_EDM,
                           w.shared.gate, w.shared.up, w.shared.down);
    return result;
  }
  if (pass.exchange) {
    HADAL_CHECK(pass.products == Products::kF32) << "an exchange is of fp32";
    result.y_TD = exchanged_experts(*pass.exchange, moe.num_experts, x_TD, kept.expert_TA, kept.weight_TA,
                                    {e.gate_EMD, e.up_EMD, e.down_EDM});
  } else if (pass.fp8) {
    result.y_TD =
        fp8_experts(*pass.fp8, x_TD, kept.expert_TA, kept.weight_TA, e.gate_EMD, e.up_EMD, e.down_EDM);
  } else if (pass.products != Products::kF32) {
    result.y_TD =
        fused_experts(x_TD, kept.expert_TA, kept.weight_TA, e.gate_EMD, e.up_EMD, e.down_EDM, pass.products);
  } else {
    result.y_TD = experts(e, x_TD, kept);
  }
  if (w.shared.gate.defined()) result.y_TD = result.y_TD + mlp(w.shared, x_TD, pass).to(at::kFloat);
  result.y_TD = result.y_TD.to(x_TD.scalar_type());
  return result;
}

}  // namespace hadal
