#include "hadal/planner/stage_split.h"

#include <algorithm>
#include <limits>

namespace hadal {
namespace {

double weight_flops(const ModelConfig& config, const WeightSpec& spec) {
  const auto values = static_cast<double>(spec.num_values());
  switch (spec.role) {
    case WeightRole::kMatrix:
    case WeightRole::kRouter:
    case WeightRole::kIndexWeights:
    case WeightRole::kMtpProject:
      return 2 * (spec.stacked()
                      ? values * static_cast<double>(config.moe.top_k) / static_cast<double>(spec.shape[0])
                      : values);
    default:  // the head, or the embedding it is tied to, is no matter of layers
      return 0;
  }
}

constexpr double kNever = std::numeric_limits<double>::infinity();

// Of the layers before `layer` on the first `stage` stages: what it costs and how many the last of them has.
struct Choice {
  double cost = kNever;
  int64_t layers = 0;
};

// Numbers of layers of each stage that make the cost, joined over the stages, least. flops(stage, first,
// last).
std::vector<int64_t> best_sizes(int64_t layers, int64_t stages, auto&& flops, auto&& join) {
  const auto at = [&](int64_t stage, int64_t layer) {
    return static_cast<size_t>(stage * (layers + 1) + layer);
  };
  std::vector<Choice> best(at(stages + 1, 0));
  best[at(0, 0)].cost = 0;
  for (int64_t s = 0; s < stages; ++s)
    for (int64_t last = 0; last <= layers; ++last)
      for (int64_t first = 0; first <= last; ++first) {
        const double cost = join(best[at(s, first)].cost, flops(s, first, last));
        Choice& here = best[at(s + 1, last)];
        if (cost < here.cost) here = {cost, last - first};
      }
  std::vector<int64_t> sizes(static_cast<size_t>(stages));
  for (int64_t s = stages, left = layers; s > 0; --s) {
    sizes[static_cast<size_t>(s - 1)] = best[at(s, left)].layers;
    left -= best[at(s, left)].layers;
  }
  return sizes;
}

}  // namespace

double stage_flops(const ModelConfig& config, const Stage& stage, int64_t length) {
  double flops = 0;
  for (const WeightSpec& spec : weight_specs(config))
    if (holds(config, stage, spec)) flops += weight_flops(config, spec);
  int64_t attentions = stage.last_layer - stage.first_layer;
  if (stage.has_head) {
    attentions += config.mtp_depth;
    flops += 2.0 * static_cast<double>((1 + config.mtp_depth) * config.vocab_size * config.width);
  }
  const MlaConfig& mla = config.mla;
  return flops +
         static_cast<double>(attentions * mla.num_heads * (mla.key_dim() + mla.value_dim) * (length + 1));
}

std::vector<Stage> balanced_stages(const ModelConfig& config, int64_t stages, int64_t length) {
  const int64_t L = config.num_layers;
  std::vector<double> before{0};  // of all main layers up to one
  for (int64_t layer = 0; layer < L; ++layer)
    before.push_back(before.back() +
                     stage_flops(config, {.first_layer = layer, .last_layer = layer + 1}, length));
  const double end = stage_flops(config, {.first_layer = L, .last_layer = L, .has_head = true}, length);
  const auto flops = [&](int64_t stage, int64_t first, int64_t last) {
    return before[static_cast<size_t>(last)] - before[static_cast<size_t>(first)] +
           (stage == stages - 1 ? end : 0.0);
  };
  const std::vector<int64_t> quick =
      best_sizes(L, stages, flops, [](double a, double b) { return std::max(a, b); });
  double slowest = 0;
  int64_t first = 0;
  for (int64_t s = 0; s < stages; ++s) {
    slowest = std::max(slowest, flops(s, first, first + quick[static_cast<size_t>(s)]));
    first += quick[static_cast<size_t>(s)];
  }
  return stages_of_sizes(best_sizes(L, stages, flops, [slowest](double a, double b) {
    return b > slowest * (1 + 1e-9) ? kNever : a + b * b;
  }));
}

}  // namespace hadal
