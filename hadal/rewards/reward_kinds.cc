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
};

class AccuracyReward : public Reward {
 public:
  explicit AccuracyReward(const Json& options) {
    for (const Judge& judge : kJudges) judges_[judge.verifier] = judge.make(options);
  }

  RewardScore score(const Task& task, const Completion& completion) const override {
    const auto judge = judges_.find(task.verifier);
    if (judge == judges_.end()) return {.verdict = "not_asked"};
    return judge->second->score(task, completion);
  }

 private:
  std::map<std::string, std::unique_ptr<Reward>> judges_;
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
  return kinds;
}

}  // namespace hadal
