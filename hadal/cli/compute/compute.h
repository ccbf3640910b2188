// Commands that compute, in hadal-compute. Each returns the exit code and throws hadal::Error.
#pragma once
#include "hadal/cli/options.h"

namespace hadal {

int run_logits(const LogitsOptions& options);
int run_train(const TrainOptions& options);
int run_sft(const SftOptions& options);
int run_grpo(const GrpoOptions& options);
int run_reward_train(const RewardTrainOptions& options);

}  // namespace hadal
