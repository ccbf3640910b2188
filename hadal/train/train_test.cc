#include <gtest/gtest.h>

#include <cmath>

#include "hadal/tensor/make.h"
#include "hadal/train/adamw.h"

namespace hadal {
namespace {

ModelConfig small_config() {
  ModelConfig c;
  c.vocab_size = 128, c.width = 32, c.num_layers = 2, c.dense_dim = 64, c.max_positions = 64, c.mtp_depth = 1;
  c.init_std = 0.06;
  c.mla = {.num_heads = 2, .query_latent = 16, .kv_latent = 16, .nope_dim = 8, .rope_dim = 8, .value_dim = 8};
  c.moe = {.num_experts = 8,
           .num_shared = 1,
           .top_k = 2,
           .expert_dim = 16,
           .num_groups = 2,
           .num_groups_kept = 1,
           .first_layer = 1,
           .scoring = Scoring::kSigmoid,
           .choice = Choice::kGroupTopTwo,
           .normalize = true,
           .scale = 2.5};
  return c;
}

TEST(BalanceBias, MovesTowardsTheUnderusedAndEqualLoadsLeaveIt) {
  Transformer model(small_config(), random_weights(small_config(), 1));
  const std::vector<int64_t> counts{4, 0, 2, 2, 2, 2, 2, 2};
  update_balance_bias(model, {{1, from_ints(counts)}}, 0.5);
  EXPECT_EQ(to_floats(model.weights().layers[1].moe.balance_bias_E),
            (std::vector<float>{-0.5, 0.5, 0, 0, 0, 0, 0, 0}));
  EXPECT_DOUBLE_EQ(max_violation({{1, from_ints(counts)}}), 1.0);
}

TEST(BalanceLoss, UniformAffinitiesGiveExactlyOne) {
  const MoeConfig moe = small_config().moe;
  EXPECT_NEAR(sequence_balance_loss(moe, full({12, 8}, 0.3), 3).item<double>(), 3.0, 1e-6);
}

TEST(AdamW, NonFiniteGradientChangesNothingAndIsReported) {
  Transformer model(small_config(), random_weights(small_config(), 1));
  AdamW optimizer(model, {});
  const Tensor before = model.weights().head_WD.detach().clone();
  (model.weights().head_WD.sum() * INFINITY).backward();
  EXPECT_FALSE(std::isfinite(optimizer.step(1e-3)));
  EXPECT_TRUE(model.weights().head_WD.equal(before));
  EXPECT_EQ(optimizer.num_steps(), 0);
  EXPECT_FALSE(model.weights().head_WD.grad().defined());
}

TEST(AdamW, NormsDoNotDecayAndUnusedMatricesDo) {
  Transformer model(small_config(), random_weights(small_config(), 1));
  AdamW optimizer(model, {.weight_decay = 0.5});
  const Tensor head = model.weights().head_WD.detach().clone(),
               norm = model.weights().final_norm.detach().clone();
  optimizer.step(0.1);  // no gradient anywhere
  EXPECT_TRUE(model.weights().head_WD.detach().allclose(head * 0.95));
  EXPECT_TRUE(model.weights().final_norm.equal(norm));
}

}  // namespace
}  // namespace hadal
