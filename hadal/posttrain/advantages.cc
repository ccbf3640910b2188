#include "hadal/posttrain/advantages.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hadal/base/check.h"

namespace hadal {
namespace {

struct Moments {
  int64_t count = 0;
  double mean = 0, deviation = 0;  // unbiased; 0 below two
};

Moments moments(std::span<const double> rewards) {
  Moments m;
  double sum = 0, squares = 0;
  for (const double r : rewards)
    if (!std::isnan(r)) ++m.count, sum += r;
  if (m.count == 0) return m;
  m.mean = sum / static_cast<double>(m.count);
  for (const double r : rewards)
    if (!std::isnan(r)) squares += (r - m.mean) * (r - m.mean);
  if (m.count > 1) m.deviation = std::sqrt(squares / static_cast<double>(m.count - 1));
  return m;
}

}  // namespace

bool group_differs(std::span<const double> rewards) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double r : rewards)
    if (!std::isnan(r)) low = std::min(low, r), high = std::max(high, r);
  return high > low;
}

std::vector<double> advantages(std::span<const double> rewards, int64_t group_size, AdvantageKind kind,
                               double eps) {
  const auto G = static_cast<size_t>(group_size);
  HADAL_CHECK(G > 0 && rewards.size() % G == 0) << rewards.size() << " rewards in groups of " << G;
  std::vector<double> out(rewards.size(), 0);
  const double batch_deviation = moments(rewards).deviation;
  for (size_t at = 0; at < rewards.size(); at += G) {
    const auto group = rewards.subspan(at, G);
    if (!group_differs(group)) continue;
    const Moments m = moments(group);
    const auto n = static_cast<double>(m.count);
    const double scale = kind == AdvantageKind::kGroup   ? 1 / (m.deviation + eps)
                         : kind == AdvantageKind::kBatch ? 1 / (batch_deviation + eps)
                         : kind == AdvantageKind::kRloo  ? n / (n - 1)
                                                         : 1;
    for (size_t i = 0; i < G; ++i)
      if (!std::isnan(group[i])) out[at + i] = (group[i] - m.mean) * scale;
  }
  return out;
}

double combine_rewards(std::span<const double> parts, std::span<const double> weights) {
  HADAL_CHECK(parts.size() == weights.size()) << parts.size();
  double sum = 0;
  bool any = false;
  for (size_t i = 0; i < parts.size(); ++i)
    if (!std::isnan(parts[i])) any = true, sum += weights[i] * parts[i];
  return any ? sum : std::numeric_limits<double>::quiet_NaN();
}

GroupCounts count_groups(std::span<const double> rewards, int64_t group_size) {
  const auto G = static_cast<size_t>(group_size);
  GroupCounts out;
  for (size_t at = 0; at + G <= rewards.size(); at += G)
    ++out.groups, out.equal += !group_differs(rewards.subspan(at, G));
  for (const double r : rewards) out.unscorable += std::isnan(r);
  return out;
}

}  // namespace hadal
