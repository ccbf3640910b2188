#include "hadal/planner/stage_split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "hadal/config/presets.h"
#include "hadal/planner.h"

namespace hadal {
namespace {

std::vector<int64_t> sizes(const std::vector<Stage>& stages) {
  std::vector<int64_t> out;
  for (const Stage& stage : stages) out.push_back(stage.last_layer - stage.first_layer);
  return out;
}

double slowest(const ModelConfig& config, const std::vector<Stage>& stages, int64_t length) {
  double most = 0;
  for (const Stage& stage : stages) most = std::max(most, stage_flops(config, stage, length));
  return most;
}

TEST(StageSplit, StagesTogetherCostWhatTheModelDoes) {
  ModelConfig config = preset("v3");
  config.mtp_depth = 0;
  double sum = 0;
  for (const Stage& stage : balanced_stages(config, 16, 4096)) sum += stage_flops(config, stage, 4096);
  EXPECT_NEAR(sum / static_cast<double>(prefill_flops(config, 4096).total()), 1, 1e-12);
}

TEST(StageSplit, AnMtpModuleIsALayerAJoinAndTheHeadAgain) {
  const ModelConfig with = preset("v3");
  ModelConfig without = with;
  without.mtp_depth = 0;
  const Stage end{.first_layer = 61, .last_layer = 61, .has_head = true};
  const Stage layer{.first_layer = 60, .last_layer = 61};
  const double D = 7168, W = 129280;
  EXPECT_NEAR(stage_flops(with, end, 4096) - stage_flops(without, end, 4096),
              stage_flops(with, layer, 4096) + 2 * 2 * D * D + 2 * W * D, 1);
}

TEST(StageSplit, NoOtherSplitHasAFasterSlowestStage) {
  ModelConfig config = preset("v3");
  config.num_layers = 9, config.vocab_size = 20000;
  const double best = slowest(config, balanced_stages(config, 3, 4096), 4096);
  double least = INFINITY;
  for (int64_t a = 0; a <= 9; ++a)
    for (int64_t b = 0; a + b <= 9; ++b)
      least = std::min(least, slowest(config, stages_of_sizes({a, b, 9 - a - b}), 4096));
  EXPECT_EQ(best, least);
}

TEST(StageSplit, EqualLayersAreSharedOutEvenly) {
  ModelConfig config = preset("v3");
  config.num_layers = 7, config.mtp_depth = 0, config.vocab_size = 16, config.moe.first_layer = 0;
  const std::vector<int64_t> got = sizes(balanced_stages(config, 3, 4096));
  EXPECT_EQ(*std::max_element(got.begin(), got.end()), 3);
  EXPECT_EQ(*std::min_element(got.begin(), got.end()), 2);
}

TEST(StageSplit, MoreStagesThanLayersLeaveSomeEmpty) {
  const std::vector<int64_t> got = sizes(balanced_stages(preset("tiny"), 8, 32));
  EXPECT_EQ(got.size(), 8u);
  EXPECT_EQ(*std::max_element(got.begin(), got.end()), 1);
}

}  // namespace
}  // namespace hadal
