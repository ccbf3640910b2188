// Rewards that compare an answer with the task's reference.
#include <cctype>

#include "hadal/rewards/answer_text.h"
#include "hadal/rewards/math_answer.h"
#include "hadal/rewards/reward_options.h"
#include "hadal/rewards/rule_rewards.h"

namespace hadal {
namespace {

// Without the words' case, blanks and what one puts around a letter: "(C).", "\text{C}" -> "c".
std::string bare_choice(std::string_view text) {
  std::string bare;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {  // a command such as \text goes
      while (i + 1 < text.size() && std::isalpha(static_cast<unsigned char>(text[i + 1]))) ++i;
    } else if (std::isalnum(static_cast<unsigned char>(text[i]))) {
      bare += static_cast<char>(std::tolower(static_cast<unsigned char>(text[i])));
    }
  }
  return bare;
}

// Runs of white space as one blank, none at the ends.
std::string plain_words(std::string_view text) {
  std::string words;
  for (const char c : trimmed(text)) {
    const bool blank = std::isspace(static_cast<unsigned char>(c)) != 0;
    if (!blank) words += c;
    if (blank && words.back() != ' ') words += ' ';
  }
  return words;
}

RewardScore right_or_wrong(bool right, std::string detail) {
  return {.value = right ? 1.0 : 0.0, .verdict = right ? "right" : "wrong", .detail = std::move(detail)};
}

// What all of them share: the task's verifier, the answer found or the reason why none.
class AnswerReward : public Reward {
 public:
  AnswerReward(const char* verifier, AnswerProfile profile) : verifier_(verifier), profile_(profile) {}

  RewardScore score(const Task& task, const Completion& completion) const final {
    if (task.verifier != verifier_) return {.verdict = "not_asked"};
    if (trimmed(task.answer).empty()) return {.verdict = "bad_reference", .detail = "the task has no answer"};
    const AnswerText answer = find(completion.prefill + completion.text);
    if (answer.status != AnswerStatus::kFound) return {.value = 0, .verdict = name(answer.status)};
    return judge(task, answer.text);
  }

 private:
  virtual AnswerText find(std::string_view text) const { return find_answer(text, profile_); }
  virtual RewardScore judge(const Task& task, const std::string& answer) const = 0;

  const char* verifier_;
  AnswerProfile profile_;
};

// Of what an evaluation may take for the answer the first that is mathematics.
AnswerText readable_answer(std::string_view completion) {
  const AnswerText rest = text_after_reasoning(completion);
  if (rest.status != AnswerStatus::kFound) return rest;
  const std::string answer = first_readable(answer_candidates(rest.text));
  return answer.empty() ? AnswerText{} : AnswerText{.status = AnswerStatus::kFound, .text = answer};
}

class MathsReward : public AnswerReward {
 public:
  explicit MathsReward(const MathOptions& options)
      : AnswerReward("math", options.profile), options_(options) {}

 private:
  AnswerText find(std::string_view text) const override {
    return options_.profile == AnswerProfile::kReward ? find_answer(text, options_.profile)
                                                      : readable_answer(text);
  }
  RewardScore judge(const Task& task, const std::string& answer) const override {
    const MathVerdict verdict = judge_math(task.answer, answer, options_);
    if (verdict == MathVerdict::kBadReference)
      return {.verdict = name(verdict), .detail = "cannot read the reference " + task.answer};
    return {.value = verdict == MathVerdict::kRight ? 1.0 : 0.0, .verdict = name(verdict), .detail = answer};
  }
  MathOptions options_;
};

class ChoiceReward : public AnswerReward {
 public:
  using AnswerReward::AnswerReward;

 private:
  RewardScore judge(const Task& task, const std::string& answer) const override {
    return right_or_wrong(bare_choice(answer) == bare_choice(task.answer), answer);
  }
};

class ExactReward : public AnswerReward {
 public:
  using AnswerReward::AnswerReward;

 private:
  RewardScore judge(const Task& task, const std::string& answer) const override {
    return right_or_wrong(plain_words(answer) == plain_words(task.answer), answer);
  }
};

AnswerProfile profile_option(RewardOptions& options) {
  return answer_profile(options.word("profile", "reward", {"reward", "evaluation"}));
}

template <class Judge>
std::unique_ptr<Reward> make_judge(const char* name, const char* verifier, const Json& json) {
  RewardOptions options(name, json);
  const AnswerProfile profile = profile_option(options);
  options.end();
  return std::make_unique<Judge>(verifier, profile);
}

}  // namespace

std::unique_ptr<Reward> maths_reward(const Json& json) {
  RewardOptions options("maths", json);
  MathOptions math{.profile = profile_option(options)};
  math.places = static_cast<int>(options.number("places", 6, 1, 15));
  options.end();
  return std::make_unique<MathsReward>(math);
}

std::unique_ptr<Reward> choice_reward(const Json& json) {
  return make_judge<ChoiceReward>("choice", "choice", json);
}

std::unique_ptr<Reward> exact_reward(const Json& json) {
  return make_judge<ExactReward>("exact", "exact", json);
}

}  // namespace hadal
