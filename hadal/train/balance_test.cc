#include "hadal/train/balance.h"

#include <gtest/gtest.h>

#include "hadal/tensor/make.h"
#include "hadal/train/adamw.h"

namespace hadal {
namespace {

// The gate of training spec 17.1: four experts, two a token, three tokens.
Tensor known_logits() {
  const std::vector<float> z{1, 0, -1, .5, .2f, 1.5, .1f, -.3f, 2, -.5, .4f, .3f};
  return from_floats(z).view({3, 4});
}
const MoeConfig kMoe{.num_experts = 4, .top_k = 2, .num_groups = 2, .num_groups_kept = 2};

Tensor known_choice() {
  return from_ints(std::vector<int64_t>{0, 3, 0, 1, 0, 2}).view({3, 2});
}

TEST(V2Balance, ThreeLossesOfTheKnownGate) {
  const V2BalanceLosses losses = v2_balance_losses(kMoe, known_logits().softmax(-1), known_choice(), 1);
  EXPECT_NEAR(losses.expert.item<double>(), 1.2522687, 1e-6);
  EXPECT_NEAR(losses.device.item<double>(), 1.1425815, 1e-6);
  EXPECT_NEAR(losses.communication.item<double>(), 0.9046241, 1e-6);
}

TEST(V2Balance, PerfectBalanceGivesOneARow) {
  const Tensor uniform = full({4, 4}, 0.25);
  const Tensor choice = from_ints(std::vector<int64_t>{0, 2, 1, 3, 0, 2, 1, 3}).view({4, 2});
  const V2BalanceLosses losses = v2_balance_losses(kMoe, uniform, choice, 2);
  EXPECT_NEAR(losses.expert.item<double>(), 2.0, 1e-6);
  EXPECT_NEAR(losses.device.item<double>(), 2.0, 1e-6);
  EXPECT_NEAR(losses.communication.item<double>(), 2.0, 1e-6);
}

TEST(V2Balance, GradientComesThroughTheAffinities) {
  const Tensor logits = known_logits().requires_grad_(true);
  v2_balance_losses(kMoe, logits.softmax(-1), known_choice(), 1).device.backward();
  EXPECT_GT(logits.grad().abs().sum().item<double>(), 0);
}

TEST(V2Dropping, EachDeviceKeepsItsCapacityOfTheGreatestAffinities) {
  // Device 0 (experts 0, 1) gets four of the six slots, three fit.
  const Tensor affinity = known_logits().softmax(-1);
  const Tensor kept = kept_slots(kMoe, affinity, known_choice(), 1.0, full({1}, 0, at::kBool));
  // Affinities of device 0's slots: token 0 .46, token 1 .16 and .57, token 2 .72: the .16 goes.
  EXPECT_EQ(to_ints(kept.to(at::kLong)), (std::vector<int64_t>{1, 1, 0, 1, 1, 1}));
  EXPECT_EQ(kept_slots(kMoe, affinity, known_choice(), 2.0, full({1}, 0, at::kBool)).sum().item<int64_t>(),
            6);
}

TEST(V2Dropping, ProtectedRowsStayAndTakeTheRoomOfOthers) {
  const Tensor affinity = known_logits().softmax(-1);
  const std::vector<int64_t> guarded{0, 1, 0};
  const Tensor kept = kept_slots(kMoe, affinity, known_choice(), 1.0, from_ints(guarded).to(at::kBool));
  EXPECT_EQ(to_ints(kept.to(at::kLong)), (std::vector<int64_t>{0, 1, 1, 1, 1, 1}));
}

// The same gate with V3's biased choice: loads 1, 2, 2, 1.
TEST(BalanceBias, KnownLoadsGiveTheKnownViolation) {
  EXPECT_NEAR(max_violation({{0, from_ints(std::vector<int64_t>{1, 2, 2, 1})}}), 1.0 / 3, 1e-12);
}

}  // namespace
}  // namespace hadal
