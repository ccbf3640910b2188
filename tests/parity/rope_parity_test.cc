// Frequencies and angles of the published configurations.
#include <gtest/gtest.h>

#include "hadal/ops/rope.h"
#include "tests/support/golden_tensors.h"

namespace hadal {
namespace {

MlaConfig rope_config(const Json& kind) {
  MlaConfig mla;
  mla.rope_dim = kind.at("qk_rope_head_dim").get<int64_t>();
  mla.nope_dim = kind.at("qk_nope_head_dim").get<int64_t>();
  mla.rope_theta = kind.at("rope_theta").get<double>();
  const Json& scaling = kind.at("rope_scaling");
  if (scaling.is_null()) return mla;
  mla.yarn = YarnConfig{.factor = scaling.at("factor").get<double>(),
                        .original_positions = scaling.at("original_max_position_embeddings").get<int64_t>(),
                        .beta_fast = scaling.at("beta_fast").get<double>(),
                        .beta_slow = scaling.at("beta_slow").get<double>(),
                        .mscale = scaling.at("mscale").get<double>(),
                        .mscale_all_dim = scaling.at("mscale_all_dim").get<double>()};
  return mla;
}

class Rope : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Rope, FrequenciesAnglesAndScalesAreTheReferences) {
  const GoldenCase golden(GetParam());
  const Tensor position = golden.tensor("positions");
  const Tensor near = position.le(4096).unsqueeze(1);
  const double atol_near = golden.tolerance("cos_sin_up_to_4096").atol,
               atol_far = golden.tolerance("cos_sin_beyond").atol;
  for (const auto& [name, kind] : golden.json().at("kinds").items()) {
    const MlaConfig mla = rope_config(kind);
    const Tensor want = golden.tensor(name + ".inv_freq");
    const Tensor relative = (from_floats(rope_frequencies(mla)) - want).abs() / want;
    EXPECT_LE(relative.max().item<double>(), golden.tolerance("inv_freq").rtol) << name;
    EXPECT_NEAR(rope_multiplier(mla), kind.at("cos_sin_multiplier").get<double>(), 1e-12) << name;
    ModelConfig config;
    config.mla = mla;
    EXPECT_NEAR(config.softmax_scale(), kind.at("softmax_scale").get<double>(), 1e-12) << name;

    const RopeAngles angles = rope_angles(mla, position);
    for (const auto& [got, part] : {std::pair{angles.cos_SX, ".cos"}, {angles.sin_SX, ".sin"}}) {
      const Tensor off = (got - golden.tensor(name + part)).abs();
      EXPECT_LE((off * near).max().item<double>(), atol_near) << name << part;
      EXPECT_LE(off.max().item<double>(), atol_far) << name << part;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Rope, testing::ValuesIn(golden_cases("positions", false)), case_name);

TEST(Rope, PairsTurnByPositionTimesFrequency) {
  const MlaConfig mla{.rope_dim = 4, .rope_theta = 100};  // frequencies 1 and 0.1
  const Tensor x = from_floats(std::vector<float>{1, 0, 0, 1}).view({1, 1, 4});
  const std::vector<float> y = to_floats(rope(x, rope_angles(mla, from_ints(std::vector<int64_t>{3}))));
  const double want[] = {std::cos(3.0), std::sin(3.0), -std::sin(0.3), std::cos(0.3)};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(y[static_cast<size_t>(i)], want[i], 1e-6) << i;
}

}  // namespace
}  // namespace hadal
