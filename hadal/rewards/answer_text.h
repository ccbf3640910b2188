// Finds the answer in what a model wrote: a box, an <answer> tag, and for evaluation also "#### x", "the
// answer is x", the last formula, the last number.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

// How much is forgiven. kReward: an answer needs an anchor (box or tag) and valid notation, since what a
// reward repairs a policy learns to write. kEvaluation: as lm-eval style graders read published outputs.
enum class AnswerProfile { kReward, kEvaluation };
AnswerProfile answer_profile(std::string_view word);  // "reward", "evaluation"; throws invalid_config

enum class AnswerStatus {
  kFound,
  kNoAnswer,             // no anchor
  kEmpty,                // an anchor with nothing in it
  kIncompleteReasoning,  // <think> is open at the end
  kSeveralAnswers,       // kReward: more than one pair of tags, or boxes that differ
  kTooLong               // more than kMaxAnswerBytes
};
const char* name(AnswerStatus status);  // "found", "no_answer", "empty" ...

inline constexpr size_t kMaxAnswerBytes = 512;

struct AnswerText {
  AnswerStatus status = AnswerStatus::kNoAnswer;
  std::string text;  // kFound: boxes joined by commas, "and" or "or" form one list
};

// What follows the last </think>; everything if there is no <think>; nothing (incomplete) if one is open.
AnswerText text_after_reasoning(std::string_view completion);

AnswerText find_answer(std::string_view completion, AnswerProfile profile);

// What kEvaluation may take for the answer, the most trusted first: the last <answer>, boxes, "#### x", what
// follows "answer is", the last formula, the last number (with `numbers`), a short text as a whole. The first
// that can be read as mathematics counts. `text` has no reasoning any more.
std::vector<std::string> answer_candidates(std::string_view text, bool numbers = true);

// Contents of <answer>...</answer> pairs, in order.
std::vector<std::string_view> answer_tags(std::string_view text);

// The last run of boxes that belong together.
AnswerText boxed_answer(std::string_view text, AnswerProfile profile);

// Contents of the outermost \boxed{} and \fbox{} with balanced braces, and where each begins and ends.
struct Box {
  size_t begin = 0, end = 0;
  std::string_view content;
};
std::vector<Box> find_boxes(std::string_view text);

// Without white space at both ends.
std::string_view trimmed(std::string_view text);

}  // namespace hadal
