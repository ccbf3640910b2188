#include <gtest/gtest.h>

#include <cmath>

#include "hadal/rewards/countdown.h"
#include "hadal/rewards/reward.h"

namespace hadal {
namespace {

Task task(const std::string& columns = R"("verifier": "math", "answer": "42")") {
  return parse_task("{\"prompt\": \"p\", " + columns + "}", "test");
}

double score(const std::string& specification, const Completion& completion) {
  return reward_set({specification}).score(task(), completion).total;
}

Completion text(const std::string& words) {
  Completion completion;
  completion.text = words;
  return completion;
}

Completion of_length(int64_t tokens, const std::string& words = "\\boxed{42}") {
  Completion completion = text(words);
  completion.num_tokens = tokens;
  return completion;
}

TEST(LanguageReward, IsTheShareOfWordsOfTheTarget) {
  EXPECT_EQ(score("language", text("we add 6 and 7")), 1);
  EXPECT_DOUBLE_EQ(score("language", text("we \u52a0 it")), 2.0 / 3);
  EXPECT_DOUBLE_EQ(score(R"({"name": "language", "target": "zh"})", text("we \u52a0\u6cd5 it")), 0.5);
  EXPECT_EQ(score("language", text("\u043f\u0440\u0438\u0432\u0435\u0442")), 0);
}

TEST(LanguageReward, LeavesOutCodeFormulasNumbersAndTheAnswer) {
  EXPECT_EQ(score("language", text("add ```\u52a0``` and $\u52a0$, 42 \u00d7 2 \u2192 84")), 1);
  EXPECT_EQ(score("language", text("<think>add</think> \u7b54\u6848")), 1);
  EXPECT_EQ(score("language", text("1 + 2 = 3")), 1);
}

TEST(OverlongReward, FallsLinearlyInTheLastStretch) {
  const std::string spec = R"({"name": "overlong", "max": 100, "cache": 20})";
  EXPECT_EQ(score(spec, of_length(80)), 0);
  EXPECT_DOUBLE_EQ(score(spec, of_length(85)), -0.25);
  EXPECT_EQ(score(spec, of_length(100)), -1);
  EXPECT_EQ(score(spec, of_length(500)), -1);
  EXPECT_TRUE(std::isnan(score(spec, text("of unknown length"))));
}

TEST(CosineReward, RewardsBrevityOfRightAndLengthOfWrongAnswers) {
  const std::string spec = R"({"name": "cosine", "max": 100})";
  EXPECT_GT(score(spec, of_length(10)), score(spec, of_length(50)));
  EXPECT_DOUBLE_EQ(score(spec, of_length(50)), 0.75);
  EXPECT_DOUBLE_EQ(score(spec, of_length(50, "\\boxed{41}")), -0.75);
  EXPECT_LT(score(spec, of_length(10, "\\boxed{41}")), score(spec, of_length(90, "\\boxed{41}")));
}

TEST(CosineReward, DoesNotRiseAgainBeyondItsEnd) {
  const std::string spec = R"({"name": "cosine", "max": 100})";
  EXPECT_DOUBLE_EQ(score(spec, of_length(100)), 0.5);
  EXPECT_DOUBLE_EQ(score(spec, of_length(190)), 0.5);
}

TEST(RepetitionReward, CountsRepeatedNgramsOfTokens) {
  const std::string spec = R"({"name": "repetition", "ngram": 2, "penalty": -2})";
  Completion completion = text("x");
  completion.ids = {1, 2, 1, 2, 1};  // 12 21 12 21: half of the pairs are repeated
  EXPECT_DOUBLE_EQ(score(spec, completion), -1);
  completion.ids = {1, 2, 3, 4, 5};
  EXPECT_EQ(score(spec, completion), 0);
  EXPECT_LT(score(spec, text("so so so so so so")), -1);
}

TEST(Countdown, EveryNumberIsUsedOnceAndValuesAreExact) {
  const auto verdict = [](const char* expression) {
    return std::string(judge_countdown(expression, {3, 5, 2}, 13));
  };
  for (const char* right : {"3*5-2", "(3 * 5) - 2", " 5*3-2 ", "((5*3))-2"})
    EXPECT_EQ(verdict(right), "right") << right;
  EXPECT_EQ(verdict("3*5+2"), "wrong");
  for (const char* numbers : {"13", "5*3-2+0", "3*5-1-1", "5+5+3", "3*5", "3*5-2-2+2", "35-22"})
    EXPECT_EQ(verdict(numbers), "wrong_numbers") << numbers;
  for (const char* text : {"", "3*5-", "3**5-2", "3//5*2", "3*5-2=13", "-2+3*5", "3^5", "3*5-2;", "3 5 2",
                           "(3*5-2", "3/(5-5)*2", "3*\u0035-2a", "__import__('os')", "9999999999"})
    EXPECT_EQ(verdict(text), "unreadable") << text;
  EXPECT_STREQ(judge_countdown("7/2*2", {7, 2, 2}, 7), "right");
  EXPECT_STREQ(judge_countdown("8/(3-8/3)", {8, 3, 8, 3}, 24), "right");
  EXPECT_STREQ(judge_countdown(std::string(200, '(') + "1", {1}, 1), "unreadable");
}

TEST(Countdown, IsARewardOfItsVerifier) {
  const Task one = task(R"("verifier": "countdown", "numbers": [3, 5, 2], "target": 13)");
  const RewardSet rewards = reward_set({"accuracy"});
  EXPECT_EQ(rewards.score(one, "<think>15 - 2</think><answer>3*5-2</answer>").total, 1);
  EXPECT_EQ(rewards.score(one, "<answer>13</answer>").parts[0].score.verdict, "wrong_numbers");
  EXPECT_EQ(rewards.score(one, "3*5-2").parts[0].score.verdict, "no_answer");
  const Task bad = task(R"("verifier": "countdown", "numbers": [3, "5"], "target": 13)");
  EXPECT_FALSE(rewards.score(bad, "<answer>3*5-2</answer>").scorable());
}

}  // namespace
}  // namespace hadal
