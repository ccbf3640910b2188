#include "hadal/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace hadal {
namespace {

double cosine(double from, double to, double t) {
  return to + (from - to) * 0.5 * (1 + std::cos(std::numbers::pi * std::clamp(t, 0.0, 1.0)));
}

// Share of the peak.
double v3_share(double floor, double done) {
  constexpr double kPlateauEnd = 0.676, kCosineEnd = 0.966, kTail = 0.989, kTailShare = 0.332;
  if (done <= kPlateauEnd) return 1;
  if (done > kTail) return floor * kTailShare;
  return cosine(1, floor, (done - kPlateauEnd) / (kCosineEnd - kPlateauEnd));
}

}  // namespace

double learning_rate(const ScheduleSection& s, double peak, int64_t step, int64_t steps, double done) {
  const int64_t warmup = std::min(s.warmup_steps, std::max<int64_t>(1, steps / 4));
  if (step + 1 < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (s.kind == "v3") return peak * v3_share(s.floor, done);
  if (s.kind == "v2") return peak * (done <= 0.6 ? 1 : done <= 0.9 ? 0.316 : 0.316 * 0.316);
  if (s.kind == "cosine") {
    const double start = static_cast<double>(warmup) / static_cast<double>(std::max<int64_t>(1, steps));
    return peak * cosine(1, s.floor, start < 1 ? (done - start) / (1 - start) : 1);
  }
  if (s.kind == "wsd" && s.decay_share > 0) {
    const double t = std::clamp((done - (1 - s.decay_share)) / s.decay_share, 0.0, 1.0);
    return peak * (1 + (s.floor - 1) * t);
  }
  return peak;
}

int64_t batch_size(const BatchSection& b, int64_t tokens) {
  if (b.start == 0 || tokens >= b.ramp_tokens) return b.sequences;
  const double share = static_cast<double>(tokens) / static_cast<double>(b.ramp_tokens);
  const auto size = b.start + static_cast<int64_t>(share * static_cast<double>(b.sequences - b.start));
  return std::max(b.quantum, size / b.quantum * b.quantum);
}

int64_t planned_tokens(const BatchSection& b, int64_t steps) {
  int64_t tokens = 0, step = 0;
  for (; step < steps && b.start > 0 && tokens < b.ramp_tokens; ++step)
    tokens += batch_size(b, tokens) * b.length;
  return tokens + (steps - step) * b.sequences * b.length;
}

double mtp_weight(const LossSection& loss, double done) {
  return done <= loss.mtp_switch_at ? loss.mtp_weight : loss.mtp_weight_late;
}

double bias_step(const LossSection& loss, double done) {
  return done <= loss.bias_freeze_at ? loss.bias_step : 0;
}

}  // namespace hadal
