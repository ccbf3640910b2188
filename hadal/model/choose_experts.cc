#include "hadal/model/choose_experts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

constexpr float kClosed = -std::numeric_limits<float>::infinity();

// Indices of the k greatest, ascending; of equal scores the lower index.
void top(const float* score, int64_t n, int64_t k, std::vector<int64_t>& chosen) {
  chosen.clear();
  const auto taken = [&](int64_t i) { return std::find(chosen.begin(), chosen.end(), i) != chosen.end(); };
  for (int64_t a = 0; a < k; ++a) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; ++i)
      if ((best < 0 || score[i] > score[best]) && !taken(i)) best = i;
    chosen.push_back(best);
  }
  std::sort(chosen.begin(), chosen.end());
}

// A group's best score, or the sum of its two best.
float group_score(const MoeConfig& moe, const float* score, int64_t size) {
  float first = kClosed, second = kClosed;
  for (int64_t i = 0; i < size; ++i) {
    if (score[i] > first) {
      second = first, first = score[i];
    } else if (score[i] > second) {
      second = score[i];
    }
  }
  return moe.choice == Choice::kGroupMax ? first : first + second;
}

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
  const int64_t T = affinity_TE.size(0), E = moe.num_experts, G = moe.num_groups, A = moe.top_k;
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
    std::vector<float> score(static_cast<size_t>(E)), group(static_cast<size_t>(G));
    std::vector<int64_t> chosen;
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t e = 0; e < E; ++e)
        score[static_cast<size_t>(e)] = affinity[t * E + e] + (biased ? shift[e] : 0.0f);
      if (moe.choice != Choice::kGreedy && G > 1) {
        for (int64_t g = 0; g < G; ++g)
          group[static_cast<size_t>(g)] = group_score(moe, score.data() + g * (E / G), E / G);
        top(group.data(), G, moe.num_groups_kept, chosen);
        for (int64_t g = 0; g < G; ++g)
          if (std::find(chosen.begin(), chosen.end(), g) == chosen.end())
            std::fill_n(score.begin() + g * (E / G), E / G, kClosed);
      }
      top(score.data(), E, A, chosen);
      std::copy(chosen.begin(), chosen.end(), expert + t * A);
    }
  });
  return expert_TA;
}

}  // namespace hadal
