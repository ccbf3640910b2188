#include <array>
#include <mutex>
#include <nlohmann/json.hpp>

#include "hadal/rewards/reward_options.h"
#include "hadal/rewards/rule_rewards.h"

namespace hadal {
namespace {

// Verifier of a task, and the reward that judges it.
struct Judge {
  const char* verifier;
  const char* reward;
  std::unique_ptr<Reward> (*make)(const Json& options);
};
constexpr Judge kJudges[] = {
    {"math", "maths", maths_reward},
    {"choice", "choice", choice_reward},
    {"exact", "exact", exact_reward},
    {"code", "code", code_reward},
    {"countdown", "countdown", countdown_reward},
};

// Each judge is made when the first task asks for it: who has no task with code needs no sandbox.
class AccuracyReward : public Reward {
 public:
  explicit AccuracyReward(Json profile) : profile_(std::move(profile)) {}

  RewardScore score(const Task& task, const Completion& completion) const override {
    for (size_t i = 0; i < std::size(kJudges); ++i) {
      if (task.verifier != kJudges[i].verifier) continue;
      std::call_once(made_[i], [&] {
        judges_[i] = kJudges[i].make(task.verifier == "code" ? Json::object() : profile_);
      });
      return judges_[i]->score(task, completion);
    }
    return {.verdict = "not_asked"};
  }

 private:
  Json profile_;
  mutable std::array<std::once_flag, std::size(kJudges)> made_;
  mutable std::array<std::unique_ptr<Reward>, std::size(kJudges)> judges_;
};

}  // namespace

std::unique_ptr<Reward> accuracy_reward(const Json& json) {
  RewardOptions options("accuracy", json);
  options.word("profile", "reward", {"reward", "evaluation"});
  options.end();
  return std::make_unique<AccuracyReward>(json);
}

RewardKinds builtin_reward_kinds() {
  RewardKinds kinds;
  for (const Judge& judge : kJudges) kinds[judge.reward] = judge.make;
  kinds["accuracy"] = accuracy_reward;
  kinds["format"] = format_reward;
  kinds["language"] = language_reward;
  kinds["overlong"] = overlong_reward;
  kinds["cosine"] = cosine_reward;
  kinds["repetition"] = repetition_reward;
  return kinds;
}

}  // namespace hadal
