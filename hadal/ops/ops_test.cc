#include <gtest/gtest.h>

#include <cmath>

#include "hadal/ops/cross_entropy.h"
#include "hadal/ops/rms_norm.h"
#include "hadal/ops/rope.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

TEST(RmsNorm, DividesByTheRootMeanSquareAndMultipliesByTheGain) {
  const Tensor x = from_floats(std::vector<float>{3, 4}), gain = from_floats(std::vector<float>{1, 10});
  const std::vector<float> y = to_floats(rms_norm(x, gain, 0));
  EXPECT_NEAR(y[0], 3 / std::sqrt(12.5), 1e-6);
  EXPECT_NEAR(y[1], 40 / std::sqrt(12.5), 1e-5);
}

TEST(RmsNorm, TinyInputsAreBoundedByEpsilon) {
  const std::vector<float> y = to_floats(rms_norm(full({4}, 1e-20), full({4}, 1.0), 1e-6));
  EXPECT_NEAR(y[0], 1e-17, 1e-19);
}

TEST(RmsNorm, Bf16IsNormalisedInFp32AndCastBeforeTheGain) {
  const Tensor x = from_floats(std::vector<float>{1.0078125f, 100, -3}).to(at::kBFloat16);
  const Tensor gain = from_floats(std::vector<float>{1.0078125f, 3, 1}).to(at::kBFloat16);
  const Tensor wide = x.to(at::kFloat);
  const Tensor normed = (wide * (wide.pow(2).mean() + 1e-6).rsqrt()).to(at::kBFloat16);
  EXPECT_TRUE(rms_norm(x, gain, 1e-6).equal(normed * gain));
}

// Architecture spec 5.2: pairs 0-10 untouched, 23-31 divided by the factor, a blend between.
TEST(Rope, YarnLeavesFastPairsAndSlowsTheSlowOnes) {
  MlaConfig mla{.nope_dim = 128, .rope_dim = 64};
  const std::vector<float> plain = rope_frequencies(mla);
  mla.yarn = YarnConfig{};
  const std::vector<float> yarn = rope_frequencies(mla);
  for (size_t i = 0; i <= 10; ++i) EXPECT_EQ(yarn[i], plain[i]) << i;
  for (size_t i = 23; i < 32; ++i) EXPECT_FLOAT_EQ(yarn[i], plain[i] / 40) << i;
  EXPECT_NEAR(yarn[16], 0.00550000044, 1e-9);
  EXPECT_NEAR(yarn[22], 0.00017782794, 1e-11);
}

TEST(Rope, TurningTwiceIsTurningByTheSum) {
  const MlaConfig mla{.rope_dim = 8};
  const Tensor x = (arange(0, 8).to(at::kFloat) + 1).view({1, 1, 8});
  const auto by = [&](const Tensor& v, int64_t position) {
    return rope(v, rope_angles(mla, arange(position, position + 1)));
  };
  EXPECT_LE((by(by(x, 3), 4) - by(x, 7)).abs().max().item<double>(), 5e-6);
}

TEST(CrossEntropy, MatchesTheFormulaAndSkipsNegativeTargets) {
  const Tensor logits = from_floats(std::vector<float>{1, 2, 3, 0, 0, 0}).view({2, 3}).requires_grad_(true);
  const Tensor loss = cross_entropy(logits, from_ints(std::vector<int64_t>{2, -100}));
  EXPECT_NEAR(loss[0].item<double>(), std::log(1 + std::exp(-1.0) + std::exp(-2.0)), 1e-6);
  EXPECT_EQ(loss[1].item<double>(), 0.0);
  loss.sum().backward();
  EXPECT_EQ(logits.grad()[1].abs().sum().item<double>(), 0.0);
}

}  // namespace
}  // namespace hadal
