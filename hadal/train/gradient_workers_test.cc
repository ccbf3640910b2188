#include "hadal/train/gradient_workers.h"

#include <gtest/gtest.h>

#include "hadal/config/weight_specs.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "tests/support/small_model.h"

namespace hadal {
namespace {

class Workers : public testing::Test {
 protected:
  Transformer model{small_model(), random_weights(small_model(), 1)};
  const Tensor window = arange(0, 5 * 12).mul(7).remainder(40).view({5, 12});
  Workers() {
    for_each_weight(model.config(), model.weights(), [](const WeightSpec& spec, Tensor& w) {
      if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
    });
  }
  std::pair<StepLoss, Tensor> run(int64_t workers) {
    GradientWorkers pool(model, workers);
    const StepLoss loss = pool.step(window, {}, {});
    std::vector<Tensor> parts;
    for_each_weight(model.config(), model.weights(), [&](const WeightSpec&, Tensor& w) {
      if (w.grad().defined()) parts.push_back(w.grad().flatten());
      w.mutable_grad().reset();
    });
    return {loss, concat(parts, 0)};
  }
};

TEST_F(Workers, AnyNumberOfThemGivesTheGradientsAndLossesOfOne) {
  const auto [one, gradient] = run(1);
  for (const int64_t workers : {2, 3, 9}) {  // 9: more than rows
    const auto [loss, sum] = run(workers);
    EXPECT_NEAR(loss.total, one.total, 1e-6) << workers;
    EXPECT_NEAR(loss.main, one.main, 1e-6) << workers;
    EXPECT_NEAR(loss.mtp.at(0), one.mtp.at(0), 1e-6) << workers;
    EXPECT_NEAR(loss.balance, one.balance, 1e-9) << workers;
    EXPECT_LE((sum - gradient).abs().max().item<double>(), 1e-6) << workers;
    for (size_t i = 0; i < one.loads.size(); ++i)
      EXPECT_TRUE(loss.loads[i].count_E.equal(one.loads[i].count_E));
  }
}

TEST_F(Workers, TimingDoesNotChangeABit) {
  const auto [first, gradient] = run(3);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(run(3).second.equal(gradient));
}

TEST_F(Workers, SeeTheModelsWeightsAsTheyChange) {
  GradientWorkers pool(model, 2);
  const double before = pool.step(window, {}, {}).main;
  {
    NoGrad no_grad;
    model.weights().head_WD.mul_(3);
  }
  EXPECT_NE(pool.step(window, {}, {}).main, before);
}

TEST_F(Workers, AnErrorOfOneIsTheErrorOfTheStep) {
  GradientWorkers pool(model, 2);
  Tensor bad = window.clone();
  bad[4][3] = 999;  // the last row is the second worker's
  EXPECT_THROW(pool.step(bad, {}, {}), Error);
}

}  // namespace
}  // namespace hadal
