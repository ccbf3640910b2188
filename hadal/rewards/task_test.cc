#include "hadal/rewards/task.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "hadal/base/file.h"
#include "hadal/rewards/reward.h"
#include "hadal/rewards/task_maker.h"
#include "hadal/rewards/task_score.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

TEST(Task, LinesThatAreNoTasksAreRefused) {
  const auto wrong = [](const char* line, const char* part) {
    const std::string error = error_of([&] { parse_task(line, "F:1"); });
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_NE(error.find("F:1"), std::string::npos) << error;
  };
  wrong(R"({"verifier": "math"})", "no \"prompt\"");
  wrong(R"({"prompt": " ", "verifier": "math"})", "\"prompt\" is empty");
  wrong(R"({"prompt": "p", "verifier": "maht"})", "did you mean \"math\"");
  wrong(R"({"prompt": "p"})", "verifier is \"\"");
  wrong(R"({"prompt": [{"role": "assistant", "content": "x"}], "verifier": "math"})", "need user or tool");
  wrong(R"({"prompt": 3, "verifier": "math"})", "neither text nor a list");
  wrong(R"({"prompt": "p", "verifier": "math", "answer": [1]})", "\"answer\" is array");
  wrong("[]", "not a JSON object");
  wrong("{", "byte");
}

TEST(Task, Gsm8kLinesHaveTheNumberBehindTheMarkAsAnswer) {
  const Task task =
      parse_task(R"({"question": "How many?", "answer": "2+2=<<2+2=4>>4\n#### 1,004"})", "test");
  EXPECT_EQ(task.prompt, "How many?");
  EXPECT_EQ(task.answer, "1,004");
  EXPECT_EQ(reward_set({"maths"}).score(task, "\\boxed{1004}").total, 1);
}

TEST(Task, Gsm8kIsReadAsPublished) {
  const char* folder = std::getenv("HADAL_DATA");
  const std::filesystem::path path =
      std::filesystem::path(folder && *folder ? folder : "../shared/data") / "gsm8k_test.jsonl";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  const RewardSet rewards = reward_set({"maths"});
  for (const Task& task : load_tasks(path)) {
    ASSERT_EQ(rewards.score(task, "<answer>" + task.answer + "</answer>").total, 1) << task.answer;
    ASSERT_EQ(rewards.score(task, "<answer>" + task.answer + "1</answer>").total, 0) << task.answer;
  }
}

TEST(Task, OverlapOfTrainingAndHeldOutIsRefused) {
  const auto task = [](const std::string& prompt) {
    return parse_task("{\"prompt\": \"" + prompt + "\", \"verifier\": \"rm\"}", "test");
  };
  require_disjoint({task("a"), task("b")}, {task("c")});
  const std::string error = error_of([&] {
    require_disjoint({task("a"), task("How  many")}, {task("c"), task(" how many ")});
  });
  EXPECT_NE(error.find("1 of 2 held-out prompts are also trained on"), std::string::npos) << error;
}

TEST(TaskMaker, PartsNeverMeetWhateverTheSeeds) {
  for (const TaskKind& kind : task_kinds()) {
    std::set<double> train, held_out;
    for (const uint64_t seed : {1, 2}) {
      for (const Json& line : make_tasks(kind, {.count = 60, .seed = seed, .held_out = 0.3}))
        train.insert(split_position(normalised_prompt(parse_task(line.dump(), "made"))));
      for (const Json& line :
           make_tasks(kind, {.count = 60, .seed = seed, .held_out = 0.3, .held_out_part = true}))
        held_out.insert(split_position(normalised_prompt(parse_task(line.dump(), "made"))));
    }
    EXPECT_LT(*held_out.rbegin(), 0.3) << kind.name;
    EXPECT_GE(*train.begin(), 0.3) << kind.name;
  }
}

TEST(TaskMaker, ASeedGivesTheSameTasksAndAnotherSeedOthers) {
  for (const TaskKind& kind : task_kinds()) {
    const auto lines = make_tasks(kind, {.count = 20, .seed = 5});
    EXPECT_EQ(lines, make_tasks(kind, {.count = 20, .seed = 5})) << kind.name;
    EXPECT_NE(lines[0]["prompt"], make_tasks(kind, {.count = 20, .seed = 6})[0]["prompt"]) << kind.name;
  }
}

TEST(TaskMaker, DemonstrationsHaveFullMarksAndWrongDigitsHaveNone) {
  const RewardSet rewards = reward_set({"maths", "exact", "countdown", "format"});
  for (const TaskKind& kind : task_kinds()) {
    if (kind.name == std::string("needle")) continue;  // a word without tags: needle_test.cc
    for (const int64_t level : {kind.least_level, kind.default_level, kind.most_level})
      for (const Json& line :
           make_demonstrations(kind, {.count = 6, .seed = 3, .level = level, .held_out = 0})) {
        const Task task = parse_task(line.dump(), "made");
        const double whole = task.verifier == "code" ? 1 : 2;
        const std::string text = line["completion"];
        EXPECT_EQ(rewards.score(task, text).total, whole) << line;
        if (task.verifier == "code") continue;
        const std::string wrong =
            "<think>x</think><answer>" + (task.answer.empty() ? "1" : task.answer) + "9</answer>";
        EXPECT_EQ(rewards.score(task, wrong).total, 1) << wrong;
      }
  }
}

TEST(TaskMaker, MessagesAreChats) {
  const Json line = make_demonstrations(task_kind("sort"), {.count = 1, .messages = true})[0];
  EXPECT_EQ(line["prompt"][0]["role"], "user");
  EXPECT_EQ(line["completion"][0]["role"], "assistant");
  EXPECT_FALSE(parse_task(line.dump(), "made").messages.empty());
}

TEST(TaskMaker, TooFewPromptsAndUnknownLevelsAreErrors) {
  const TaskKind& kind = task_kind("addition");
  EXPECT_NE(
      error_of([&] { make_tasks(kind, {.count = 200, .level = 1}); }).find("different prompts of addition"),
      std::string::npos);
  EXPECT_NE(error_of([&] { make_tasks(kind, {.count = 1, .level = 12}); }).find("has levels 1 to 9"),
            std::string::npos);
  EXPECT_NE(error_of([] { task_kind("sorts"); }).find("did you mean \"sort\""), std::string::npos);
}

TEST(Preferences, TheChosenHasTheHigherHiddenScoreAndBothHaveReasons) {
  for (const char* kind : {"addition", "sort", "countdown", "words"})
    for (const Json& line : make_preferences(task_kind(kind), {.count = 40, .seed = 1})) {
      EXPECT_GE(line["chosen_score"].get<double>(), line["rejected_score"].get<double>() + 0.99) << line;
      EXPECT_NE(line["chosen"], line["rejected"]);
      EXPECT_FALSE(line["chosen_reasoning"].get<std::string>().empty());
      EXPECT_FALSE(line["rejected_reasoning"].get<std::string>().empty());
    }
  EXPECT_NE(
      error_of([] { make_preferences(task_kind("cpp-function"), {.count = 1}); }).find("no preferences"),
      std::string::npos);
}

// Who only compares thought and answer does not find these.
TEST(Preferences, SomeWrongAnswersAgreeWithTheirThought) {
  int64_t agree = 0;
  for (const Json& line : make_preferences(task_kind("sort-digits"), {.count = 200, .seed = 3, .level = 5}))
    for (const char* side : {"chosen", "rejected"}) {
      std::string text = line[side], answer;
      const size_t thought = text.find("</think><answer>");
      if (text.rfind("<think>", 0) != 0 || thought == std::string::npos) continue;
      for (const char c : text.substr(0, thought))
        if (c >= '0' && c <= '9') answer += answer.empty() ? std::string(1, c) : std::string{' ', c};
      agree +=
          text.substr(thought) == "</think><answer>" + answer + "</answer>" && answer != line["reference"];
    }
  EXPECT_GT(agree, 20);
}

TEST(Preferences, LengthDoesNotGiveTheChosenAway) {
  int64_t longer = 0;
  const auto lines = make_preferences(task_kind("words"), {.count = 300, .seed = 2});
  for (const Json& line : lines)
    longer += line["chosen"].get<std::string>().size() > line["rejected"].get<std::string>().size();
  EXPECT_GT(longer, 60);
  EXPECT_LT(longer, 240);
}

// --- scores

TEST(TaskScore, PassAtKIsTheGoldenOne) {
  const Json golden = parse_json(read_file(golden_dir("rl") / "expected.json"), "rl");
  for (const Json& one : golden["pass_at_k"])
    EXPECT_NEAR(pass_at_k(one["n"], one["c"], one["k"]), one["value"].get<double>(), 1e-12) << one;
}

QuestionSamples question(std::vector<double> right, std::vector<int64_t> answers) {
  return {.id = "q", .right = std::move(right), .answers = std::move(answers)};
}

TEST(TaskScore, TheCommonestAnswerDecidesAndTiesShare) {
  EXPECT_EQ(vote_at_k(question({1, 1, 0}, {0, 0, 1}), 3, 0), 1);
  EXPECT_EQ(vote_at_k(question({1, 0, 0}, {0, 1, 1}), 3, 0), 0);
  EXPECT_EQ(vote_at_k(question({1, 0}, {0, 1}), 2, 0), 0.5);
  EXPECT_EQ(vote_at_k(question({1, 0, 0}, {0, -1, -1}), 3, 0), 1);  // no answer has no vote
  EXPECT_EQ(vote_at_k(question({0, 0}, {-1, -1}), 2, 0), 0);
}

TEST(TaskScore, AVoteOfOneIsAccuracyAndSampledSubsetsAgreeWithAll) {
  const QuestionSamples one = question({1, 1, 0, 0, 0}, {0, 0, 1, 2, 1});
  EXPECT_DOUBLE_EQ(vote_at_k(one, 1, 0), 0.4);
  QuestionSamples many = question({}, {});
  for (int i = 0; i < 16; ++i) many.right.push_back(i < 7), many.answers.push_back(i < 7 ? 0 : 1 + i % 3);
  double mean = 0;
  for (uint64_t seed = 0; seed < 4; ++seed) mean += vote_at_k(many, 8, seed) / 4;  // 12,870 subsets: drawn
  EXPECT_GT(mean, 0.6);
  EXPECT_LT(mean, 1);
  EXPECT_EQ(vote_at_k(many, 16, 0), 1);
}

TEST(TaskScore, BestAtKEqualsCountingAllSubsets) {
  QuestionSamples one = question({1, 0, 1, 0, 0}, {0, 1, 0, 1, 1});
  one.scores = {2, 5, 2, 1, 2};
  double sum = 0;
  for (size_t a = 0; a < 5; ++a)
    for (size_t b = a + 1; b < 5; ++b) {
      const double x = one.scores[a], y = one.scores[b];
      sum += x > y ? one.right[a] : y > x ? one.right[b] : (one.right[a] + one.right[b]) / 2;
    }
  EXPECT_NEAR(best_at_k(one, 2), sum / 10, 1e-12);
  EXPECT_NEAR(best_at_k(one, 1), 0.4, 1e-12);
  EXPECT_NEAR(best_at_k(one, 5), 0, 1e-12);
}

TEST(TaskScore, TheErrorIsClusteredByQuestion) {
  const Estimate found = estimate({1, 0, 1, 0});
  EXPECT_EQ(found.mean, 0.5);
  EXPECT_NEAR(found.error, std::sqrt(1.0 / 3 / 4), 1e-12);
}

TEST(TaskScore, ThePairedBootstrapSeesADifferenceThatTheSpreadOfQuestionsHides) {
  std::vector<double> first, second;
  for (int i = 0; i < 100; ++i)
    first.push_back(i % 2 ? 0.9 : 0.1), second.push_back(first.back() + (i % 10 ? 0.05 : 0));
  const PairedDifference found = paired_bootstrap(first, second, 0);
  EXPECT_NEAR(found.mean, 0.045, 1e-12);
  EXPECT_GT(found.from, 0.035);
  EXPECT_LT(found.to, 0.051);
  EXPECT_EQ(paired_bootstrap(first, first, 0).to, 0);
}

TEST(TaskScore, ResultsOfDifferentQuestionsAreNotCompared) {
  const QuestionSamples a = {.id = "a", .right = {1}}, b = {.id = "b", .right = {1}};
  EXPECT_NE(error_of([&] { compare_results({a}, {b}, 0); }).find("different questions"), std::string::npos);
  TemporaryFolder folder;
  write_file(folder / "r.jsonl", "{\"id\": \"a\"}\n");
  EXPECT_NE(error_of([&] { read_task_results(folder / "r.jsonl"); }).find("r.jsonl:1: no result of a task"),
            std::string::npos);
}

}  // namespace
}  // namespace hadal
