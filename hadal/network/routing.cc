#include "hadal/network/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hadal {
namespace {

constexpr float kClosed = -std::numeric_limits<float>::infinity();  // never 0: biased scores may be negative

void affinities(const MoeConfig& moe, const float* logit, float* affinity) {
  const int64_t E = moe.num_experts;
  if (moe.scoring == Scoring::kSigmoid) {
    for (int64_t e = 0; e < E; ++e) affinity[e] = 1.0f / (1.0f + std::exp(-logit[e]));
    return;
  }
  const float most = *std::max_element(logit, logit + E);
  float sum = 0;
  for (int64_t e = 0; e < E; ++e) sum += affinity[e] = std::exp(logit[e] - most);
  for (int64_t e = 0; e < E; ++e) affinity[e] /= sum;
}

float group_score(const MoeConfig& moe, const float* choice, int64_t size) {
  float best = kClosed, second = kClosed;
  for (int64_t i = 0; i < size; ++i) {
    if (choice[i] > best) {
      second = best;
      best = choice[i];
    } else if (choice[i] > second) {
      second = choice[i];
    }
  }
  return moe.choice == Choice::kGroupMax ? best : best + second;
}

// Closes all groups but the best num_groups_kept.
void close_groups(const MoeConfig& moe, float* choice) {
  const int64_t G = moe.num_groups, size = moe.num_experts / G;
  constexpr int64_t kMaxGroups = 1024;
  float score[kMaxGroups];
  for (int64_t g = 0; g < G; ++g) score[g] = group_score(moe, choice + g * size, size);
  for (int64_t g = 0; g < G; ++g) {
    int64_t better = 0;
    for (int64_t h = 0; h < G; ++h) better += score[h] > score[g] || (score[h] == score[g] && h < g);
    if (better >= moe.num_groups_kept) std::fill_n(choice + g * size, size, kClosed);
  }
}

}  // namespace

void choose_experts(const MoeConfig& moe, const float* affinity, const float* bias, float* choice,
                    int32_t* expert) {
  const int64_t E = moe.num_experts, A = moe.top_k;
  const bool biased = bias && moe.choice == Choice::kGroupTopTwo;
  for (int64_t e = 0; e < E; ++e) choice[e] = biased ? affinity[e] + bias[e] : affinity[e];
  if (moe.choice != Choice::kGreedy && moe.num_groups > 1) close_groups(moe, choice);
  for (int64_t a = 0; a < A; ++a) {
    int64_t best = -1;
    for (int64_t e = 0; e < E; ++e)
      if (!std::isnan(choice[e]) && (best < 0 || choice[e] > choice[best])) best = e;
    if (best < 0) best = a;  // all NaN: the caller's logits are lost anyway, the indices must still be valid
    expert[a] = static_cast<int32_t>(best);
    choice[best] = std::numeric_limits<float>::quiet_NaN();
  }
  std::sort(expert, expert + A);
}

void route_token(const MoeConfig& moe, const float* logit, const float* bias, float* affinity, float* choice,
                 int32_t* expert, float* weight) {
  affinities(moe, logit, affinity);
  choose_experts(moe, affinity, bias, choice, expert);
  const int64_t A = moe.top_k;
  float sum = 0;
  for (int64_t a = 0; a < A; ++a) sum += weight[a] = affinity[expert[a]];
  const bool normalize = moe.normalize && A > 1;
  // The V2 code either normalises or scales (spec 7.1); V3 does both.
  const float scale = moe.scoring == Scoring::kSigmoid || !normalize ? static_cast<float>(moe.scale) : 1.0f;
  for (int64_t a = 0; a < A; ++a) weight[a] = (normalize ? weight[a] / (sum + 1e-20f) : weight[a]) * scale;
}

}  // namespace hadal
