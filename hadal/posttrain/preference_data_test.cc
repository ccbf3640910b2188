#include "hadal/posttrain/preference_data.h"

#include <gtest/gtest.h>

#include "hadal/base/file.h"
#include "hadal/error.h"
#include "hadal/posttrain/judge.h"
#include "hadal/posttrain/model_rewards.h"
#include "tests/support/error_of.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

const Tokenizer& bytes() {
  static const Tokenizer tokenizer = Tokenizer::load("tests/support/byte_tokenizer");
  return tokenizer;
}

PreferenceData read(const std::string& lines, int64_t max_tokens = 100) {
  const TemporaryFolder folder;
  write_file(folder.path() / "p.jsonl", lines);
  return read_preferences(folder.path() / "p.jsonl", bytes(), std::nullopt, max_tokens);
}

std::string refused(const std::string& line) {
  return error_of([&] { read(line + "\n"); });
}

TEST(Preferences, ReasoningIsPartOfWhatIsJudged) {
  const PreferenceData data = read(
      R"({"prompt": "p", "chosen": [{"role": "assistant", "reasoning_content": "so", "content": "4"}], "rejected": "4"})"
      "\n");
  ASSERT_EQ(data.pairs.size(), 1u);
  EXPECT_EQ(data.pairs[0].chosen.size(), data.pairs[0].rejected.size() + 2);
  EXPECT_EQ(data.pairs[0].chosen.back(), *bytes().eos_id());
}

TEST(Preferences, PairsThatAreTooLongAreLeftOutAndCounted) {
  const std::string lines =
      R"({"prompt": "p", "chosen": "a", "rejected": "bb", "margin": 0.5, "domain": "x"})"
      "\n\n"
      R"({"prompt": "p", "chosen": "a", "rejected": "bbbbbbbbbb"})"
      "\n";
  const PreferenceData data = read(lines, 6);
  ASSERT_EQ(data.pairs.size(), 1u);
  EXPECT_EQ(data.dropped, 1);
  EXPECT_EQ(data.pairs[0].margin, 0.5);
  EXPECT_EQ(data.pairs[0].domain, "x");
  EXPECT_NE(read(lines, 100).fingerprint, data.fingerprint);
}

TEST(Preferences, WrongLinesAreRefusedWithTheirPlace) {
  for (const auto& [line, text] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"prompt": "p", "completion": "a"})", "hadal sft"},
           {R"({"prompt": "p", "chosen": "a", "rejected": "a"})", "are the same"},
           {R"({"prompt": "p", "chosen": [{"role": "user", "content": "a"}], "rejected": "a"})",
            "does not end with the assistant"},
           {R"({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "1"})", "margin"},
           {R"([1])", "no JSON object"}}) {
    EXPECT_NE(refused(line).find(text), std::string::npos) << line << ": " << refused(line);
    EXPECT_NE(refused(line).find("line 1"), std::string::npos);
  }
}

RewardScore verdict(const std::string& task, const std::string& answer) {
  const RewardSet set = reward_set({"verdict:1"}, reward_kinds(1));
  return set.score(parse_task(task, "test"), answer).parts[0].score;
}

TEST(VerdictReward, IsOneForTheRightVerdictAndElseMinusOne) {
  const std::string task = R"({"prompt": "p", "verifier": "verdict", "responses": 2, "best": 1})";
  EXPECT_EQ(verdict(task, "b\nScores: [3, 4]").value, 1);
  EXPECT_EQ(verdict(task, "a\nScores: [4, 3]").verdict, "wrong");
  EXPECT_EQ(verdict(task, "a\nScores: [4, 4]").value, -1);
  EXPECT_EQ(verdict(task, "Scores: [4]").verdict, "not_valid");
  const std::string match = R"({"prompt": "p", "verifier": "verdict", "match": false})";
  EXPECT_EQ(verdict(match, "Match: no").value, 1);
  EXPECT_EQ(verdict(match, "Match: yes").value, -1);
  EXPECT_EQ(verdict(R"({"prompt": "p", "verifier": "verdict"})", "Match: no").verdict, "no_label");
}

TEST(JudgeTasks, AskInBothOrdersForTheSameBest) {
  const JudgedAnswers item{.prompt = {{.role = "user", .content = "p"}}, .responses = {"a", "b"}, .best = 0};
  const std::string tasks = judge_tasks({&item, 1});
  const size_t cut = tasks.find('\n') + 1;
  EXPECT_EQ(verdict(tasks.substr(0, cut), "Scores: [4, 3]").value, 1);
  EXPECT_EQ(verdict(tasks.substr(cut), "Scores: [3, 4]").value, 1);
}

TEST(ModelRewards, NameTheirFolderAndSayWhatIsWrongWithIt) {
  const auto problem = [](const std::string& specification) {
    return error_of([&] { reward_set({specification}, reward_kinds(1)); });
  };
  EXPECT_NE(problem("rm:1").find("\"path\" is missing. Write rm:path:weight"), std::string::npos)
      << problem("rm:1");
  EXPECT_NE(problem("rm:/no/such:1").find("/no/such"), std::string::npos);
  EXPECT_NE(problem("maths:x:1").find("unknown option \"path\""), std::string::npos) << problem("maths:x:1");
}

}  // namespace
}  // namespace hadal
