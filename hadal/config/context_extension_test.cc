#include "hadal/config/context_extension.h"

#include <gtest/gtest.h>

#include "hadal/config/presets.h"
#include "hadal/error.h"

namespace hadal {
namespace {

TEST(ExtendedContext, Of40TimesThePretrainedModelIsThePublishedV3) {
  ModelConfig short_v3 = preset("v3");
  short_v3.mla.yarn.reset(), short_v3.max_positions = 4096;
  const ModelConfig v3 = extended(short_v3, 163840);
  EXPECT_EQ(v3.mla.yarn, preset("v3").mla.yarn);
  EXPECT_EQ(v3.max_positions, preset("v3").max_positions);
  // In two phases, V3's with one factor; the second starts from the first positions again.
  const ModelConfig first = extended(short_v3, 32768, 40), second = extended(first, 163840, 40);
  EXPECT_EQ(first.mla.yarn, v3.mla.yarn);
  EXPECT_EQ(second.mla.yarn, v3.mla.yarn);
  EXPECT_EQ(extended(extended(short_v3, 32768), 163840).mla.yarn, v3.mla.yarn);
}

TEST(ExtendedContext, ThatIsNotLongerOrTooLongForItsFactorIsRefused) {
  ModelConfig model = preset("v3");
  model.mla.yarn.reset(), model.max_positions = 4096;
  for (const auto& [positions, factor] : {std::pair<int64_t, double>{4096, 0}, {2048, 0}, {32768, 4}}) {
    try {
      (void)extended(model, positions, factor);
      FAIL() << positions;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("trained on 4096 positions, need a longer context"),
                std::string::npos);
    }
  }
}

}  // namespace
}  // namespace hadal
