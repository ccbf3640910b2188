#include "hadal/model/choose_experts.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "hadal/network/routing.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

// Indices of the k greatest along the last dimension; equal scores keep the lower index.
Tensor top_indices(const Tensor& score, int64_t k) {
  return std::get<1>(score.sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true)).narrow(-1, 0, k);
}

// score_TE with every expert outside the kept groups at -inf.
Tensor close_groups(const MoeConfig& moe, const Tensor& score_TE) {
  const int64_t E = moe.num_experts, G = moe.num_groups;
  const Tensor score_TGX = score_TE.unflatten(-1, {G, E / G});  // X: experts of a group
  const Tensor sorted_TGX = std::get<0>(score_TGX.sort(/*stable=*/true, -1, /*descending=*/true));
  const Tensor group_TG =
      moe.choice == Choice::kGroupMax ? sorted_TGX.select(-1, 0) : sorted_TGX.narrow(-1, 0, 2).sum(-1);
  const Tensor kept_TY = top_indices(group_TG, moe.num_groups_kept);
  const Tensor closed_TG = group_TG.new_ones(group_TG.sizes(), at::kBool).scatter(1, kept_TY, 0);
  return score_TGX.masked_fill(closed_TG.unsqueeze(-1), -INFINITY).flatten(-2);
}

}  // namespace

Tensor choose_experts_reference(const MoeConfig& moe, const Tensor& affinity_TE, const Tensor& bias_E) {
  Tensor choice_TE = affinity_TE;
  if (moe.choice == Choice::kGroupTopTwo) {
    const int64_t E = moe.num_experts;
    HADAL_SHAPE(bias_E, E);
    choice_TE = choice_TE + bias_E;
  }
  if (moe.choice != Choice::kGreedy && moe.num_groups > 1) choice_TE = close_groups(moe, choice_TE);
  return std::get<0>(top_indices(choice_TE, moe.top_k).sort(-1));
}

Tensor choose_experts(const MoeConfig& moe, const Tensor& affinity_TE, const Tensor& bias_E) {
  if (is_plain(affinity_TE)) return choose_experts_reference(moe, affinity_TE, bias_E);
  const int64_t T = affinity_TE.size(0), E = moe.num_experts, A = moe.top_k;
  HADAL_SHAPE(affinity_TE, T, E);
  const bool biased = moe.choice == Choice::kGroupTopTwo;
  if (biased) HADAL_SHAPE(bias_E, E);
  const Tensor bias = biased ? bias_E.contiguous() : Tensor();
  const Tensor expert_TA = empty({T, A}, at::kLong);
  const Tensor whole_TE = affinity_TE.contiguous();
  const auto* affinity = static_cast<const float*>(whole_TE.data_ptr());
  const auto* shift = biased ? static_cast<const float*>(bias.data_ptr()) : nullptr;
  auto* expert = static_cast<int64_t*>(expert_TA.data_ptr());
  parallel_for(T, 256, [&](int64_t begin, int64_t end) {
    std::vector<float> choice(static_cast<size_t>(E));
    std::vector<int32_t> chosen(static_cast<size_t>(A));
    for (int64_t t = begin; t < end; ++t) {
      hadal::choose_experts(moe, affinity + t * E, shift, choice.data(), chosen.data());
      std::copy(chosen.begin(), chosen.end(), expert + t * A);
    }
  });
  return expert_TA;
}

}  // namespace hadal
