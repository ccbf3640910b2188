#include "hadal/rewards/countdown.h"

#include <algorithm>
#include <boost/multiprecision/cpp_int.hpp>
#include <nlohmann/json.hpp>
#include <optional>

#include "hadal/rewards/answer_text.h"
#include "hadal/rewards/reward_options.h"
#include "hadal/rewards/rule_rewards.h"

namespace hadal {
namespace {

using Rational = boost::multiprecision::cpp_rational;

class Expression {
 public:
  explicit Expression(std::string_view text) : text_(text) {}

  // None: not an expression, or a division by zero.
  std::optional<Rational> value() {
    if (text_.size() > 256) return std::nullopt;
    const auto sum = terms();
    blanks();
    return at_ == text_.size() ? sum : std::nullopt;
  }
  const std::vector<int64_t>& numbers() const { return numbers_; }

 private:
  void blanks() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  char take(std::string_view allowed) {
    blanks();
    if (at_ >= text_.size() || allowed.find(text_[at_]) == std::string_view::npos) return '\0';
    return text_[at_++];
  }

  std::optional<Rational> terms() {
    auto value = factors();
    while (value) {
      const char sign = take("+-");
      if (!sign) return value;
      const auto next = factors();
      if (!next) return std::nullopt;
      *value = sign == '+' ? Rational(*value + *next) : Rational(*value - *next);
    }
    return value;
  }

  std::optional<Rational> factors() {
    auto value = atom();
    while (value) {
      const char sign = take("*/");
      if (!sign) return value;
      const auto next = atom();
      if (!next || (sign == '/' && *next == 0)) return std::nullopt;
      *value = sign == '*' ? Rational(*value * *next) : Rational(*value / *next);
    }
    return value;
  }

  std::optional<Rational> atom() {
    if (take("(")) {
      if (++depth_ > 16) return std::nullopt;
      const auto inside = terms();
      --depth_;
      return take(")") ? inside : std::nullopt;
    }
    int64_t number = 0;
    size_t digits = 0;
    blanks();
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9' && ++digits <= 9)
      number = number * 10 + (text_[at_++] - '0');
    if (digits == 0 || digits > 9) return std::nullopt;
    numbers_.push_back(number);
    return Rational(number);
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  std::vector<int64_t> numbers_;
};

class CountdownReward : public Reward {
 public:
  RewardScore score(const Task& task, const Completion& completion) const override {
    if (task.verifier != "countdown") return {.verdict = "not_asked"};
    const Json& record = *task.record;
    const bool good = record.contains("numbers") && record["numbers"].is_array() &&
                      record.contains("target") && record["target"].is_number_integer() &&
                      std::all_of(record["numbers"].begin(), record["numbers"].end(),
                                  [](const Json& one) { return one.is_number_integer(); });
    if (!good) return {.verdict = "bad_reference", .detail = "countdown needs integers: numbers, target"};
    const AnswerText answer = find_answer(completion.prefill + completion.text, AnswerProfile::kReward);
    if (answer.status != AnswerStatus::kFound) return {.value = 0, .verdict = name(answer.status)};
    const std::string verdict = judge_countdown(answer.text, record["numbers"].get<std::vector<int64_t>>(),
                                                record["target"].get<int64_t>());
    return {.value = verdict == "right" ? 1.0 : 0.0, .verdict = verdict, .detail = answer.text};
  }
};

}  // namespace

const char* judge_countdown(std::string_view expression, const std::vector<int64_t>& numbers,
                            int64_t target) {
  Expression parsed(trimmed(expression));
  const auto value = parsed.value();
  if (!value) return "unreadable";
  std::vector<int64_t> used = parsed.numbers(), given = numbers;
  std::sort(used.begin(), used.end());
  std::sort(given.begin(), given.end());
  if (used != given) return "wrong_numbers";
  return *value == target ? "right" : "wrong";
}

std::unique_ptr<Reward> countdown_reward(const Json& json) {
  RewardOptions options("countdown", json);
  options.word("profile", "reward", {"reward", "evaluation"});  // the same for both
  options.end();
  return std::make_unique<CountdownReward>();
}

}  // namespace hadal
