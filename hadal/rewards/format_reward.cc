// Was the form kept? R1's tags, DeepSeek-R1 report 2.2.2.
#include "hadal/rewards/answer_text.h"
#include "hadal/rewards/reward_options.h"
#include "hadal/rewards/rule_rewards.h"

namespace hadal {
namespace {

constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>", kAnswer = "<answer>",
                           kAnswerEnd = "</answer>";

int64_t count(std::string_view text, std::string_view what) {
  int64_t n = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string_view::npos; at += what.size()) ++n;
  return n;
}

// <think>R</think> <answer>A</answer> and nothing else; R and A not empty, each tag once. "" or what is
// wrong.
std::string full_fault(std::string_view text) {
  for (const std::string_view tag : {kThink, kThinkEnd, kAnswer, kAnswerEnd})
    if (const int64_t n = count(text, tag); n != 1) return cat(tag, " occurs ", n, " times");
  if (text.substr(0, kThink.size()) != kThink) return "does not begin with <think>";
  const size_t think_end = text.find(kThinkEnd), answer = text.find(kAnswer), end = text.find(kAnswerEnd);
  if (think_end > answer || answer > end) return "tags out of order";
  if (trimmed(text.substr(kThink.size(), think_end - kThink.size())).empty()) return "empty thought";
  const size_t between = think_end + kThinkEnd.size(), inside = answer + kAnswer.size();
  if (!trimmed(text.substr(between, answer - between)).empty()) return "text between thought and answer";
  if (trimmed(text.substr(inside, end - inside)).empty()) return "empty answer";
  return trimmed(text.substr(end + kAnswerEnd.size())).empty() ? "" : "text behind the answer";
}

// One </think>, a thought before it, something behind it; R1 as served.
std::string think_fault(std::string_view text) {
  if (const int64_t n = count(text, kThinkEnd); n != 1) return cat("</think> occurs ", n, " times");
  if (const int64_t n = count(text, kThink); n > 1) return cat("<think> occurs ", n, " times");
  const size_t end = text.find(kThinkEnd);
  std::string_view thought = text.substr(0, end);
  if (const size_t open = text.find(kThink); open != std::string_view::npos) {
    if (open != 0) return "does not begin with <think>";
    thought.remove_prefix(kThink.size());
  }
  if (trimmed(thought).empty()) return "empty thought";
  return trimmed(text.substr(end + kThinkEnd.size())).empty() ? "nothing behind the thought" : "";
}

class FormatReward : public Reward {
 public:
  explicit FormatReward(std::string style) : style_(std::move(style)) {}

  RewardScore score(const Task&, const Completion& completion) const override {
    const std::string text = completion.prefill + completion.text;
    if (style_ == "tags") return tags(text);
    if (!completion.stopped) return {.value = 0, .verdict = "cut"};
    std::string fault = style_ == "full" ? full_fault(text) : think_fault(text);
    const bool kept = fault.empty();
    return {.value = kept ? 1.0 : 0.0, .verdict = kept ? "kept" : "broken", .detail = std::move(fault)};
  }

 private:
  static RewardScore tags(std::string_view text) {
    double sum = 0;
    for (const std::string_view tag : {kThink, kThinkEnd, kAnswer, kAnswerEnd}) sum += count(text, tag) == 1;
    return {.value = sum / 4, .verdict = sum == 4 ? "kept" : "broken"};
  }

  std::string style_;
};

}  // namespace

std::unique_ptr<Reward> format_reward(const Json& json) {
  RewardOptions options("format", json);
  const std::string style = options.word("style", "full", {"full", "think", "tags"});
  options.end();
  return std::make_unique<FormatReward>(style);
}

}  // namespace hadal
