// DeepSeek-V2's balancing (training spec 6.5): three auxiliary losses and, in training, dropping of tokens
// beyond a device's capacity. A device is a group of experts: D = num_groups, and a token may go to
// M = num_groups_kept of them.
#pragma once
#include "hadal/config.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

// Each sums over the rows of a batch what is 1 for a row in perfect balance; alpha is not in it. Gradient
// through the affinities only. affinity_TE: softmax, T = rows * length; expert_TA: the experts chosen.
struct V2BalanceLosses {
  Tensor expert;         // sum_i f_i P_i
  Tensor device;         // sum_d mean_{i in d} f_i  sum_{i in d} P_i
  Tensor communication;  // sum_d f''_d sum_{i in d} P_i, f'' by the tokens sent to device d
};
V2BalanceLosses v2_balance_losses(const MoeConfig& moe, const Tensor& affinity_TE, const Tensor& expert_TA,
                                  int64_t rows);

// Which (token, slot) pairs stay, [T, A] bool: each device keeps at most floor(capacity_factor * A * T / D)
// of those sent to it, the ones with the greatest affinity (the earlier token among equals). Tokens of the
// rows in protected_B (bool) always stay and count. A dropped slot contributes nothing; the other weights
// stay as they are. Training only.
Tensor kept_slots(const MoeConfig& moe, const Tensor& affinity_TE, const Tensor& expert_TA,
                  double capacity_factor, const Tensor& protected_B);

// Rows first ... first + n - 1 of which no token is dropped: about `share` of all, bool [n]. A function of
// (seed, row).
Tensor never_dropped(uint64_t seed, int64_t first, int64_t n, double share);

}  // namespace hadal
