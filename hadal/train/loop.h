// A plain training loop: random windows, AdamW, auxiliary-loss-free balance, MTP, held-out loss.
#pragma once
#include <atomic>
#include <functional>
#include <vector>

#include "hadal/data/token_windows.h"
#include "hadal/train/adamw.h"
#include "hadal/train/loss.h"

namespace hadal {

struct TrainLoopConfig {
  int64_t batch = 16;       // sequences a step
  int64_t length = 128;     // tokens a sequence
  int64_t steps = 0;        // 0: as many as fit in `minutes`
  double minutes = 0;       // wall time the loop may take; 0: no limit. One of steps, minutes is needed
  double peak_rate = 3e-3;  // learning rate after warm-up
  int64_t warmup = 20;      // steps of linear warm-up
  double bias_step = 3e-3;  // gamma of the balance bias; short runs need more than V3's 1e-3
  uint64_t seed = 1;
  LossConfig loss;
  AdamWConfig adamw;
};

// Warm-up from 0, plateau to 67.6 % of the run, cosine to a tenth until 96.6 %, then flat: V3's schedule
// scaled to any length (training spec 4.1). step is 0-based.
double learning_rate(const TrainLoopConfig& config, int64_t step, int64_t steps);

struct HeldOut {
  double loss = 0;            // mean cross entropy of the main model, nats a token
  double mtp_acceptance = 0;  // share of positions where the first MTP module's guess is the main model's
};
// On at most `most` windows spread over the ids. No gradients, no side effects.
HeldOut evaluate(const Transformer& model, std::span<const int32_t> ids, int64_t length, int64_t most);

struct TrainProgress {
  int64_t step = 0, steps = 0;  // done, planned
  double seconds = 0;
  double loss = 0, mtp_loss = 0;  // this step
  double rate = 0, grad_norm = 0;
  double max_violation = 0;
  double tokens_per_second = 0;  // over the whole run
  int64_t skipped = 0;           // steps with a non-finite gradient, left out
};

// Trains in place; `report` is called after every step. Ends after the planned steps, when time is up, or
// when *stop becomes true (after the current step). Returns the last progress.
TrainProgress train(Transformer& model, const TokenSplit& tokens, const TrainLoopConfig& config,
                    const std::function<void(const TrainProgress&)>& report,
                    const std::atomic<bool>* stop = nullptr);

}  // namespace hadal
