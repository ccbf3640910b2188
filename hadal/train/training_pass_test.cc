// Ways to compute a training pass: recomputation, bf16 products, token dropping.
#include "hadal/model/training_pass.h"

#include <gtest/gtest.h>

#include "hadal/config/weight_specs.h"
#include "hadal/tensor/make.h"
#include "hadal/train/balance.h"
#include "hadal/train/loss.h"
#include "tests/support/small_model.h"

namespace hadal {
namespace {

ModelConfig v2_model() {
  ModelConfig c = small_model(/*mtp_depth=*/0);
  c.generation = Generation::kV2, c.mla.query_latent = 0;
  c.moe.scoring = Scoring::kSoftmax, c.moe.choice = Choice::kGreedy, c.moe.normalize = false;
  return c;
}

Tensor window_of(const ModelConfig& config, int64_t rows = 3) {
  const int64_t X = 14 + config.mtp_depth;
  return arange(0, rows * X).mul(37).remainder(101).view({rows, X});
}

struct Pass {
  double total = 0;
  std::vector<std::string> names;
  std::vector<Tensor> gradients;
};

// Loss and gradients of one batch; with all losses, and documents if segment starts are given.
Pass run(const ModelConfig& config, LossConfig loss_config, const TrainBatch& batch) {
  Transformer model(config, random_weights(config, 1));
  for_each_weight(config, model.weights(), [](const WeightSpec& spec, Tensor& w) {
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
  });
  loss_config.balance_alpha = 0.1, loss_config.expert_alpha = 0.1;
  const BatchLoss loss = batch_loss(model, batch, loss_config);
  loss.total.backward();
  Pass pass{.total = loss.total.item<double>()};
  for_each_weight(config, model.weights(), [&](const WeightSpec& spec, Tensor& w) {
    if (!w.grad().defined()) return;
    pass.names.push_back(spec.name);
    pass.gradients.push_back(w.grad());
  });
  return pass;
}

void expect_same_bits(const Pass& got, const Pass& want) {
  EXPECT_EQ(got.total, want.total);
  ASSERT_EQ(got.names, want.names);
  for (size_t i = 0; i < want.names.size(); ++i)
    EXPECT_TRUE(got.gradients[i].equal(want.gradients[i])) << want.names[i];
}

TEST(Recompute, GradientsAreThoseOfAPassThatKeepsEverythingBitForBit) {
  for (const ModelConfig& config : {small_model(2), v2_model()})
    for (const Products products : {Products::kF32, Products::kBf16, Products::kF16}) {
      const TrainBatch batch(window_of(config));
      LossConfig loss{.capacity_factor = 0.7, .products = products};
      const Pass want = run(config, loss, batch);
      for (const Recompute how : {Recompute::kSelective, Recompute::kFull}) {
        SCOPED_TRACE(testing::Message()
                     << static_cast<int>(how) << ", products " << static_cast<int>(products));
        loss.recompute = how;
        expect_same_bits(run(config, loss, batch), want);
      }
    }
}

TEST(Recompute, OfPackedDocumentsToo) {
  const ModelConfig config = small_model();
  const Tensor window = window_of(config);
  const Tensor start =
      arange(0, window.numel()).view(window.sizes()).remainder(window.size(1)).ge(9).to(at::kLong) * 9;
  const TrainBatch batch(window, start);
  const Pass want = run(config, {}, batch);
  EXPECT_NE(want.total, run(config, {}, window).total);
  for (const Recompute how : {Recompute::kSelective, Recompute::kFull})
    expect_same_bits(run(config, {.recompute = how}, batch), want);
}

TEST(Recompute, GradientsOfMicroBatchesAddUpAsWithout) {
  const ModelConfig config = small_model();
  Transformer model(config, random_weights(config, 1));
  for_each_weight(config, model.weights(), [](const WeightSpec& spec, Tensor& w) {
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
  });
  const auto gradient = [&](Recompute how) {
    for (int64_t i = 0; i < 2; ++i)
      batch_loss(model, TrainBatch(window_of(config)).rows(i, 1), {.recompute = how},
                 {.targets = 26, .rows = 2})
          .total.backward();
    std::vector<Tensor> parts;
    for_each_weight(config, model.weights(), [&](const WeightSpec& spec, Tensor& w) {
      if (w.grad().defined()) parts.push_back(w.grad().flatten());
      w.mutable_grad().reset();
    });
    return concat(parts, 0);
  };
  const Tensor want = gradient(Recompute::kNone);
  EXPECT_TRUE(gradient(Recompute::kSelective).equal(want));
  EXPECT_TRUE(gradient(Recompute::kFull).equal(want));
}

// A product's factors and result are rounded to 8 bits, relative errors below 2^-9 = 0.2 % each; those of a
// chain of some twenty products add up, at random. All experts are chosen: near a tie, rounding would change
// the choice and with it everything.
void expect_close_to_f32(Products products) {
  for (ModelConfig config : {small_model(), v2_model()}) {
    config.moe.num_experts = 4, config.moe.top_k = 4, config.moe.num_groups_kept = config.moe.num_groups;
    const TrainBatch batch(window_of(config));
    const Pass f32 = run(config, {}, batch), bf16 = run(config, {.products = products}, batch);
    EXPECT_NE(bf16.total, f32.total);
    EXPECT_NEAR(bf16.total, f32.total, 5e-4 * f32.total);
    for (size_t i = 0; i < f32.names.size(); ++i) {
      const Tensor &a = bf16.gradients[i], &b = f32.gradients[i];
      EXPECT_EQ(a.scalar_type(), at::kFloat);
      EXPECT_LE((a - b).norm().item<double>(), 0.02 * b.norm().item<double>()) << f32.names[i];
    }
  }
}

TEST(Bf16Products, LossAndGradientsStayWithinAFewRoundingsOfF32) {
  expect_close_to_f32(Products::kBf16);
}
TEST(F16Products, LossAndGradientsStayWithinAFewRoundingsOfF32) {
  expect_close_to_f32(Products::kF16);
}

// Two tokens, two groups (devices) of two experts, top 1; every token's expert lies in group 0.
TEST(TokenDropping, ASlotBeyondTheCapacityOfItsGroupContributesNothing) {
  ModelConfig config = v2_model();
  config.moe.num_experts = 4, config.moe.top_k = 1, config.moe.num_groups = 2, config.moe.num_shared = 0;
  const MoeWeights w = random_weights(config, 1).layers[1].moe;
  const Tensor x_TD = arange(0, 2 * 32).to(at::kFloat).sin().view({2, 32});
  MoeWeights steered = w;
  steered.router_ED = zeros({4, 32});
  steered.router_ED[0].copy_(x_TD[0]), steered.router_ED[1].copy_(x_TD[1]);
  const auto dropping = [&](double factor, std::vector<int64_t> guarded) {
    TrainingPass pass;
    pass.kept_slots = [&, factor, guarded](const Routing& r) {
      return kept_slots(config.moe, r.affinity_TE, r.expert_TA, factor, from_ints(guarded).to(at::kBool));
    };
    return moe_block(config.moe, steered, x_TD, pass).y_TD;
  };
  const MoeOutput all = moe_block(config.moe, steered, x_TD);
  ASSERT_EQ(to_ints(all.routing.expert_TA), (std::vector<int64_t>{0, 1}));
  const bool first_is_greater =
      all.routing.affinity_TE[0][0].item<double>() > all.routing.affinity_TE[1][1].item<double>();
  const int64_t stays = first_is_greater ? 0 : 1;
  const Tensor one = dropping(1.0, {0, 0});  // room for 1 * 1 * 2 / 2 = one slot a group
  EXPECT_TRUE(one[stays].equal(all.y_TD[stays]));
  EXPECT_EQ(one[1 - stays].abs().max().item<double>(), 0);
  EXPECT_GT(all.y_TD[1 - stays].abs().max().item<double>(), 0);
  EXPECT_TRUE(dropping(2.0, {0, 0}).equal(all.y_TD));  // room for both
  EXPECT_TRUE(dropping(1.0, {1, 1}).equal(all.y_TD));  // both rows protected
}

TEST(TokenDropping, ChangesTheTrainingLossButNotThatOfProtectedRowsNorTheLoads) {
  const ModelConfig config = small_model();
  const TrainBatch batch(window_of(config));
  TrainBatch guarded = batch;
  guarded.protected_B = zeros({3}, at::kBool).fill_(true);
  const double whole = run(config, {}, batch).total;
  EXPECT_NE(run(config, {.capacity_factor = 0.5}, batch).total, whole);
  EXPECT_EQ(run(config, {.capacity_factor = 0.5}, guarded).total, whole);
}

TEST(TokenDropping, AboutTheShareOfTheRowsIsProtectedWhateverTheBatch) {
  const Tensor all = never_dropped(3, 0, 10'000, 0.1);
  // Binomial: 1000 +- 30; five sigmas.
  EXPECT_NEAR(static_cast<double>(all.sum().item<int64_t>()), 1000, 150);
  EXPECT_TRUE(never_dropped(3, 500, 100, 0.1).equal(all.narrow(0, 500, 100)));
  EXPECT_EQ(never_dropped(3, 0, 100, 0).sum().item<int64_t>(), 0);
}

}  // namespace
}  // namespace hadal
