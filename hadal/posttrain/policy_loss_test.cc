#include "hadal/posttrain/policy_loss.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hadal/base/random.h"
#include "hadal/posttrain/advantages.h"

namespace hadal {
namespace {

// Three completions of 2, 3 and 1 tokens; nothing masked.
struct Case {
  std::vector<int64_t> begin = {0, 2, 5, 6};
  std::vector<double> logp, old_logp, reference;
  std::vector<uint8_t> mask = std::vector<uint8_t>(6, 1);
  std::vector<double> advantage = {1.5, -0.5, -1.0};
  PolicyBatch batch() const { return {begin, logp, old_logp, reference, mask, advantage}; }
};

Case on_policy() {
  Case c;
  for (uint64_t t = 0; t < 6; ++t) c.logp.push_back(-0.1 - uniform(1, 0, t));
  c.old_logp = c.logp;
  return c;
}

Case off_policy(double spread) {
  Case c = on_policy();
  for (uint64_t t = 0; t < 6; ++t) {
    c.old_logp[t] = c.logp[t] + spread * (uniform(2, 0, t) - 0.5);
    c.reference.push_back(c.logp[t] + spread * (uniform(3, 0, t) - 0.5));
  }
  return c;
}

TEST(PolicyLoss, OnPolicyGradientIsMinusTheAdvantage) {
  const Case c = on_policy();
  const PolicyLoss got = policy_loss({.kind = LossKind::kDapo}, c.batch());
  for (size_t t = 0; t < 6; ++t)
    EXPECT_DOUBLE_EQ(got.gradient[t] * 6, -c.advantage[t < 2 ? 0 : t < 5 ? 1 : 2]);
}

TEST(PolicyLoss, GradientsAreTheSlopesOfTheLoss) {
  for (const LossKind kind : {LossKind::kGrpo, LossKind::kBnpo, LossKind::kDrGrpo, LossKind::kDapo})
    for (const RatioLevel level : {RatioLevel::kToken, RatioLevel::kSequence})
      for (const KlEstimate kl : {KlEstimate::kK1, KlEstimate::kK2, KlEstimate::kK3})
        for (const bool kl_ratio : {false, true}) {
          PolicyLossConfig config{.kind = kind,
                                  .level = level,
                                  .dual_clip = 1.1,
                                  .beta = 0.3,
                                  .kl = kl,
                                  .kl_ratio = kl_ratio,
                                  .max_length = 9};
          Case c = off_policy(0.9);
          c.mask[3] = 0;
          const PolicyLoss got = policy_loss(config, c.batch());
          for (size_t t = 0; t < 6; ++t) {
            constexpr double kStep = 1e-6;  // central differences in double: about 1e-10
            Case up = c, down = c;
            up.logp[t] += kStep, down.logp[t] -= kStep;
            const double slope =
                (policy_loss(config, up.batch()).loss - policy_loss(config, down.batch()).loss) / (2 * kStep);
            EXPECT_NEAR(got.gradient[t], slope, 1e-8) << "token " << t;
          }
        }
}

// Spec 6.2: at ratio 1 the gradient of ratio times k3 is log p/ref, that of k3 is 1 - exp(log ref/p).
TEST(PolicyLoss, KlGradientsAreTheIdentities) {
  Case c = on_policy();
  c.advantage = {0, 0, 0};
  for (size_t t = 0; t < 6; ++t) c.reference.push_back(c.logp[t] + 0.3 * (uniform(3, 0, t) - 0.5));
  const auto gradient = [&](KlEstimate kl, bool ratio) {
    return policy_loss({.beta = 1, .kl = kl, .kl_ratio = ratio}, c.batch()).gradient;
  };
  for (size_t t = 0; t < 6; ++t) {
    const double d = c.reference[t] - c.logp[t];
    EXPECT_NEAR(gradient(KlEstimate::kK3, false)[t] * 6, 1 - std::exp(d), 1e-12);
    EXPECT_NEAR(gradient(KlEstimate::kK3, true)[t] * 6, -d, 1e-12);
    EXPECT_NEAR(gradient(KlEstimate::kK2, false)[t] * 6, -d, 1e-12);
    EXPECT_NEAR(gradient(KlEstimate::kK1, false)[t] * 6, 1, 1e-12);
  }
}

// One token with the given ratio and advantage.
PolicyLoss one_token(const PolicyLossConfig& config, double ratio, double A) {
  const std::vector<int64_t> begin = {0, 1};
  const std::vector<double> logp = {-1}, old = {-1 - std::log(ratio)}, advantage = {A};
  const std::vector<uint8_t> mask = {1};
  return policy_loss(config, {begin, logp, old, {}, mask, advantage});
}

TEST(PolicyLoss, ClipHigherLeavesMoreRoomAboveThanBelow) {
  const PolicyLossConfig config{.eps_low = 0.2, .eps_high = 0.28};
  EXPECT_NE(one_token(config, 1.27, 1).gradient[0], 0);
  EXPECT_EQ(one_token(config, 1.29, 1).gradient[0], 0);
  EXPECT_NE(one_token(config, 0.81, -1).gradient[0], 0);
  EXPECT_EQ(one_token(config, 0.79, -1).gradient[0], 0);
  EXPECT_NE(one_token(config, 0.5, 1).gradient[0], 0);   // what is good and rare now may still come back
  EXPECT_NE(one_token(config, 2.0, -1).gradient[0], 0);  // and what is bad and frequent may still go
}

TEST(PolicyLoss, DualClipBoundsTheLossOfBadTokens) {
  EXPECT_DOUBLE_EQ(one_token({.dual_clip = 3}, 10, -1).loss, 3);
  EXPECT_EQ(one_token({.dual_clip = 3}, 10, -1).gradient[0], 0);
  EXPECT_NEAR(one_token({}, 10, -1).loss, 10, 1e-12);
}

TEST(PolicyLoss, CutIntoMicroBatchesItIsTheSameForAllButBnpo) {
  for (const LossKind kind : {LossKind::kGrpo, LossKind::kBnpo, LossKind::kDrGrpo, LossKind::kDapo}) {
    const PolicyLossConfig config{.kind = kind, .beta = 0.1, .max_length = 9};
    const Case c = off_policy(0.5);
    const PolicyLoss whole = policy_loss(config, c.batch());
    Case head = c, tail = c;
    head.begin = {0, 2}, head.advantage = {c.advantage[0]};
    tail.begin = {0, 3, 4}, tail.advantage = {c.advantage[1], c.advantage[2]};
    for (auto* x : {&head.logp, &head.old_logp, &head.reference}) x->resize(2);
    for (auto* x : {&tail.logp, &tail.old_logp, &tail.reference}) x->erase(x->begin(), x->begin() + 2);
    head.mask.resize(2), tail.mask.resize(4);
    const PolicyDivisor all{.completions = 3, .tokens = 6, .micro_batches = 2};
    const double sum =
        policy_loss(config, head.batch(), all).loss + policy_loss(config, tail.batch(), all).loss;
    if (kind == LossKind::kBnpo)
      EXPECT_GT(std::abs(sum - whole.loss), 1e-3);
    else
      EXPECT_NEAR(sum, whole.loss, 1e-12);
  }
}

TEST(PolicyLoss, MaskedTokensCountNeitherAboveNorBelowTheLine) {
  Case c = off_policy(0.5);
  for (size_t t = 2; t < 5; ++t)
    c.mask[t] = 0, c.logp[t] = -50;  // a whole completion, as when it was cut off
  const PolicyLoss got = policy_loss({.kind = LossKind::kDapo, .beta = 0.1}, c.batch());
  EXPECT_EQ(got.tokens, 3);
  for (size_t t = 2; t < 5; ++t) EXPECT_EQ(got.gradient[t], 0);
  c.logp[3] = -1;
  EXPECT_EQ(policy_loss({.kind = LossKind::kDapo, .beta = 0.1}, c.batch()).loss, got.loss);
}

TEST(Advantages, OfRightAndWrongAreTheClosedForm) {
  // Spec 6.2: G = 8, k = 2 right.
  const std::vector<double> rewards = {1, 0, 0, 1, 0, 0, 0, 0};
  const auto got = advantages(rewards, 8, AdvantageKind::kGroup, 0);
  EXPECT_NEAR(got[0], std::sqrt(7.0 * 6 / (8 * 2)), 1e-12);
  EXPECT_NEAR(got[1], -std::sqrt(7.0 * 2 / (8 * 6)), 1e-12);
}

TEST(Advantages, EqualRewardsGiveExactlyZero) {
  const std::vector<double> rewards(7, 0.1);  // whose computed mean is not 0.1
  for (const AdvantageKind kind :
       {AdvantageKind::kGroup, AdvantageKind::kNone, AdvantageKind::kBatch, AdvantageKind::kRloo})
    for (const double a : advantages(rewards, 7, kind, 0)) EXPECT_EQ(a, 0);
  EXPECT_EQ(count_groups(rewards, 7).equal, 1);
}

TEST(Advantages, OneThatCouldNotBeScoredIsInNoBaseline) {
  const std::vector<double> with = {1, NAN, 0, 1}, without = {1, 0, 1};
  const auto a = advantages(with, 4, AdvantageKind::kGroup),
             b = advantages(without, 3, AdvantageKind::kGroup);
  EXPECT_EQ(a, (std::vector<double>{b[0], 0, b[1], b[2]}));
  EXPECT_EQ(count_groups(with, 4).unscorable, 1);
}

TEST(Advantages, LeaveOneOutComparesWithTheOthers) {
  const std::vector<double> rewards = {1, 0, 3, 0};
  const auto got = advantages(rewards, 4, AdvantageKind::kRloo);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(got[i], rewards[i] - (4 - rewards[i]) / 3, 1e-12);
}

TEST(Advantages, PartsCombineByWeightAndAreMissedOnlyTogether) {
  EXPECT_DOUBLE_EQ(combine_rewards(std::vector<double>{1, NAN, 0.5}, std::vector<double>{2, 5, 1}), 2.5);
  EXPECT_TRUE(std::isnan(combine_rewards(std::vector<double>{NAN, NAN}, std::vector<double>{1, 1})));
}

}  // namespace
}  // namespace hadal
