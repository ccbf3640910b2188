#include "hadal/config/stage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "hadal/config/presets.h"
#include "hadal/error.h"

namespace hadal {
namespace {

TEST(Stage, EveryWeightIsHeldByOneOfThem) {
  const ModelConfig config = preset("tiny");
  ASSERT_GT(config.mtp_depth, 0);
  for (const char* layers : {"4", "1,3", "0,2,2,0"}) {
    const int64_t n = 1 + std::count(layers, layers + std::strlen(layers), ',');
    const std::vector<Stage> stages = listed_stages(config, n, layers);
    for (const WeightSpec& spec : weight_specs(config)) {
      int64_t holders = 0;
      for (const Stage& stage : stages) holders += holds(config, stage, spec);
      EXPECT_EQ(holders, 1) << spec.name << " of " << layers;
    }
  }
}

TEST(Stage, EmbeddingIsOnTheFirstHeadNormAndMtpOnTheLast) {
  const ModelConfig config = preset("tiny");
  const std::vector<Stage> stages = listed_stages(config, 2, "3,1");
  std::string first, last;
  for (const WeightSpec& spec : weight_specs(config)) {
    if (spec.layer >= 0 && spec.layer < config.num_layers) continue;
    std::string& held = holds(config, stages[0], spec) ? first : last;
    const std::string name = spec.layer < 0 ? spec.name : "mtp";
    if (held.find(name) == std::string::npos) held += name + " ";
  }
  EXPECT_EQ(first, "embedding ");
  EXPECT_EQ(last, "mtp final_norm head ");
  EXPECT_EQ(listed_stages(config, 1, "4"), std::vector<Stage>{whole_model(config)});
}

TEST(Stage, AListThatDoesNotFitIsRefusedWithBothNumbers) {
  const ModelConfig config = preset("tiny");
  for (const auto& [stages, layers, need] : {std::tuple{2, "2,3", "2 stages of 5 layers, need 2 stages of 4"},
                                             {3, "2,2", "2 stages of 4 layers, need 3 stages of 4"}}) {
    try {
      listed_stages(config, stages, layers);
      ADD_FAILURE() << layers;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(need), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace hadal
