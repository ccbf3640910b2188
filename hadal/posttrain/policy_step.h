// The gradient of a policy loss: one forward and backward pass over answers that were sampled before.
#pragma once
#include <span>

#include "hadal/posttrain/policy_loss.h"
#include "hadal/posttrain/policy_rows.h"
#include "hadal/train/gradient_workers.h"

namespace hadal {

struct PolicyStepConfig {
  PolicyLossConfig loss;
  double temperature = 1;
  double entropy = 0;  // of a bonus on the mean entropy of the trained tokens
  int64_t row_tokens = 512, micro = 0, workers = 1;
  bool replay_routes = true;
};

// Sums over the trained tokens unless said.
struct PolicyStepResult {
  Gradients gradients;  // of the whole loss
  double loss = 0;
  int64_t tokens = 0;
  double kl = 0, entropy = 0;
  int64_t clipped_low = 0, clipped_high = 0;
  double logp_difference_sum = 0, logp_difference_max = 0;  // to the policy that sampled
  // (token, MoE layer) pairs whose experts, chosen anew, would not be those replayed; and all of them.
  int64_t routes_changed = 0, routes = 0;
};

// The numbers, not the gradients.
void add(PolicyStepResult& sum, const PolicyStepResult& part);

// `workers` must be of this model. `divisor`: answers and tokens of the update, those left out because they
// train nothing included; 0: these. No sample: no gradients.
PolicyStepResult policy_step(GradientWorkers& workers, const ModelConfig& model,
                             const PolicyStepConfig& config, std::span<const PolicySample> samples,
                             PolicyDivisor divisor = {});

// Log probabilities of all samples' answers by the training pass, differentiable, one after the other.
Tensor answer_logps(const Transformer& model, const PolicyRows& rows, std::span<const PolicySample> samples,
                    double temperature);

}  // namespace hadal
