// A step's tasks, each with a group of answers and what they are worth. Torch-free.
#pragma once
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hadal/posttrain/grpo_config.h"
#include "hadal/posttrain/rollout.h"
#include "hadal/report/metrics.h"
#include "hadal/rewards/reward.h"

namespace hadal {

// What answers to tasks are worth, all of a step at once: a RewardSet's score_all, or anything of that form.
using ScoreAnswers =
    std::function<std::vector<RewardResult>(std::span<const Task* const>, std::span<const Completion>)>;

// A task's turns; a plain prompt is a user's.
std::vector<ChatMessage> messages_of(const Task& task);
// What the model is given: those turns in its chat format, else the plain prompt. Throws invalid_argument for
// a chat without a format.
std::vector<int32_t> prompt_ids(const Task& task, const Tokenizer& tokenizer,
                                const std::optional<ChatTemplate>& format);

// Tasks with their prompts as the model sees them.
class PromptTasks {
 public:
  // A plain prompt is a user's turn if there is a chat format. Tasks of more than max_tokens are left out.
  PromptTasks(std::vector<Task> tasks, const Tokenizer& tokenizer, const std::optional<ChatTemplate>& format,
              int64_t max_tokens);

  int64_t size() const { return std::ssize(tasks_); }
  int64_t too_long() const { return too_long_; }
  const Task& task(int64_t i) const { return tasks_[static_cast<size_t>(i)]; }
  const std::shared_ptr<const std::vector<int32_t>>& prompt(int64_t i) const {
    return prompts_[static_cast<size_t>(i)];
  }
  // The start of the answer that stands in every prompt, such as "<think>\n".
  const std::string& prefill() const { return prefill_; }
  // 64 hex digits of all prompts and answers.
  std::string fingerprint() const;
  // The task of draw d: each epoch holds every task once, in an order of its own.
  int64_t drawn(int64_t draw, uint64_t seed) const;

 private:
  std::vector<Task> tasks_;
  std::vector<std::shared_ptr<const std::vector<int32_t>>> prompts_;
  std::string prefill_;
  int64_t too_long_ = 0;
};

struct ScoredAnswer {
  Sample sample;
  RewardResult reward;
  double advantage = 0;
  bool right() const;  // a part of the reward says so
};

struct AnswerGroup {
  int64_t task = 0;  // of PromptTasks
  int64_t draw = 0;  // of the run
  std::vector<ScoredAnswer> answers;
  std::vector<double> rewards() const;
};

struct GroupBatch {
  std::vector<AnswerGroup> groups;
  int64_t next_draw = 0;  // the first that was not used
  int64_t replaced = 0;   // groups of equal rewards that others took the place of
  double rollout_seconds = 0, reward_seconds = 0;
};

// Samples and scores rollout.prompts groups from draw `draw` on, and fills in their advantages. With
// rollout.dynamic_rounds groups of equal rewards are replaced while there are rounds. `episode`: as of
// sample_all().
GroupBatch collect_groups(Engine& engine, const PromptTasks& tasks, const GrpoConfig& config,
                          const ScoreAnswers& score, int64_t draw, const NewEpisode& episode = {});

// An answer as rewards see it: of several turns the last one. `prefill`: what stood before the first.
Completion completion_of(const Sample& sample, const std::string& prefill);

std::vector<ScoredAnswer> score_all(std::vector<Sample> samples, const std::vector<const Task*>& tasks,
                                    const std::string& prefill, const ScoreAnswers& score);

// Of a step, under TRL's names, and ours.
void add_group_values(const std::vector<AnswerGroup>& groups, ValuesRecord& into);

// One line of completions.jsonl.
std::string completion_line(int64_t step, const Task& task, const ScoredAnswer& answer);

// Greedy answers to the first `config.eval.tasks` tasks, and sampled ones.
ValuesRecord measure_tasks(Engine& engine, const PromptTasks& tasks, const GrpoConfig& config,
                           const ScoreAnswers& score, const NewEpisode& episode = {});

}  // namespace hadal
