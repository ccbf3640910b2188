#include "hadal/rewards/reward.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hadal/error.h"
#include "tests/support/error_of.h"

namespace hadal {
namespace {

Task math_task(const std::string& answer) {
  return parse_task(R"({"prompt": "How many?", "verifier": "math", "answer": ")" + answer + "\"}", "test");
}

std::string refusal_of(const std::vector<std::string>& specifications) {
  return error_of([&] { reward_set(specifications); });
}

constexpr const char* kRight = "<think>6 * 7</think><answer>42</answer>";

TEST(RewardSet, TotalIsTheWeightedSumOfTheParts) {
  const RewardSet rewards = reward_set({"maths:2", "format:0.25"});
  const RewardResult result = rewards.score(math_task("42"), kRight);
  EXPECT_EQ(result.total, 2.25);
  EXPECT_EQ(result.part("maths")->score.verdict, "right");
  EXPECT_EQ(rewards.score(math_task("41"), kRight).total, 0.25);
  EXPECT_EQ(rewards.score(math_task("42"), "\\boxed{42}").total, 2);
}

TEST(RewardSet, PartsThatCannotBeScoredAreLeftOut) {
  const RewardResult result = reward_set({"maths:2", "choice:5"}).score(math_task("42"), kRight);
  EXPECT_EQ(result.total, 2);
  EXPECT_TRUE(std::isnan(result.part("choice")->score.value));
}

TEST(RewardSet, ASampleWithNoPartIsUnscorableAndNotWrong) {
  EXPECT_FALSE(reward_set({"choice"}).score(math_task("42"), kRight).scorable());
  EXPECT_FALSE(reward_set({"maths"}).score(math_task(""), kRight).scorable());
}

TEST(RewardSet, APartOfWeightZeroIsWatchedAndDecidesNothing) {
  const RewardResult result = reward_set({"choice", "maths:0"}).score(math_task("42"), kRight);
  EXPECT_FALSE(result.scorable());
  EXPECT_EQ(result.part("maths")->score.verdict, "right");
}

TEST(RewardSet, ManyAreScoredAsEachAlone) {
  const RewardSet rewards =
      reward_set({"format:0.1", R"({"name": "maths", "gate": "format"})", "choice", "stop_properly:0.5"});
  const Task right = math_task("42"), wrong = math_task("41"), bad = math_task("");
  std::vector<const Task*> tasks;
  std::vector<Completion> answers;
  for (const Task* task : {&right, &wrong, &bad})
    for (const char* text : {kRight, "\\boxed{42}", ""})
      for (const bool stopped : {true, false}) {
        tasks.push_back(task), answers.push_back({.text = text, .stopped = stopped});
      }
  for (const int threads : {1, 3}) {
    const std::vector<RewardResult> all = rewards.score_all(tasks, answers, threads);
    for (size_t i = 0; i < answers.size(); ++i) {
      const RewardResult one = rewards.score(*tasks[i], answers[i]);
      EXPECT_EQ(all[i].total, one.total) << i;
      for (size_t p = 0; p < one.parts.size(); ++p)
        EXPECT_EQ(all[i].parts[p].score.verdict, one.parts[p].score.verdict) << i;
    }
  }
}

TEST(RewardSet, ErrorsOfAnyThreadAreThrown) {
  class Fails : public Reward {
    RewardScore score(const Task&, const Completion& c) const override {
      if (c.text == "3") throw Error(ErrorCode::kUnavailable, "[test] no");
      return {.value = 1};
    }
  };
  RewardKinds kinds;
  kinds["fails"] = [](const Json&) { return std::make_unique<Fails>(); };
  const Task task = math_task("1");
  const std::vector<const Task*> tasks(5, &task);
  std::vector<Completion> answers;
  for (int i = 0; i < 5; ++i) answers.push_back({.text = std::to_string(i)});
  EXPECT_THROW(reward_set({"fails"}, kinds).score_all(tasks, answers, 3), Error);
}

TEST(RewardSet, AGateTakesAccuracyFromAnswersInTheWrongForm) {
  const RewardSet rewards = reward_set({"format:0.1", R"({"name": "maths", "gate": "format"})"});
  EXPECT_EQ(rewards.score(math_task("42"), "\\boxed{42}").total, 0);
  EXPECT_DOUBLE_EQ(rewards.score(math_task("42"), kRight).total, 1.1);
}

TEST(RewardSet, StopProperlyMultipliesOrReplacesWhatWasCut) {
  Completion cut;
  cut.text = "\\boxed{42}", cut.stopped = false;
  EXPECT_EQ(reward_set({"maths", "stop_properly:0.5"}).score(math_task("42"), cut).total, 0.5);
  EXPECT_EQ(reward_set({"maths", "stop_properly:-1"}).score(math_task("42"), cut).total, -1);
  cut.stopped = true;
  EXPECT_EQ(reward_set({"maths", "stop_properly:0.5"}).score(math_task("42"), cut).total, 1);
}

TEST(RewardSet, WrongSpecificationsAreRefusedWithTheRemedy) {
  EXPECT_NE(refusal_of({"math:1"}).find("no reward \"math\" (did you mean \"maths\"?)"), std::string::npos);
  EXPECT_NE(refusal_of({"maths:much"}).find("the weight is no number"), std::string::npos);
  EXPECT_NE(refusal_of({R"({"name":"format","stile":"full"})"}).find("unknown option \"stile\""),
            std::string::npos);
  EXPECT_NE(refusal_of({R"({"name":"format","style":"ful"})"}).find("did you mean \"full\""),
            std::string::npos);
  EXPECT_NE(refusal_of({"maths", "maths"}).find("is there twice"), std::string::npos);
  EXPECT_NE(refusal_of({R"({"name":"maths","gate":"format"})", "format"}).find("is no reward before it"),
            std::string::npos);
  EXPECT_NE(refusal_of({"stop_properly:2"}).find("need at most 1"), std::string::npos);
  EXPECT_NE(refusal_of({}).find("no reward is given"), std::string::npos);
}

TEST(AnswerReward, OnlyTheLastThoughtsOutcomeCounts) {
  const RewardSet rewards = reward_set({"maths"});
  const auto verdict = [&](const char* text) { return rewards.score(math_task("42"), text).parts[0].score; };
  EXPECT_EQ(verdict("<think>\\boxed{42}</think> so \\boxed{41}").value, 0);
  EXPECT_EQ(verdict("<think>\\boxed{42}</think> that is it").verdict, "no_answer");
  EXPECT_EQ(verdict("<think>\\boxed{42}").verdict, "incomplete_reasoning");
  EXPECT_EQ(verdict("no thought, \\boxed{42}").value, 1);
}

TEST(AnswerReward, ManyAnswersAreNone) {
  const RewardSet rewards = reward_set({"maths"});
  for (const char* text :
       {"\\boxed{41}\\boxed{42}", "\\boxed{41}, or rather: \\boxed{42}",
        "<answer>41</answer><answer>42</answer>", "<answer>42</answer><answer>41</answer>",
        "<answer>41, 42</answer>", "<answer>41 or 42</answer>", "<answer>\\boxed{42} \\boxed{43}</answer>",
        "<answer></answer>", "\\boxed{}", "\\boxed{ }", "<answer>How many? 42</answer>", "42",
        "the answer is 42", "#### 42"})
    EXPECT_EQ(rewards.score(math_task("42"), text).total, 0) << text;
}

TEST(AnswerReward, APrefilledThoughtBelongsToTheCompletion) {
  const RewardSet rewards = reward_set({"maths", "format"});
  Completion completion;
  completion.prefill = "<think>\n", completion.text = "6 * 7</think>\n<answer>42</answer>";
  EXPECT_EQ(rewards.score(math_task("42"), completion).total, 2);
  completion.text = "\\boxed{42}";
  EXPECT_EQ(rewards.score(math_task("42"), completion).parts[0].score.verdict, "incomplete_reasoning");
}

TEST(AnswerReward, ChoicesAreComparedAsLetters) {
  const Task task = parse_task(R"({"prompt": "Which?", "verifier": "choice", "answer": "C"})", "test");
  const RewardSet rewards = reward_set({"accuracy"});
  for (const char* text : {"\\boxed{C}", "\\boxed{\\text{(C)}}", "<answer>c.</answer>"})
    EXPECT_EQ(rewards.score(task, text).total, 1) << text;
  for (const char* text : {"\\boxed{B}", "\\boxed{A, B, C, D}", "\\boxed{ABC}"})
    EXPECT_EQ(rewards.score(task, text).total, 0) << text;
}

TEST(FormatReward, FullFormIsOneThoughtThenOneAnswer) {
  const RewardSet rewards = reward_set({"format"});
  const Task task = math_task("42");
  for (const char* text : {kRight, "<think>\na\n</think>\n\n<answer>42</answer>\n"})
    EXPECT_EQ(rewards.score(task, text).total, 1) << text;
  for (const char* text :
       {"<think></think><answer>42</answer>", "<think> \n</think><answer>42</answer>",
        "<think>a</think><answer></answer>", "<think>a</think>so<answer>42</answer>",
        "<think>a</think><answer>42</answer> done", " <think>a</think><answer>42</answer>",
        "<think>a</think><answer>1</answer><answer>42</answer>", "<think><think>a</think><answer>42</answer>",
        "<answer>42</answer><think>a</think>", "<think>a<answer>42</answer></think>", "<answer>42</answer>",
        ""})
    EXPECT_EQ(rewards.score(task, text).total, 0) << text;
  Completion cut;
  cut.text = kRight, cut.stopped = false;
  EXPECT_EQ(rewards.score(task, cut).total, 0);
}

TEST(FormatReward, TagsAreCountedOnceEach) {
  const RewardSet rewards = reward_set({R"({"name": "format", "style": "tags"})"});
  const Task task = math_task("42");
  EXPECT_EQ(rewards.score(task, kRight).total, 1);
  EXPECT_EQ(rewards.score(task, "<think>a</think>42").total, 0.5);
  EXPECT_EQ(rewards.score(task, "<think><think>a</think>").total, 0.25);
}

TEST(FormatReward, ThinkStyleWantsAnAnswerBehindTheThought) {
  const RewardSet rewards = reward_set({R"({"name": "format", "style": "think"})"});
  const Task task = math_task("42");
  for (const char* text : {"a</think>42", "<think>a</think>42"})
    EXPECT_EQ(rewards.score(task, text).total, 1) << text;
  for (const char* text : {"</think>42", "a</think> ", "a</think>b</think>42", "a<think>b</think>42", "42"})
    EXPECT_EQ(rewards.score(task, text).total, 0) << text;
}

}  // namespace
}  // namespace hadal
