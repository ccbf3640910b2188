#include "hadal/train/loss.h"

#include <gtest/gtest.h>

#include "hadal/config/weight_specs.h"
#include "hadal/tensor/make.h"
#include "hadal/train/evaluate.h"
#include "tests/support/small_model.h"

namespace hadal {
namespace {

Tensor tokens(int64_t B, int64_t X) {
  return arange(0, B * X).mul(7).remainder(40).view({B, X});
}

class Loss : public testing::Test {
 protected:
  Transformer model{small_model(), random_weights(small_model(), 1)};
  Loss() {
    for_each_weight(model.config(), model.weights(), [](const WeightSpec& spec, Tensor& w) {
      if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
    });
  }
  // Gradient of every weight in one vector, and they are cleared.
  Tensor take_gradient() {
    std::vector<Tensor> parts;
    for_each_weight(model.config(), model.weights(), [&](const WeightSpec&, Tensor& w) {
      if (w.grad().defined()) parts.push_back(w.grad().flatten());
      w.mutable_grad().reset();
    });
    return concat(parts, 0);
  }
};

TEST_F(Loss, MeasuredOnMaskedDocumentsItIsTheTrainingLoss) {
  const Tensor window = tokens(3, 14),
               start = arange(0, 3 * 14).view({3, 14}).remainder(14).ge(9).to(at::kLong) * 9;
  const TrainBatch batch(window, start);
  const HeldOut found = evaluate(model, batch);
  EXPECT_EQ(found.targets, count_targets(model.config(), batch));
  EXPECT_EQ(found.targets, 3 * 11);
  EXPECT_NEAR(found.loss, batch_loss(model, batch, {}).main.item<double>(), 1e-5);
}

// Rows packed by best fit: two documents and filler, which is its own piece place by place.
TEST_F(Loss, TargetsStayWithinPiecesAndFillerChangesNothing) {
  const std::vector<int32_t> piece = {0, 0, 0, 0, 0, 5, 5, 5, 5, 9, 10, 11, 12, 13};
  const Tensor start = from_ids(piece).view({1, 14}), window = tokens(1, 14);
  for (const bool mask : {false, true}) {
    const TrainBatch batch(window, mask ? start : Tensor(), {}, start);
    EXPECT_EQ(count_targets(model.config(), batch), 4 + 3);
    EXPECT_TRUE(targets_T(batch, 12, 1)
                    .ge(0)
                    .nonzero()
                    .flatten()
                    .equal(from_ids(std::vector<int32_t>{0, 1, 2, 3, 5, 6, 7})));
    EXPECT_EQ(targets_T(batch, 12, 2).ge(0).sum().item<int64_t>(), 3 + 2);
    const BatchLoss loss = batch_loss(model, batch, {});
    Tensor other = window.clone();
    other.narrow(1, 9, 5).fill_(3);
    const BatchLoss same = batch_loss(model, TrainBatch(other, batch.segment_start_BX, {}, start), {});
    EXPECT_EQ(same.main.item<double>(), loss.main.item<double>());
    EXPECT_EQ(same.mtp[0].item<double>(), loss.mtp[0].item<double>());
    other.narrow(1, 6, 1).fill_(3);
    const BatchLoss another = batch_loss(model, TrainBatch(other, batch.segment_start_BX, {}, start), {});
    EXPECT_NE(another.main.item<double>(), loss.main.item<double>());
  }
  EXPECT_NE(batch_loss(model, TrainBatch(window, start, {}, start), {}).main.item<double>(),
            batch_loss(model, TrainBatch(window, {}, {}, start), {}).main.item<double>());
}

// Training spec 17.2: parts with 3 and 1 valid targets must weigh 3 to 1, not 1 to 1.
TEST_F(Loss, PartsOfAStepAddUpToTheWholeWhateverTheirSizes) {
  const Tensor window = tokens(3, 12);
  const BatchLoss whole = batch_loss(model, window, {});
  whole.total.backward();
  const Tensor want = take_gradient();
  const LossDivisor divisor{.targets = count_targets(model.config(), window), .rows = 3};
  double total = 0;
  for (const auto& [first, n] : {std::pair<int64_t, int64_t>{0, 2}, {2, 1}}) {
    const BatchLoss part = batch_loss(model, window.narrow(0, first, n), {}, divisor);
    part.total.backward();
    total += part.total.item<double>();
  }
  EXPECT_NEAR(total, whole.total.item<double>(), 1e-6);
  EXPECT_LE((take_gradient() - want).abs().max().item<double>(), 1e-6);
}

TEST_F(Loss, DocumentsOfARowAreAsIfEachHadItsOwnRow) {
  const int64_t cut = 6;
  const Tensor window = tokens(1, 14);
  Tensor start = zeros({1, 14}, at::kLong);
  start.narrow(1, cut, 14 - cut).fill_(cut);
  const TrainBatch packed(window, start);
  // 12 targets, of which the one that crosses the border is none.
  EXPECT_EQ(count_targets(model.config(), packed), 11);
  const LossDivisor divisor{.targets = 11, .rows = 1};
  const LossConfig plain{.balance_alpha = 0};
  const double got = batch_loss(model, packed, plain, divisor).main.item<double>();
  // Alone: the first document predicts its 5 later tokens, the second its 6 within the row's 12 inputs.
  const auto alone = [&](int64_t first, int64_t inputs) {
    const Tensor hidden = model.forward(window.narrow(1, first, inputs));
    const Tensor target = window.narrow(1, first + 1, inputs).flatten();
    return (model.logits(hidden[0]).logsumexp(-1) -
            model.logits(hidden[0]).gather(1, target.unsqueeze(1)).squeeze(1))
        .sum()
        .item<double>();
  };
  EXPECT_NEAR(got, (alone(0, cut - 1) + alone(cut, 12 - cut)) / 11, 2e-6);
}

TEST_F(Loss, WithoutItsWeightTheMtpModuleLeavesTheMainGradientAlone) {
  const Tensor window = tokens(2, 12);
  batch_loss(model, window, {.mtp_weight = 0, .balance_alpha = 0}).total.backward();
  const Tensor trunk = model.weights().layers[0].mla.kv_up.grad().clone();
  take_gradient();
  ModelConfig without = small_model();
  without.mtp_depth = 0;
  ModelWeights weights = model.weights();
  weights.layers.pop_back();
  const Transformer main_only(without, weights);
  batch_loss(main_only, window.narrow(1, 0, 11), {.balance_alpha = 0}).total.backward();
  EXPECT_TRUE(trunk.equal(model.weights().layers[0].mla.kv_up.grad()));
}

// Loss of rows of which only some tokens are targets: the sum over those, and nothing of the others.
TEST_F(Loss, UntrainedTokensAreContextOnly) {
  const Tensor window = tokens(1, 14);
  const Tensor trained = arange(0, 14).remainder(3).eq(0).view({1, 14});  // 3, 6, 9, 12 of the main targets
  TrainBatch some(window, {}, {}, {}, trained);
  EXPECT_EQ(count_targets(model.config(), some), 4);
  const auto sum = [&](const TrainBatch& batch) {
    return batch_loss(model, batch, {.balance_alpha = 0}, {.targets = 1, .rows = 1});
  };
  double parts = 0, mtp = 0;
  for (int64_t i = 0; i < 14; i += 3) {
    const BatchLoss one = sum({window, {}, {}, {}, arange(0, 14).eq(i).view({1, 14})});
    parts += one.main.item<double>(), mtp += one.mtp[0].item<double>();
  }
  const BatchLoss whole = sum(some);
  EXPECT_NEAR(whole.main.item<double>(), parts, 1e-4);  // fp32
  EXPECT_NEAR(whole.mtp[0].item<double>(), mtp, 1e-4);
  EXPECT_LT(parts, sum(window).main.item<double>() - 1);
  EXPECT_EQ(evaluate(model, some).targets, 4);
}

// Training spec 17.1.
TEST(BalanceLoss, GivesTheKnownValueForTheKnownGate) {
  const MoeConfig moe{
      .num_experts = 4, .top_k = 2, .scoring = Scoring::kSigmoid, .choice = Choice::kGroupTopTwo};
  const Tensor logits =
      from_floats(std::vector<float>{1, 0, -1, .5f, .2f, 1.5f, .1f, -.3f, 2, -.5f, .4f, .3f}).view({3, 4});
  EXPECT_NEAR(sequence_balance_loss(moe, logits.sigmoid(), 1).item<double>(), 1.0861760, 1e-6);
}

}  // namespace
}  // namespace hadal
