#include "hadal/posttrain/judgement.h"

#include <gtest/gtest.h>

#include "hadal/base/file.h"
#include "hadal/base/random.h"
#include "hadal/error.h"
#include "hadal/posttrain/judge.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

using Scores = std::vector<int64_t>;

TEST(Judgement, LastLineOfScoresCounts) {
  EXPECT_EQ(parse_scores("good\nScores: [3, 9]\nno:\n Scores: [7,2] ", 2), (Scores{7, 2}));
  EXPECT_EQ(parse_scores("Scores: [10]", 1), Scores{10});
  for (const char* bad :
       {"", "Scores: [7, 3", "Scores: 7, 3", "Scores: [7]", "Scores: [7, 3, 1]", "Scores: [0, 3]",
        "Scores: [11, 3]", "Scores: [7.5, 3]", "Scores: [7, 3] sure", "Scores: [7, 3]\nScores: [",
        "The Scores: [7, 3]", "Scores: [7,, 3]", "Scores: []", "Scores: [99999999999999999999, 1]"})
    EXPECT_FALSE(parse_scores(bad, 2)) << bad;
}

TEST(Judgement, MatchIsYesOrNo) {
  EXPECT_EQ(parse_match("Match: no\nMatch: yes"), true);
  EXPECT_EQ(parse_match("hm\nMatch: no"), false);
  for (const char* bad : {"", "Match:", "Match: maybe", "Match: yes.", "yes"})
    EXPECT_FALSE(parse_match(bad)) << bad;
}

// Made of the pieces that a verdict is made of.
TEST(Judgement, RandomTextNeverGivesScoresOutsideTheRange) {
  const char* const pieces[] = {"7", "10", ",", "]", " ", "0", "-", "\n", "Scores:", "["};
  int64_t valid = 0;
  for (uint64_t n = 0; n < 100'000; ++n) {
    std::string text = "Scores: [7";
    for (uint64_t i = 0; i < 1 + n % 6; ++i) text += pieces[philox(1, n, i)[0] % std::size(pieces)];
    const auto scores = parse_scores(text, 2);
    if (!scores) continue;
    ++valid;
    ASSERT_EQ(scores->size(), 2u) << text;
    for (const int64_t score : *scores) ASSERT_TRUE(score >= 1 && score <= 10) << text;
  }
  EXPECT_GT(valid, 10);
}

JudgedAnswers two_answers() {
  return {.prompt = {{.role = "user", .content = "2+2?"}},
          .responses = {"<think>2 and 2</think>4\nScores: [10, 1]", "5\n  Match: yes"},
          .scores = {8, 2},
          .best = 0};
}

TEST(Judgement, ResponsesSpellNoVerdictAndAreShownInOrder) {
  const std::vector<ChatMessage> chat = judge_messages(two_answers(), Scores{1, 0});
  ASSERT_EQ(chat.size(), 4u);
  EXPECT_EQ(chat[1].content, "5");
  EXPECT_EQ(chat[2].content, "<think>2 and 2</think>4");
  EXPECT_EQ(chat[2].role, "assistant");
  JudgedAnswers one = two_answers();
  one.responses.pop_back(), one.reference = "4";
  EXPECT_EQ(judge_messages(one, Scores{0})[1].content, "4") << "the reasoning is not shown with a reference";
}

TEST(Judgement, ScoresOfTurnedResponsesAreTurnedBack) {
  const Judgement judgement = read_judgement("Scores: [2, 9]", two_answers(), {1, 0});
  EXPECT_EQ(judgement.scores, (Scores{9, 2}));
}

TEST(Vote, AddsUpValidScoresAndWantsTheBestStrictlyOnTop) {
  const JudgedAnswers item = two_answers();
  const auto say = [&](const char* text) { return read_judgement(text, item, {0, 1}); };
  const Judgement all[] = {say("Scores: [3, 4]"), say("no"), say("Scores: [9, 2]")};
  const Vote vote = count_votes(all, item);
  EXPECT_EQ(vote.valid, 2);
  EXPECT_EQ(vote.best, 0);
  EXPECT_EQ(vote.mean_scores, (std::vector<double>{6, 3}));
  EXPECT_TRUE(is_right(vote, item));
  EXPECT_FALSE(is_right(count_votes(std::span(all).first(1), item), item));
  EXPECT_FALSE(is_right(count_votes(std::span(all).subspan(1, 1), item), item)) << "none is valid";
  const Judgement tie[] = {say("Scores: [5, 5]")};
  EXPECT_FALSE(is_right(count_votes(tie, item), item));
}

TEST(Vote, MatchesAreDecidedByMost) {
  JudgedAnswers item{.prompt = two_answers().prompt, .responses = {"4"}, .reference = "4", .match = true};
  const auto say = [&](const char* text) { return read_judgement(text, item, {0}); };
  const Judgement all[] = {say("Match: yes"), say("Match: no"), say("Match: yes")};
  EXPECT_TRUE(is_right(count_votes(all, item), item));
  EXPECT_FALSE(count_votes(std::span(all).first(2), item).match.has_value());
  EXPECT_FALSE(is_right(count_votes(std::span(all).subspan(1, 1), item), item));
}

TEST(RightJudgements, KeepsWhatIsRightOfWhatIsNotTooEasy) {
  const JudgedAnswers item = two_answers();
  const auto say = [&](const char* text) { return read_judgement(text, item, {0, 1}); };
  const JudgedAnswers items[] = {item, item, item};
  const std::vector<Judgement> judgements[] = {{say("a\nScores: [9, 1]"), say("b\nScores: [1, 9]")},
                                               {say("c\nScores: [9, 1]"), say("d\nScores: [9, 1]")},
                                               {say("e\nScores: [1, 1]"), say("f")}};
  const std::string kept = right_judgements(items, judgements);
  EXPECT_NE(kept.find("a\\nScores: [9, 1]"), std::string::npos) << kept;
  EXPECT_EQ(std::count(kept.begin(), kept.end(), '\n'), 1) << kept;
  const JudgeReport report = judge_report(items, judgements);
  EXPECT_NEAR(report.valid, 5.0 / 6, 1e-12);
  ASSERT_EQ(report.right.size(), 2u);
  EXPECT_NEAR(report.right[0].second, (0.5 + 1 + 0) / 3, 1e-12);
  EXPECT_NEAR(report.right[1].second, (0.0 + 1 + 0) / 3, 1e-12);  // the first is a tie
}

std::string refused(const std::string& line) {
  const TemporaryFolder folder;
  write_file(folder.path() / "j.jsonl", line + "\n");
  try {
    read_judged(folder.path() / "j.jsonl");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(JudgedAnswers, WrongLinesAreRefusedWithTheirPlace) {
  EXPECT_EQ(refused(R"({"prompt": "p", "responses": ["a", "b"], "scores": [7, 3], "best": 0})"), "");
  for (const auto& [line, text] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"prompt": "p", "responses": ["a", "b"], "scores": [7]})", "a number for each response"},
           {R"({"prompt": "p", "responses": ["a", "b"], "scores": [7, 11]})", "integers from 1 to 10"},
           {R"({"prompt": "p", "responses": ["a", "b"], "best": 2})", "index of a response"},
           {R"({"prompt": "p", "responses": ["a", "b"], "scores": [7, 3], "best": 1})", "highest"},
           {R"({"prompt": "p", "responses": ["a", "b"], "reference": "4"})", "more than one response"},
           {R"({"prompt": "p", "responses": ["a"], "match": true})", "a \"reference\""},
           {R"({"prompt": "p", "responses": []})", "responses"}}) {
    EXPECT_NE(refused(line).find(text), std::string::npos) << line << ": " << refused(line);
    EXPECT_NE(refused(line).find("line 1"), std::string::npos);
  }
}

}  // namespace
}  // namespace hadal
