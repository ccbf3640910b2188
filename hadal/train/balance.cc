#include "hadal/train/balance.h"

#include <algorithm>
#include <vector>

#include "hadal/base/random.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {

V2BalanceLosses v2_balance_losses(const MoeConfig& moe, const Tensor& affinity_TE, const Tensor& expert_TA,
                                  int64_t rows) {
  const int64_t E = moe.num_experts, A = moe.top_k, G = moe.num_groups, T = affinity_TE.size(0), B = rows;
  HADAL_SHAPE(affinity_TE, T, E);
  HADAL_SHAPE(expert_TA, T, A);
  const int64_t S = T / std::max<int64_t>(1, B);
  const Tensor chosen_TE = affinity_TE.detach().new_zeros({T, E}).scatter(1, expert_TA, 1.0);
  const Tensor f_BE = chosen_TE.view({B, S, E}).mean(1) * (static_cast<double>(E) / static_cast<double>(A));
  const Tensor share_BE = affinity_TE.view({B, S, E}).mean(1);
  const Tensor share_BG = share_BE.view({B, G, E / G}).sum(-1);
  const Tensor sent_TG = chosen_TE.view({T, G, E / G}).amax(-1);  // a token goes to a device once
  const Tensor sent_BG =
      sent_TG.view({B, S, G}).mean(1) * (static_cast<double>(G) / static_cast<double>(moe.num_groups_kept));
  return {.expert = (f_BE * share_BE).sum(),
          .device = (f_BE.view({B, G, E / G}).mean(-1) * share_BG).sum(),
          .communication = (sent_BG * share_BG).sum()};
}

Tensor kept_slots(const MoeConfig& moe, const Tensor& affinity_TE, const Tensor& expert_TA,
                  double capacity_factor, const Tensor& protected_B) {
  const int64_t E = moe.num_experts, A = moe.top_k, G = moe.num_groups;
  const int64_t T = expert_TA.size(0), B = protected_B.size(0), S = T / std::max<int64_t>(1, B);
  HADAL_SHAPE(affinity_TE, T, E);
  HADAL_SHAPE(expert_TA, T, A);
  HADAL_SHAPE(protected_B, B);
  const std::vector<int64_t> expert = to_ints(expert_TA), guarded = to_ints(protected_B.to(at::kLong));
  const std::vector<float> affinity = to_floats(affinity_TE.detach().gather(1, expert_TA));
  const auto capacity =
      static_cast<int64_t>(capacity_factor * static_cast<double>(A * T) / static_cast<double>(G));
  std::vector<std::vector<int64_t>> sent(static_cast<size_t>(G));  // slots of each device, in token order
  std::vector<int64_t> used(static_cast<size_t>(G)), kept(expert.size(), 1);
  for (size_t slot = 0; slot < expert.size(); ++slot) {
    const auto device = static_cast<size_t>(expert[slot] / (E / G));
    const int64_t row = static_cast<int64_t>(slot) / A / S;
    if (guarded[static_cast<size_t>(row)]) {
      ++used[device];
    } else {
      sent[device].push_back(static_cast<int64_t>(slot));
    }
  }
  for (size_t device = 0; device < sent.size(); ++device) {
    std::vector<int64_t>& slots = sent[device];
    const auto at = [&](int64_t slot) { return affinity[static_cast<size_t>(slot)]; };
    std::stable_sort(slots.begin(), slots.end(), [&](int64_t a, int64_t b) { return at(a) > at(b); });
    const int64_t room = std::max<int64_t>(0, capacity - used[device]);
    for (size_t i = static_cast<size_t>(room); i < slots.size(); ++i) kept[static_cast<size_t>(slots[i])] = 0;
  }
  return on_device(from_ints(kept).view({T, A}).to(at::kBool), affinity_TE.device());
}

Tensor never_dropped(uint64_t seed, int64_t first, int64_t n, double share) {
  std::vector<int64_t> chosen;
  for (int64_t row = first; row < first + n; ++row)
    chosen.push_back(uniform(seed, stream_id("never_dropped"), static_cast<uint64_t>(row)) < share);
  return from_ints(chosen).to(at::kBool);
}

}  // namespace hadal
