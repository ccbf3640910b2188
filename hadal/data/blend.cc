#include "hadal/data/blend.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hadal/base/check.h"

namespace hadal {
namespace {

constexpr int64_t kPeriod = 65536;

// Whole numbers that sum to kPeriod in proportion to the weights, the largest remainders rounded up; then
// divided by what they have in common.
std::vector<int64_t> quantise(const std::vector<double>& weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  HADAL_CHECK(sum > 0 && std::isfinite(sum) && weights.size() <= static_cast<size_t>(kPeriod));
  std::vector<int64_t> counts;
  std::vector<std::pair<double, size_t>> remainders;
  int64_t left = kPeriod;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double exact = weights[i] / sum * kPeriod;
    counts.push_back(std::max<int64_t>(static_cast<int64_t>(exact), weights[i] > 0));
    if (weights[i] > 0) remainders.push_back({static_cast<double>(counts.back()) - exact, i});
    left -= counts.back();
  }
  std::sort(remainders.begin(), remainders.end());
  for (size_t i = 0; left > 0; i = (i + 1) % remainders.size(), --left) ++counts[remainders[i].second];
  for (; left < 0; ++left) --*std::max_element(counts.begin(), counts.end());
  int64_t common = 0;
  for (const int64_t count : counts) common = std::gcd(common, count);
  for (int64_t& count : counts) count /= common;
  return counts;
}

}  // namespace

Blend::Blend(const std::vector<double>& weights) : counts_(quantise(weights)) {
  const int64_t period = std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
  std::vector<int64_t> lag(counts_.size());  // times the period
  std::vector<int32_t> taken(counts_.size());
  for (int64_t i = 0; i < period; ++i) {
    for (size_t s = 0; s < lag.size(); ++s) lag[s] += counts_[s];
    const auto next = static_cast<size_t>(std::max_element(lag.begin(), lag.end()) - lag.begin());
    lag[next] -= period;
    source_.push_back(static_cast<uint16_t>(next));
    nth_.push_back(taken[next]++);
  }
}

Blend::Choice Blend::operator()(int64_t row) const {
  const int64_t period = static_cast<int64_t>(source_.size());
  const size_t slot = static_cast<size_t>(row % period);
  return {source_[slot], row / period * counts_[source_[slot]] + nth_[slot]};
}

int64_t Blend::rows_before(int64_t source, int64_t row) const {
  const int64_t period = static_cast<int64_t>(source_.size());
  int64_t rows = row / period * counts_[static_cast<size_t>(source)];
  for (int64_t slot = 0; slot < row % period; ++slot) rows += source_[static_cast<size_t>(slot)] == source;
  return rows;
}

double Blend::share(int64_t source) const {
  return static_cast<double>(counts_[static_cast<size_t>(source)]) / static_cast<double>(source_.size());
}

}  // namespace hadal
