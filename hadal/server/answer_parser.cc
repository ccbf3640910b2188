#include "hadal/server/answer_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace hadal {
namespace {

constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>";
constexpr std::string_view kCallsBegin = "<｜tool▁calls▁begin｜>", kCallsEnd = "<｜tool▁calls▁end｜>";
constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>", kCallEnd = "<｜tool▁call▁end｜>";
constexpr std::string_view kSeparator = "<｜tool▁sep｜>";
constexpr std::string_view kBlanks = " \t\r\n";

// Bytes at the end of `text` that may be the start of `marker`.
size_t possible_start(std::string_view text, std::string_view marker) {
  for (size_t n = std::min(text.size(), marker.size() - 1); n > 0; --n)
    if (text.ends_with(marker.substr(0, n))) return n;
  return 0;
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// A call, without its begin and end markers.
std::optional<AnswerPiece> parse_call(std::string_view text) {
  const size_t separator = text.find(kSeparator);
  if (separator == std::string_view::npos) return {};
  const std::string_view before = trimmed(text.substr(0, separator));
  std::string_view after = text.substr(separator + kSeparator.size());
  AnswerPiece call{.kind = AnswerPiece::kToolCall};
  const size_t fence = after.find("```");
  // V3.1 may call a tool of the name "function", its arguments may hold a fence.
  if (before == "function" && fence != std::string_view::npos && !trimmed(after).starts_with('{')) {
    call.name = trimmed(after.substr(0, fence));
    after = after.substr(fence + 3);
    if (after.starts_with("json")) after.remove_prefix(4);
    const size_t close = after.rfind("```");
    if (close == std::string_view::npos || !trimmed(after.substr(close + 3)).empty()) return {};
    call.text = trimmed(after.substr(0, close));
  } else {
    call.name = before;
    call.text = trimmed(after);
  }
  if (call.name.empty()) return {};
  if (call.text.empty()) call.text = "{}";
  return call;
}

}  // namespace

AnswerParser::AnswerParser(const AnswerFormat& format)
    : format_(format),
      where_(!format.reasoning            ? Where::kContent
             : format.starts_in_reasoning ? Where::kReasoning
                                          : Where::kStart) {}

std::vector<AnswerPiece> AnswerParser::push(std::string_view text) {
  held_ += text;
  Pieces out;
  while (advance(out)) {
  }
  return out;
}

std::vector<AnswerPiece> AnswerParser::finish() {
  Pieces out;
  if (where_ == Where::kCalls && unsaid_.empty() && !spelled_ && trimmed(held_).empty()) held_.clear();
  held_.insert(0, std::exchange(unsaid_, {}));
  give(out, where_ == Where::kReasoning ? AnswerPiece::kReasoning : AnswerPiece::kContent, held_);
  held_.clear();
  return out;
}

bool AnswerParser::advance(Pieces& out) {
  switch (where_) {
    case Where::kStart:
      return leave_start();
    case Where::kReasoning:
      return read_part(out, AnswerPiece::kReasoning, kThinkEnd, Where::kContent);
    case Where::kContent:
      return read_part(out, AnswerPiece::kContent, format_.tools ? kCallsBegin : std::string_view(),
                       Where::kCalls);
    case Where::kCalls:
      return read_call(out);
  }
  return false;
}

bool AnswerParser::leave_start() {
  const size_t first = held_.find_first_not_of(kBlanks);
  if (first == std::string::npos) return false;
  const std::string_view text = std::string_view(held_).substr(first);
  if (text.size() < kThink.size() && kThink.starts_with(text)) return false;
  if (text.starts_with(kThink)) {
    held_.erase(0, first + kThink.size());
    where_ = Where::kReasoning;
  } else {
    where_ = Where::kContent;
    part_began_ = true;  // blanks before a plain answer are its own
  }
  return true;
}

// Gives what surely belongs to the part; past its end marker, goes on to `next`.
bool AnswerParser::read_part(Pieces& out, AnswerPiece::Kind kind, std::string_view end, Where next) {
  if (!part_began_ && format_.reasoning)
    held_.erase(0, std::min(held_.find_first_not_of(kBlanks), held_.size()));
  const size_t found = end.empty() ? std::string::npos : held_.find(end);
  const std::string_view text = std::string_view(held_).substr(0, found);
  size_t keep = 0;
  if (found == std::string::npos) {
    keep = end.empty() ? 0 : possible_start(text, end);
    const std::string_view sure = text.substr(0, text.size() - keep);
    // Blanks before the end marker go; so they wait until something follows.
    if (!end.empty()) keep = text.size() - std::min(sure.find_last_not_of(kBlanks) + 1, sure.size());
    give(out, kind, text.substr(0, text.size() - keep));
    held_.erase(0, text.size() - keep);
    return false;
  }
  const size_t last = text.find_last_not_of(kBlanks);
  give(out, kind, text.substr(0, last + 1));
  if (next == Where::kCalls) unsaid_ = held_.substr(last + 1, found + end.size() - (last + 1));
  spelled_ = false;
  held_.erase(0, found + end.size());
  where_ = next;
  part_began_ = false;
  return true;
}

bool AnswerParser::read_call(Pieces& out) {
  const size_t begin = held_.find(kCallBegin), all_end = held_.find(kCallsEnd);
  if (all_end < begin) {
    if (spelled_ || !trimmed(std::string_view(held_).substr(0, all_end)).empty())
      spell(out, all_end + kCallsEnd.size());
    else
      held_.erase(0, all_end + kCallsEnd.size());
    unsaid_.clear();
    where_ = Where::kContent;
    part_began_ = false;
    return true;
  }
  if (begin == std::string::npos) return false;
  const size_t end = held_.find(kCallEnd, begin);
  if (end == std::string::npos) return false;
  if (!trimmed(std::string_view(held_).substr(0, begin)).empty()) {  // no call, but no less written
    spell(out, begin);
    return true;
  }
  const size_t inside = begin + kCallBegin.size(), past = end + kCallEnd.size();
  std::optional<AnswerPiece> call = parse_call(std::string_view(held_).substr(inside, end - inside));
  if (!call) {
    spell(out, past);
    return true;
  }
  out.push_back(*std::move(call));
  ++num_calls_;
  unsaid_.clear();
  spelled_ = false;
  held_.erase(0, past);
  return true;
}

// Gives the first `n` bytes as they were written, behind what stood before them.
void AnswerParser::spell(Pieces& out, size_t n) {
  give(out, AnswerPiece::kContent, std::exchange(unsaid_, {}) + held_.substr(0, n));
  held_.erase(0, n);
  spelled_ = true;
}

void AnswerParser::give(Pieces& out, AnswerPiece::Kind kind, std::string_view text) {
  if (text.empty()) return;
  part_began_ = true;
  if (!out.empty() && out.back().kind == kind && kind != AnswerPiece::kToolCall)
    out.back().text += text;
  else
    out.push_back({.kind = kind, .text = std::string(text)});
}

}  // namespace hadal
