#include "hadal/engine/speculation_gauge.h"

#include <algorithm>
#include <bit>

#include "hadal/base/check.h"

namespace hadal {

SpeculationGauge::SpeculationGauge(const SpeculationGaugeOptions& options) : options_(options) {
  HADAL_CHECK(options.probe_steps >= 1 && options.min_interval >= 1 && options.margin >= 0);
}

int64_t SpeculationGauge::class_of(int64_t sequences) {
  if (sequences <= 8) return sequences;
  const int octave = std::bit_width(static_cast<uint64_t>(sequences)) - 1;  // >= 3
  return 4 * octave + (sequences >> (octave - 2)) % 4;  // 9: 12, 10: 13, .. no clash below 12
}

void SpeculationGauge::Times::add(double seconds) {
  if (last.size() < kWindow) {
    last.push_back(seconds);
  } else {
    last[next] = seconds;
    next = (next + 1) % kWindow;
  }
}

double SpeculationGauge::Times::median() const {
  if (last.empty()) return 0;
  std::vector<double> sorted = last;
  const auto middle = sorted.begin() + static_cast<int64_t>(sorted.size()) / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

bool SpeculationGauge::speculate(int64_t sequences) const {
  const auto c = classes_.find(class_of(sequences));
  if (c == classes_.end()) return options_.start;
  return c->second.probe_left > 0 ? !c->second.on : c->second.on;
}

double SpeculationGauge::cost(int64_t sequences) const {
  const auto c = classes_.find(class_of(sequences));
  if (c == classes_.end() || c->second.without.last.empty()) return 0;
  return c->second.with.median() / c->second.without.median();
}

void SpeculationGauge::learn_gain(const DecodeTiming& step) {
  // In sequences and steps: a few hundred tokens of text. What was seen long ago counts less, so that a few
  // probes suffice to see that the text has changed, but enough that one lucky probe does not.
  constexpr double kMemory = 256, kOldest = 24;
  if (gain_samples_ > kOldest) gain_samples_ = std::max(kOldest, gain_samples_ * (1 - 1 / kMemory));
  if (step.drafted == 0) return;
  const double drafted = static_cast<double>(step.drafted);
  gain_samples_ = std::min(gain_samples_ + drafted, std::max(kMemory, drafted));
  gain_ += drafted / gain_samples_ * (1 + static_cast<double>(step.accepted) / drafted - gain_);
}

void SpeculationGauge::record(const DecodeTiming& step) {
  HADAL_CHECK(step.sequences >= 1 && step.drafted <= step.sequences && step.seconds >= 0);
  learn_gain(step);
  const bool with = step.drafted == step.sequences;
  if (!with && step.drafted > 0) return;
  const auto [entry, is_new] = classes_.try_emplace(class_of(step.sequences));
  Class& c = entry->second;
  if (is_new) {
    c.on = options_.start;
    c.interval = options_.min_interval;
    c.steps = c.interval - options_.probe_steps;  // the first probe comes early
  }
  (with ? c.with : c.without).add(step.seconds);
  decide(c);
}

void SpeculationGauge::decide(Class& c) {
  const bool probe_ends = c.probe_left == 1;
  if (c.probe_left > 0) {
    --c.probe_left;
  } else if (++c.steps >= c.interval) {
    c.probe_left = options_.probe_steps;
    c.steps = 0;
    ++probes_;
  }
  const double with = c.with.median(), without = c.without.median();
  if (with == 0 || without == 0 || c.probe_left > 0) return;
  const double speedup = gain_ * without / with;
  const bool other_is_faster = c.on ? speedup * (1 + options_.margin) < 1 : speedup > 1 + options_.margin;
  if (other_is_faster) {
    c.on = !c.on;
    c.interval = options_.min_interval;
    c.steps = 0;
    ++switches_;
  } else if (probe_ends) {
    c.interval = std::min(2 * c.interval, options_.max_interval);
  }
}

}  // namespace hadal
