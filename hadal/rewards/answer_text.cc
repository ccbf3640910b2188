#include "hadal/rewards/answer_text.h"

#include <algorithm>
#include <cctype>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr size_t kMostBoxes = 64;  // of one completion; more is no answer
constexpr size_t kWidestGap = 48;  // bytes between boxes that form one list

}  // namespace

std::vector<std::string_view> answer_tags(std::string_view text) {
  constexpr std::string_view open = "<answer>", close = "</answer>";
  std::vector<std::string_view> found;
  for (size_t at = 0; (at = text.find(open, at)) != std::string_view::npos;) {
    const size_t begin = at + open.size(), end = text.find(close, begin);
    if (end == std::string_view::npos) break;
    found.push_back(text.substr(begin, end - begin));
    at = end + close.size();
  }
  return found;
}

namespace {

// For each {: the offset behind the } that closes it; elsewhere, and if there is none, 0. A backslash makes
// the next byte plain. One pass, so that no text takes quadratic time.
std::vector<size_t> brace_ends(std::string_view text) {
  std::vector<size_t> ends(text.size(), 0), open;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '{') {
      open.push_back(i);
    } else if (text[i] == '}' && !open.empty()) {
      ends[open.back()] = i + 1;
      open.pop_back();
    }
  }
  return ends;
}

void erase_all(std::string& text, std::string_view what) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos;) text.erase(at, what.size());
}

// What stands between two boxes without the marks of formulas: "\) and \(" -> "and".
std::string bare_gap(std::string_view gap) {
  std::string bare(gap);
  for (const char* mark :
       {"\\text", "\\quad", "\\qquad", "\\(", "\\)", "\\[", "\\]", "\\,", "\\;", "\\ ", "$", "{", "}", "~"})
    erase_all(bare, mark);
  return std::string(trimmed(bare));
}

bool has_word(std::string_view text, std::string_view word) {
  for (size_t at = 0; (at = text.find(word, at)) != std::string_view::npos; ++at) {
    const size_t end = at + word.size();
    const bool starts = at == 0 || !std::isalpha(static_cast<unsigned char>(text[at - 1]));
    if (starts && (end == text.size() || !std::isalpha(static_cast<unsigned char>(text[end])))) return true;
  }
  return false;
}

// Are two boxes with this between them one list?
bool joins(std::string_view gap, AnswerProfile profile) {
  if (gap.size() > kWidestGap) return false;
  const std::string bare = bare_gap(gap);
  if (profile == AnswerProfile::kReward) {
    for (const char* joiner : {"", ",", ";", "and", "or", ", and", ", or"})
      if (bare == joiner) return true;
    return false;
  }
  const bool letters =
      std::any_of(bare.begin(), bare.end(), [](unsigned char c) { return std::isalpha(c) != 0; });
  return !letters || has_word(bare, "and") || has_word(bare, "or") || bare[0] == ',';
}

AnswerText found(std::string_view text) {
  const std::string_view content = trimmed(text);
  if (content.empty()) return {.status = AnswerStatus::kEmpty};
  if (content.size() > kMaxAnswerBytes) return {.status = AnswerStatus::kTooLong};
  return {.status = AnswerStatus::kFound, .text = std::string(content)};
}

}  // namespace

AnswerText boxed_answer(std::string_view text, AnswerProfile profile) {
  const std::vector<Box> boxes = find_boxes(text);
  if (boxes.empty()) return {.status = AnswerStatus::kNoAnswer};
  if (boxes.size() > kMostBoxes) return {.status = AnswerStatus::kSeveralAnswers};
  std::vector<std::string> runs;
  for (size_t i = 0; i < boxes.size(); ++i) {
    const std::string content(trimmed(boxes[i].content));
    if (i > 0 && joins(text.substr(boxes[i - 1].end, boxes[i].begin - boxes[i - 1].end), profile)) {
      runs.back() += ", " + content;
    } else {
      runs.push_back(content);
    }
  }
  if (profile == AnswerProfile::kReward)
    for (const std::string& run : runs)
      if (run != runs.back()) return {.status = AnswerStatus::kSeveralAnswers};
  return found(runs.back());
}

namespace {

AnswerText reward_answer(std::string_view text) {
  const std::vector<std::string_view> tags = answer_tags(text);
  if (tags.size() > 1) return {.status = AnswerStatus::kSeveralAnswers};
  if (tags.empty()) return boxed_answer(text, AnswerProfile::kReward);
  const AnswerText boxed = boxed_answer(tags[0], AnswerProfile::kReward);
  return boxed.status == AnswerStatus::kNoAnswer ? found(tags[0]) : boxed;
}

}  // namespace

AnswerProfile answer_profile(std::string_view word) {
  if (word == "reward") return AnswerProfile::kReward;
  if (word == "evaluation") return AnswerProfile::kEvaluation;
  throw Error(ErrorCode::kInvalidConfig,
              cat("[rewards.answer] profile is \"", word, "\", need reward or evaluation."));
}

const char* name(AnswerStatus status) {
  switch (status) {
    case AnswerStatus::kFound:
      return "found";
    case AnswerStatus::kNoAnswer:
      return "no_answer";
    case AnswerStatus::kEmpty:
      return "empty";
    case AnswerStatus::kIncompleteReasoning:
      return "incomplete_reasoning";
    case AnswerStatus::kSeveralAnswers:
      return "several_answers";
    case AnswerStatus::kTooLong:
      return "too_long";
  }
  return "?";
}

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::vector<Box> find_boxes(std::string_view text) {
  std::vector<Box> boxes;
  const std::vector<size_t> ends = brace_ends(text);
  for (size_t at = 0; (at = text.find('\\', at)) != std::string_view::npos && boxes.size() <= kMostBoxes;) {
    const size_t word = text.substr(at + 1, 5) == "boxed" ? 5 : text.substr(at + 1, 4) == "fbox" ? 4 : 0;
    size_t open = at + 1 + word;
    while (word && open < text.size() && text[open] == ' ') ++open;
    if (!word || open >= text.size() || ends[open] == 0) {
      ++at;
      continue;
    }
    boxes.push_back(
        {.begin = at, .end = ends[open], .content = text.substr(open + 1, ends[open] - open - 2)});
    at = ends[open];
  }
  return boxes;
}

AnswerText text_after_reasoning(std::string_view completion) {
  constexpr std::string_view kOpen = "<think>", kClose = "</think>";
  const size_t close = completion.rfind(kClose), open = completion.rfind(kOpen);
  if (open != std::string_view::npos && (close == std::string_view::npos || open > close))
    return {.status = AnswerStatus::kIncompleteReasoning};
  const size_t begin = close == std::string_view::npos ? 0 : close + kClose.size();
  return {.status = AnswerStatus::kFound, .text = std::string(completion.substr(begin))};
}

AnswerText find_answer(std::string_view completion, AnswerProfile profile) {
  const AnswerText rest = text_after_reasoning(completion);
  if (rest.status != AnswerStatus::kFound) return rest;
  if (profile == AnswerProfile::kReward) return reward_answer(rest.text);
  const std::vector<std::string> candidates = answer_candidates(rest.text);
  return candidates.empty() ? AnswerText{} : found(candidates.front());
}

}  // namespace hadal
