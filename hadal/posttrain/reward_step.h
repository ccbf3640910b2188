// Training a reward model: the Bradley-Terry loss of pairs of answers and its gradient.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "hadal/posttrain/preference_data.h"
#include "hadal/train/loop.h"

namespace hadal {

struct RewardStepConfig {
  double center = 0;    // of (chosen + rejected)^2
  bool margins = true;  // as the pairs say
  Products products = Products::kF32;
  Recompute recompute = Recompute::kNone;
};

// The weights of reward_config(model): its layers, and a score drawn from a normal distribution of deviation
// 1/(D + 1).
ModelWeights reward_weights(const ModelConfig& model, ModelWeights weights, uint64_t seed);

// Scores of sequences by the training pass, several in a row of the longest's length, differentiable, [X].
// Loads of the MoE layers: of real tokens.
Tensor reward_scores(const Transformer& model, std::span<const std::vector<int32_t>* const> sequences,
                     TrainingPass pass = {}, std::vector<ExpertLoad>* loads = nullptr);

// Forward and backward of some pairs of a step of `step_pairs`; the loss is their share of its mean. Both
// answers go through one pass, softmax and sigmoid are fp32 and double.
StepLoss reward_step(const Transformer& model, std::span<const Preference* const> pairs,
                     const RewardStepConfig& config, int64_t step_pairs);

// Row i is pair i in the order of its epoch, shuffled by seed and epoch. held_out may be empty. Measured are
// loss (without margins) and accuracy, by inference's pass.
Objective reward_objective(std::shared_ptr<const std::vector<Preference>> pairs,
                           std::shared_ptr<const std::vector<Preference>> held_out,
                           const RewardStepConfig& config, uint64_t seed);

}  // namespace hadal
