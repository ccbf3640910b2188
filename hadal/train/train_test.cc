#include <gtest/gtest.h>

#include <cmath>

#include "hadal/tensor/make.h"
#include "hadal/train/adamw.h"
#include "tests/support/small_model.h"

namespace hadal {
namespace {

TEST(BalanceBias, MovesTowardsTheUnderusedAndEqualLoadsLeaveIt) {
  Transformer model(small_model(), random_weights(small_model(), 1));
  const std::vector<int64_t> counts{4, 0, 2, 2, 2, 2, 2, 2};
  update_balance_bias(model, {{1, from_ints(counts)}}, 0.5);
  EXPECT_EQ(to_floats(model.weights().layers[1].moe.balance_bias_E),
            (std::vector<float>{-0.5, 0.5, 0, 0, 0, 0, 0, 0}));
  EXPECT_DOUBLE_EQ(max_violation({{1, from_ints(counts)}}), 1.0);
}

TEST(BalanceLoss, UniformAffinitiesGiveExactlyOne) {
  const MoeConfig moe = small_model().moe;
  EXPECT_NEAR(sequence_balance_loss(moe, full({12, 8}, 0.3), 3).item<double>(), 3.0, 1e-6);
}

TEST(AdamW, NonFiniteGradientChangesNothingAndIsReported) {
  Transformer model(small_model(), random_weights(small_model(), 1));
  AdamW optimizer(model, {});
  const Tensor before = model.weights().head_WD.detach().clone();
  (model.weights().head_WD.sum() * INFINITY).backward();
  EXPECT_FALSE(std::isfinite(optimizer.step(1e-3)));
  EXPECT_TRUE(model.weights().head_WD.equal(before));
  EXPECT_EQ(optimizer.num_steps(), 0);
  EXPECT_FALSE(model.weights().head_WD.grad().defined());
}

TEST(AdamW, NormsDoNotDecayAndUnusedMatricesDo) {
  Transformer model(small_model(), random_weights(small_model(), 1));
  AdamW optimizer(model, {.weight_decay = 0.5});
  const Tensor head = model.weights().head_WD.detach().clone(),
               norm = model.weights().final_norm.detach().clone();
  optimizer.step(0.1);  // no gradient anywhere
  EXPECT_TRUE(model.weights().head_WD.detach().allclose(head * 0.95));
  EXPECT_TRUE(model.weights().final_norm.equal(norm));
}

}  // namespace
}  // namespace hadal
