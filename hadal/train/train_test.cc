#include <gtest/gtest.h>

#include <cmath>

#include "hadal/data/story_text.h"
#include "hadal/tensor/make.h"
#include "hadal/train/loop.h"

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

TokenSplit ascii_tokens(int64_t X) {
  const std::string text = story_text(1, 20'000);
  return split_tokens(std::vector<int32_t>(text.begin(), text.end()), 0.1, X);
}

TEST(TrainLoop, HeldOutLossFallsAndTheMtpModuleLearnsToGuess) {
  Transformer model(small_config(), random_weights(small_config(), 1));
  const TokenSplit tokens = ascii_tokens(34);
  const HeldOut before = evaluate(model, tokens.held_out, 32, 16);
  EXPECT_NEAR(before.loss, std::log(128.0), 0.3);  // an untrained model knows nothing
  train(model, tokens, {.batch = 8, .length = 32, .steps = 120, .peak_rate = 1e-2, .warmup = 5},
        [](const TrainProgress&) {});
  const HeldOut after = evaluate(model, tokens.held_out, 32, 16);
  EXPECT_LT(after.loss, before.loss - 1.5);
  EXPECT_GT(after.mtp_acceptance, before.mtp_acceptance + 0.1);
}

TEST(TrainLoop, SameSeedGivesTheSameWeightsBitForBit) {
  const auto run = [] {
    Transformer model(small_config(), random_weights(small_config(), 1));
    train(model, ascii_tokens(18), {.batch = 2, .length = 16, .steps = 5}, [](const TrainProgress&) {});
    return model.weights().head_WD.detach().clone();
  };
  EXPECT_TRUE(run().equal(run()));
}

TEST(TrainLoop, StopEndsAfterTheCurrentStep) {
  Transformer model(small_config(), random_weights(small_config(), 1));
  std::atomic<bool> stop{false};
  const auto last = train(
      model, ascii_tokens(18), {.batch = 2, .length = 16, .steps = 50},
      [&](const TrainProgress& p) { stop = p.step == 3; }, &stop);
  EXPECT_EQ(last.step, 3);
}

TEST(LearningRate, WarmsUpStaysThenFallsToATenth) {
  const TrainLoopConfig c{.peak_rate = 1.0, .warmup = 10};
  EXPECT_NEAR(learning_rate(c, 0, 100), 0.1, 1e-9);
  EXPECT_EQ(learning_rate(c, 9, 100), 1.0);
  EXPECT_EQ(learning_rate(c, 66, 100), 1.0);
  EXPECT_NEAR(learning_rate(c, 99, 100), 0.1, 1e-9);
  for (int64_t s = 67; s < 99; ++s) EXPECT_LE(learning_rate(c, s + 1, 100), learning_rate(c, s, 100));
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
  EXPECT_NEAR(sequence_balance_loss(moe, full({12, 8}, 0.3), 3).item<double>(), 1.0, 1e-6);
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
