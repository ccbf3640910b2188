// The gate of a MoE layer for one token: which experts, with what weight (V3 report 2.1.2; architecture spec
// 7).
#pragma once
#include <cstdint>

#include "hadal/config.h"

namespace hadal {

// expert [A] ascending, of affinity [E] (unbiased). bias [E] (null: none) steers the choice. Ties: the lower
// index. choice [E] is scratch.
void choose_experts(const MoeConfig& moe, const float* affinity, const float* bias, float* choice,
                    int32_t* expert);

// expert [A] ascending and weight [A], normalised and scaled, from logit [E]. bias [E] (null: none) steers
// the choice and nothing else. Ties: the lower index. affinity, choice [E] are scratch; affinity holds the
// unbiased affinities afterwards.
void route_token(const MoeConfig& moe, const float* logit, const float* bias, float* affinity, float* choice,
                 int32_t* expert, float* weight);

}  // namespace hadal
