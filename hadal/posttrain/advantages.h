// From rewards to advantages: how much better each completion of a prompt is than its fellows. Torch-free.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace hadal {

enum class AdvantageKind {
  kGroup,  // (r - mean) / (std + eps), of the group; unbiased std (DeepSeekMath)
  kNone,   // r - mean of the group (Dr. GRPO)
  kBatch,  // (r - mean of the group) / (std of all rewards + eps)
  kRloo,   // r - mean of the others of the group
};

// Rewards of groups of `group_size` completions, one after the other. NaN: could not be scored; it counts in
// no mean or std and gets 0. Groups of equal rewards get exactly 0, by their extremes: a computed std of
// equal numbers may differ from 0.
std::vector<double> advantages(std::span<const double> rewards, int64_t group_size, AdvantageKind kind,
                               double eps = 1e-4);

// Sum of weight * part over the parts that are not NaN; NaN if all are.
double combine_rewards(std::span<const double> parts, std::span<const double> weights);

// What the groups were like.
struct GroupCounts {
  int64_t groups = 0;
  int64_t equal = 0;       // no difference within: nothing to learn from
  int64_t unscorable = 0;  // completions
};
GroupCounts count_groups(std::span<const double> rewards, int64_t group_size);

// Whether a group's rewards differ at all.
bool group_differs(std::span<const double> rewards);

}  // namespace hadal
