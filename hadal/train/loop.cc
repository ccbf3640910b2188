#include "hadal/train/loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/ops/cross_entropy.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void check_config(const TrainLoopConfig& c) {
  const auto need = [](bool good, const std::string& what) {
    if (!good) throw Error(ErrorCode::kInvalidArgument, "[train.loop] " + what);
  };
  need(c.batch > 0, cat("batch is ", c.batch, ", need at least 1."));
  need(c.length > 0, cat("length is ", c.length, ", need at least 1."));
  need(c.steps >= 0, cat("steps is ", c.steps, ", need 0 (as many as fit in the time) or more."));
  need(c.minutes > 0 || c.steps > 0,
       "neither steps nor minutes is set: the run would never end. Give one of them.");
  need(c.peak_rate > 0, cat("learning rate is ", c.peak_rate, ", need more than 0."));
}

}  // namespace

double learning_rate(const TrainLoopConfig& config, int64_t step, int64_t steps) {
  constexpr double kPlateauEnd = 0.676, kCosineEnd = 0.966, kFloor = 0.1;
  const auto warmup =
      static_cast<double>(std::clamp<int64_t>(config.warmup, 1, std::max<int64_t>(1, steps / 4)));
  const double done = static_cast<double>(step + 1) / static_cast<double>(steps);
  if (static_cast<double>(step + 1) < warmup)
    return config.peak_rate * static_cast<double>(step + 1) / warmup;
  if (done <= kPlateauEnd) return config.peak_rate;
  const double t = std::min(1.0, (done - kPlateauEnd) / (kCosineEnd - kPlateauEnd));
  return config.peak_rate * (kFloor + (1 - kFloor) * 0.5 * (1 + std::cos(std::numbers::pi * t)));
}

HeldOut evaluate(const Transformer& model, std::span<const int32_t> ids, int64_t length, int64_t most) {
  NoGrad no_grad;
  const int64_t J = std::min<int64_t>(1, model.config().mtp_depth), X = length + 1 + J;
  const Tensor windows_NX = spread_windows(ids, most, X);
  constexpr int64_t kRows = 8;
  HeldOut sum;
  double targets = 0, guesses = 0;
  for (int64_t at = 0; at < windows_NX.size(0); at += kRows) {
    const Tensor x = windows_NX.narrow(0, at, std::min(kRows, windows_NX.size(0) - at));
    const Tensor hidden = model.forward(x.narrow(1, 0, length));
    const Tensor logits = model.logits(hidden);
    sum.loss += cross_entropy(logits.flatten(0, 1), x.narrow(1, 1, length).flatten()).sum().item<double>();
    targets += static_cast<double>(x.size(0) * length);
    if (J == 0) continue;
    // The module at i and the main model at i+1 both predict token i+2.
    const Tensor guess =
        model.logits(model.mtp(0, hidden, x.narrow(1, 1, length))).argmax(-1).narrow(1, 0, length - 1);
    sum.mtp_acceptance += guess.eq(logits.argmax(-1).narrow(1, 1, length - 1)).sum().item<double>();
    guesses += static_cast<double>(guess.numel());
  }
  return {sum.loss / targets, guesses > 0 ? sum.mtp_acceptance / guesses : 0.0};
}

TrainProgress train(Transformer& model, const TokenSplit& tokens, const TrainLoopConfig& config,
                    const std::function<void(const TrainProgress&)>& report, const std::atomic<bool>* stop) {
  check_config(config);
  constexpr int64_t kProbeSteps = 8;  // after which a run bounded by time fixes its number of steps
  const int64_t X = config.length + 1 + model.config().mtp_depth;
  const double budget = config.minutes > 0 ? config.minutes * 60 : INFINITY;
  AdamW optimizer(model, config.adamw);
  TrainProgress p;
  p.steps = config.steps;
  const auto start = Clock::now();
  auto settled = start;
  for (; p.steps == 0 || p.step < p.steps;) {
    const BatchLoss loss =
        batch_loss(model, random_windows(tokens.train, config.batch, X, config.seed, p.step), config.loss);
    loss.total.backward();
    // Until the length is known the run is in its warm-up: any large number gives the same start.
    const int64_t planned = p.steps > 0 ? p.steps : 1000;
    p.rate = learning_rate(config, p.step, planned);
    p.grad_norm = optimizer.step(p.rate);
    if (!std::isfinite(p.grad_norm)) ++p.skipped;
    update_balance_bias(model, loss.loads, config.bias_step);
    p.loss = loss.main.item<double>();
    p.mtp_loss = loss.mtp.empty() ? 0 : loss.mtp[0].item<double>();
    p.max_violation = max_violation(loss.loads);
    ++p.step;
    p.seconds = seconds_since(start);
    p.tokens_per_second = static_cast<double>(p.step * config.batch * config.length) / p.seconds;
    if (p.step == 2) settled = Clock::now();  // the first steps warm caches and are slower
    if (p.steps == 0 && p.step == kProbeSteps) {
      const double step_seconds = seconds_since(settled) / static_cast<double>(kProbeSteps - 2);
      p.steps = std::max<int64_t>(p.step + 1, static_cast<int64_t>(0.98 * budget / step_seconds));
    }
    report(p);
    if (p.seconds >= budget || (stop && stop->load())) break;
  }
  return p;
}

}  // namespace hadal
