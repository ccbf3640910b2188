// Rewards by rule: what an answer to a task is worth, in named parts with weights. docs/rewards.md tells what
// each part means and how to add one. Torch-free; scoring is const, thread-safe and bounded in time by
// budgets of operations, not by signals.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/rewards/task.h"

namespace hadal {

// What a policy wrote.
struct Completion {
  std::string text;          // without the prompt, without the end token
  std::vector<int32_t> ids;  // the same as tokens; empty: not known (repetition then counts words)
  int64_t num_tokens = 0;    // sampled ones, the end token counted; 0: ids.size()
  bool stopped = true;       // ended by itself; false: cut by a limit
  std::string prefill;       // the start of the answer that stood in the prompt already, such as "<think>\n"
};

// A part that cannot be scored: a bad reference, another kind of task, a fault of the sandbox. Never the
// policy's failure, which is 0 or less.
inline constexpr double kUnscorable = std::numeric_limits<double>::quiet_NaN();

struct RewardScore {
  double value = kUnscorable;  // what the range is, each reward says
  std::string verdict;         // one word for counting: "right", "wrong", "no_answer", "too_large" ...
  std::string detail;          // for people, may be empty
};

// A program that is tried in a box waits for the kernel two thirds of its time.
constexpr int kAnswersPerThread = 4;

class Reward {
 public:
  virtual ~Reward() = default;
  virtual RewardScore score(const Task& task, const Completion& completion) const = 0;
  // The scores of many, in their order. Here one by one, kAnswersPerThread at a time for each of `threads`; a
  // reward to which many cost less than each alone overrides it. Throws what score() throws.
  virtual std::vector<RewardScore> score_all(std::span<const Task* const> tasks,
                                             std::span<const Completion> completions, int threads) const;
};

// Makes a reward from its JSON options (without name, weight and gate). Throws invalid_config for an option
// it does not know.
using RewardMaker = std::function<std::unique_ptr<Reward>(const Json& options)>;
using RewardKinds = std::map<std::string, RewardMaker>;

// The rewards hadal has, by name. A caller that has more (a model's score) adds them to its copy.
RewardKinds builtin_reward_kinds();

struct RewardPart {
  std::string name;
  double weight = 1;
  RewardScore score;
};

// What one completion got. total: sum of weight · value over the parts that are not NaN (TRL's nansum); NaN
// if all are, those of weight 0 aside, and then the sample is unscorable: it takes part in no baseline and
// trains nothing.
struct RewardResult {
  double total = kUnscorable;
  std::vector<RewardPart> parts;  // in the order of the specification

  bool scorable() const { return total == total; }
  const RewardPart* part(std::string_view name) const;  // null: none of that name
};

class RewardSet {
 public:
  RewardResult score(const Task& task, const Completion& completion) const;
  RewardResult score(const Task& task, std::string_view text) const;  // stopped by itself, no prefill
  std::vector<RewardResult> score_all(std::span<const Task* const> tasks,
                                      std::span<const Completion> completions, int threads) const;
  std::vector<std::string> names() const;

 private:
  friend RewardSet reward_set(const std::vector<std::string>&, const RewardKinds&);
  struct Entry {
    std::string name;
    double weight = 1;
    std::string gate;  // this part counts as 0 unless the part of that name has at least 1; "": no gate
    std::shared_ptr<const Reward> reward;
  };
  RewardResult combined(std::vector<RewardScore> scores, bool stopped) const;
  std::vector<Entry> entries_;
  double cut_factor_ = 1;  // see "stop_properly"
};

// Each specification is "name", "name:weight", "name:path:weight" (of a reward with the option "path") or a
// JSON object {"name", "weight", "gate", options of the reward}. Besides rewards there is "stop_properly:c",
// which acts on the total of answers that were cut by a limit: 0 <= c <= 1 multiplies it, c < 0 takes its
// place. Throws invalid_config naming what is wrong.
RewardSet reward_set(const std::vector<std::string>& specifications,
                     const RewardKinds& kinds = builtin_reward_kinds());

}  // namespace hadal
