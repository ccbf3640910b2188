#include "hadal/train/schedule.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

double rate_at(const ScheduleSection& s, int64_t step, int64_t steps = 1000) {
  return learning_rate(s, 1.0, step, steps, static_cast<double>(step + 1) / static_cast<double>(steps));
}

TEST(LearningRate, V3WarmsUpStaysFallsToATenthAndEndsAtAThirdOfThat) {
  const ScheduleSection s{.kind = "v3", .warmup_steps = 10};
  EXPECT_NEAR(rate_at(s, 0), 0.1, 1e-12);
  EXPECT_EQ(rate_at(s, 9), 1.0);
  EXPECT_EQ(rate_at(s, 675), 1.0);
  for (int64_t i = 676; i < 999; ++i) EXPECT_LE(rate_at(s, i + 1), rate_at(s, i));
  EXPECT_NEAR(rate_at(s, 966), 0.1, 1e-12);
  EXPECT_NEAR(rate_at(s, 985), 0.1, 1e-12);
  EXPECT_NEAR(rate_at(s, 999), 0.0332, 1e-12);  // 7.3e-6 of 2.2e-4
}

TEST(LearningRate, V2FallsByTheRootOfTenTwice) {
  const ScheduleSection s{.kind = "v2", .warmup_steps = 0};
  EXPECT_EQ(rate_at(s, 0), 1.0);
  EXPECT_EQ(rate_at(s, 599), 1.0);
  EXPECT_EQ(rate_at(s, 600), 0.316);
  EXPECT_EQ(rate_at(s, 900), 0.316 * 0.316);
}

TEST(LearningRate, CosineWsdAndConstantEndWhereTheySay) {
  EXPECT_NEAR(rate_at({.kind = "cosine", .warmup_steps = 100, .floor = 0.2}, 999), 0.2, 1e-12);
  EXPECT_NEAR(rate_at({.kind = "cosine", .warmup_steps = 100, .floor = 0.2}, 549), 0.6, 1e-12);  // half-way
  const ScheduleSection wsd{.kind = "wsd", .warmup_steps = 0, .floor = 0, .decay_share = 0.5};
  EXPECT_EQ(rate_at(wsd, 499), 1.0);
  EXPECT_NEAR(rate_at(wsd, 749), 0.5, 1e-12);
  EXPECT_NEAR(rate_at(wsd, 999), 0.0, 1e-12);
  EXPECT_EQ(rate_at({.kind = "constant", .warmup_steps = 0}, 999), 1.0);
}

TEST(LearningRate, WarmUpTakesAtMostAQuarterOfAShortRun) {
  EXPECT_EQ(rate_at({.kind = "constant", .warmup_steps = 1000}, 24, 100), 1.0);
}

TEST(BatchSize, GrowsLinearlyInTokensToMultiplesOfTheQuantum) {
  const BatchSection b{.sequences = 16, .length = 10, .start = 4, .ramp_tokens = 1200, .quantum = 4};
  EXPECT_EQ(batch_size(b, 0), 4);
  EXPECT_EQ(batch_size(b, 399), 4);  // 7.99 of 16, floored to the quantum
  EXPECT_EQ(batch_size(b, 400), 8);
  EXPECT_EQ(batch_size(b, 1199), 12);
  EXPECT_EQ(batch_size(b, 1200), 16);
  int64_t tokens = 0;
  for (int64_t step = 0; step < 50; ++step) {
    EXPECT_EQ(planned_tokens(b, step), tokens);
    tokens += batch_size(b, tokens) * b.length;
  }
}

TEST(LossSchedule, LambdaFallsWhereTheRateStartsToAndTheBiasFreezesInTheTail) {
  const LossSection loss{.bias_step = 1e-3};
  EXPECT_EQ(mtp_weight(loss, 0.676), 0.3);
  EXPECT_EQ(mtp_weight(loss, 0.677), 0.1);
  EXPECT_EQ(bias_step(loss, 0.966), 1e-3);
  EXPECT_EQ(bias_step(loss, 0.967), 0);
}

}  // namespace
}  // namespace hadal
