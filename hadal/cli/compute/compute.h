// Commands that compute, in hadal-compute. Each returns the exit code and throws hadal::Error.
#pragma once
#include "hadal/cli/options.h"

namespace hadal {

int run_logits(const LogitsOptions& options);
int run_train(const TrainOptions& options);
int run_fine_tuning(const FineTuningOptions& options);
int run_grpo(const GrpoOptions& options);

}  // namespace hadal
