// What a model that judges is asked and what its words mean (DeepSeek-GRM's form: a critique, then scores).
// Torch-free.
//
// Without a reference it sees a question and answers to it, and ends with "Scores: [7, 3]", an integer from 1
// to 10 for each. With one it sees the final answer alone and ends with "Match: yes" or "Match: no".
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/tokenizer.h"

namespace hadal {

// Answers to be judged, one line of JSONL:
//   {"prompt": text or messages, "responses": [A, B, ...], "best": 0 or "scores": [7, 3]}
//   {"prompt": ..., "responses": [A], "reference": "42", "match": true}
// "critique" (optional): what a judge would write, to learn from (hadal sft).
struct JudgedAnswers {
  std::vector<ChatMessage> prompt;
  std::vector<std::string> responses;
  std::optional<std::string> reference;  // set: the mode that matches
  std::vector<int64_t> scores;           // of each response; empty: not known
  int64_t best = -1;                     // the best response; -1: not known, or none is
  std::optional<bool> match;
  std::string critique;

  bool has_label() const { return reference ? match.has_value() : best >= 0 || !scores.empty(); }
};

// Throws corrupt or invalid_argument "[posttrain.data] FILE line 3: ...".
std::vector<JudgedAnswers> read_judged(const std::filesystem::path& file);
class JsonLine;
JudgedAnswers judged_answers(const JsonLine& line);

// What is asked. Each response is a turn of its own, so that nothing in it can end it; lines in it that
// spell a verdict are taken out. `order`: the responses as shown.
std::vector<ChatMessage> judge_messages(const JudgedAnswers& answers, std::span<const int64_t> order);

// The last line that begins with "Scores:", which must hold `count` integers from 1 to 10 in brackets and
// nothing else; none: the judgement is not valid.
std::optional<std::vector<int64_t>> parse_scores(std::string_view text, int64_t count);
// The last line that begins with "Match:", which must go on with yes or no.
std::optional<bool> parse_match(std::string_view text);

struct Judgement {
  std::string text;
  std::vector<int64_t> order;   // in which the responses were shown
  std::vector<int64_t> scores;  // of the responses in their own order; empty: not valid, or the other mode
  std::optional<bool> match;
  bool valid() const { return !scores.empty() || match.has_value(); }
};
// Reads what was written about responses shown in `order`.
Judgement read_judgement(std::string text, const JudgedAnswers& answers, std::vector<int64_t> order);

// What the valid ones among some judgements say together: scores are added up, matches counted.
struct Vote {
  int64_t valid = 0;
  int64_t best = -1;                // the one response with the highest sum; -1: none, or a tie
  std::vector<double> mean_scores;  // of each response
  std::optional<bool> match;        // none: a tie, or no valid one
  double disagreement = 0;  // mean over responses of the deviation of their scores; share of the minority
};
Vote count_votes(std::span<const Judgement> judgements, const JudgedAnswers& answers);

// Does the vote say what the label says? The best response must be strictly on top; of a single response the
// mean score, rounded, must be its score.
bool is_right(const Vote& vote, const JudgedAnswers& answers);

}  // namespace hadal
