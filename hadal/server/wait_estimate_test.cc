#include "hadal/server/wait_estimate.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

// 1,000 rows of prompts a second, 100 tokens of answers, answers of 40 tokens.
WaitEstimate measured() {
  WaitEstimate estimate;
  for (int i = 0; i < 20; ++i) estimate.add_step(0.1, 100, 0);
  for (int i = 0; i < 20; ++i) estimate.add_step(0.08, 0, 8);
  for (int i = 0; i < 64; ++i) estimate.add_answer(40);
  return estimate;
}

TEST(WaitEstimate, NothingMeasuredIsNoWait) {
  EXPECT_EQ(
      WaitEstimate().seconds({.requests = 9, .prompt_tokens = 5000, .generated = {1}, .at_most = {9}}, 1), 0);
}

TEST(WaitEstimate, WithAFreeSlotOnlyPromptsAreWaitedFor) {
  const WaitEstimate estimate = measured();
  EXPECT_NEAR(estimate.seconds({.requests = 3, .prompt_tokens = 500}, 4), 0.5, 1e-9);
  EXPECT_NEAR(estimate.seconds({.requests = 3, .prompt_tokens = 500, .generated = {7}, .at_most = {90}}, 4),
              0.5, 1e-9);
}

TEST(WaitEstimate, WithoutOneTheAnswerNearestItsEndIsWaitedFor) {
  const WaitEstimate estimate = measured();
  // 10 tokens to go, at half of 100 tokens a second; the other ends later.
  EXPECT_NEAR(estimate.seconds({.requests = 1, .generated = {30, 5}, .at_most = {90, 90}}, 2), 0.2, 1e-9);
  // The second one waits for the other.
  EXPECT_NEAR(estimate.seconds({.requests = 2, .generated = {30, 5}, .at_most = {90, 90}}, 2), 0.7, 1e-9);
  // The third for an answer that begins when the first ends, and whole.
  EXPECT_NEAR(estimate.seconds({.requests = 3, .generated = {30, 5}, .at_most = {90, 90}}, 2), 1.0, 1e-9);
}

TEST(WaitEstimate, NoAnswerGoesPastItsLimit) {
  const WaitEstimate estimate = measured();
  EXPECT_NEAR(estimate.seconds({.requests = 1, .generated = {0}, .at_most = {5}}, 1), 0.05, 1e-9);
  EXPECT_NEAR(estimate.seconds({.requests = 1, .generated = {60}, .at_most = {900}}, 1), 0.2, 1e-9);
}

TEST(WaitEstimate, AStepOfBothKindsIsSharedOutByRows) {
  WaitEstimate estimate;
  estimate.add_step(1.0, 75, 25);
  EXPECT_NEAR(estimate.seconds({.requests = 1, .prompt_tokens = 100}, 1), 1.0, 1e-9);
  estimate.add_step(1.0, 0, 0);  // nothing came of it
  EXPECT_NEAR(estimate.seconds({.requests = 1, .prompt_tokens = 100}, 1), 1.0, 1e-9);
}

TEST(WaitEstimate, OldRatesAreForgottenByWorkOfTheirKindAlone) {
  WaitEstimate estimate = measured();
  for (int i = 0; i < 100; ++i) estimate.add_step(0.2, 0, 8);  // 20 seconds: slower now
  EXPECT_NEAR(estimate.seconds({.requests = 1, .prompt_tokens = 1000}, 4), 1.0, 1e-9);
  EXPECT_NEAR(estimate.seconds({.requests = 1, .generated = {0}, .at_most = {10}}, 1), 0.25, 0.01);
}

}  // namespace
}  // namespace hadal
