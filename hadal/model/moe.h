// DeepSeekMoE: a gate chooses top_k of the routed experts for each token; shared experts see every token.
#pragma once
#include "hadal/config.h"
#include "hadal/model/training_pass.h"
#include "hadal/model/weights.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

struct Routing {
  Tensor expert_TA;    // int64, ascending
  Tensor weight_TA;    // fp32, normalised and scaled
  Tensor affinity_TE;  // fp32, before the bias: what balance losses look at
};

// Chooses experts from gate logits. Affinity is a softmax (V2) or a sigmoid (V3). With groups, only the best
// num_groups_kept may be chosen from; a group scores its best affinity (V2) or the sum of its two best biased
// ones (V3). bias_E (V3) steers the choice and nothing else: weights come from the unbiased affinity, or
// balancing would leak into the loss. Closed experts are -inf, never 0: biased scores may be negative.
// Ties: the lower index. V3 report 2.1.2; architecture spec 7. chosen_TA: not chosen anew, but these experts.
Routing route(const MoeConfig& moe, const Tensor& logit_TE, const Tensor& bias_E,
              const Tensor& chosen_TA = {});

// down( silu(gate in) * (up in) ). in: [..., D]
Tensor mlp(const MlpWeights& w, const Tensor& in, const TrainingPass& pass = {});

// Sum over the chosen experts of weight * expert(x_TD), added in fp32 in ascending expert index; [T, D] fp32.
// Tokens are sorted by expert, so an expert's weights are read once. fp32 goes through fused_experts.
Tensor experts(const ExpertWeights& w, const Tensor& x_TD, const Routing& routing);
Tensor experts_reference(const ExpertWeights& w, const Tensor& x_TD, const Routing& routing);

// Router, experts and shared expert; router logits in fp32 whatever the dtype of x. [T, D]. chosen_TA as in
// route(). A slot that pass.kept_slots drops has weight 0; the others keep theirs (V2 does not normalise).
struct MoeOutput {
  Tensor y_TD;
  Tensor logit_TE;  // fp32
  Routing routing;
};
MoeOutput moe_block(const MoeConfig& moe, const MoeWeights& w, const Tensor& x_TD,
                    const TrainingPass& pass = {}, const Tensor& chosen_TA = {});

}  // namespace hadal
