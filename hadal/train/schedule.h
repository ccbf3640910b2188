// What changes over a run: learning rate, batch size, MTP weight, step of the balance bias. Pure functions of
// the step and of the share of the run's tokens, so a resumed run sees the same values (training spec 4).
#pragma once
#include <cstdint>

#include "hadal/config/train_config.h"

namespace hadal {

// Learning rate of 0-based `step` of `steps`; `done`: share of the planned tokens that are trained on once
// the step is over, (0, 1]. Warm-up rises linearly from 0 by steps, at most a quarter of the run, then by
// kind:
//   v3        peak until 67.6 %, cosine to floor * peak at 96.6 %, flat, from 98.9 % a third (0.0332 / 0.1)
//   v2        x 0.316 at 60 %, again at 90 %
//   cosine    to floor * peak at the end
//   wsd       peak, then linear to floor * peak in the last decay_share
//   constant
double learning_rate(const ScheduleSection& schedule, double peak, int64_t step, int64_t steps, double done);

// Sequences of the step that starts after `tokens` trained tokens: grows linearly in them, floored to a
// multiple of the quantum.
int64_t batch_size(const BatchSection& batch, int64_t tokens);

// Tokens of the first `steps` steps.
int64_t planned_tokens(const BatchSection& batch, int64_t steps);

// Lambda and gamma at a share of the run.
double mtp_weight(const LossSection& loss, double done);
double bias_step(const LossSection& loss, double done);

}  // namespace hadal
