#include "hadal/posttrain/answer_groups.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "hadal/base/check.h"
#include "hadal/base/clock.h"
#include "hadal/base/sha256.h"
#include "hadal/base/text.h"
#include "hadal/data/permutation.h"
#include "hadal/error.h"
#include "hadal/posttrain/advantages.h"

namespace hadal {
namespace {

constexpr std::string_view kAssistant = "<｜Assistant｜>";

// What stands behind the assistant's marker when it is to go on.
std::string prefill_of(const ChatTemplate& format) {
  const std::string text = format.render(std::vector<ChatMessage>{{"user", ""}});
  const size_t at = text.rfind(kAssistant);
  return at == text.npos ? "" : text.substr(at + kAssistant.size());
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double x : values) sum += x;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

double deviation_of(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double squares = 0;
  for (const double x : values) squares += (x - mean) * (x - mean);
  return values.size() < 2 ? 0 : std::sqrt(squares / static_cast<double>(values.size() - 1));
}

}  // namespace

Completion completion_of(const Sample& sample, const std::string& prefill) {
  const auto turn = static_cast<std::ptrdiff_t>(sample.turn_ids);
  Completion out{.text = sample.text.substr(sample.turn_text),
                 .ids = {sample.ids.begin() + turn, sample.ids.end()},
                 .num_tokens = sample.num_written(),
                 .stopped = sample.stopped()};
  if (sample.turn_ids == 0) out.prefill = prefill;  // it stands before the first turn
  if (sample.reason == FinishReason::kEndToken) out.ids.pop_back();
  return out;
}

std::vector<ChatMessage> messages_of(const Task& task) {
  if (!task.messages.empty()) return parse_chat_messages(task.messages, "task " + task.id);
  return {{.role = "user", .content = task.prompt}};
}

std::vector<int32_t> prompt_ids(const Task& task, const Tokenizer& tokenizer,
                                const std::optional<ChatTemplate>& format) {
  if (format) return format->encode_pieces(tokenizer, messages_of(task)).ids;
  if (task.prompt.empty())
    throw Error(ErrorCode::kInvalidArgument,
                cat("[posttrain.tasks] task ", task.id,
                    " is a chat, and the model has no chat format. Name one: --template."));
  return tokenizer.encode_prompt(task.prompt);
}

PromptTasks::PromptTasks(std::vector<Task> tasks, const Tokenizer& tokenizer,
                         const std::optional<ChatTemplate>& format, int64_t max_tokens) {
  if (format) prefill_ = prefill_of(*format);
  for (Task& task : tasks) {
    std::vector<int32_t> ids = prompt_ids(task, tokenizer, format);
    if (std::ssize(ids) > max_tokens) {
      ++too_long_;
      continue;
    }
    prompts_.push_back(std::make_shared<const std::vector<int32_t>>(std::move(ids)));
    tasks_.push_back(std::move(task));
  }
  if (tasks_.empty())
    throw Error(ErrorCode::kInvalidArgument,
                cat("[posttrain.tasks] no task has a prompt of at most ", max_tokens,
                    " tokens. Lower rollout.max_tokens or take a model with a longer context."));
}

std::string PromptTasks::fingerprint() const {
  Sha256 hash;
  for (size_t i = 0; i < tasks_.size(); ++i) {
    hash.update(cat(prompts_[i]->size(), " ", tasks_[i].verifier, " ", tasks_[i].answer, "\n"));
    hash.update(std::string_view(reinterpret_cast<const char*>(prompts_[i]->data()),
                                 prompts_[i]->size() * sizeof(int32_t)));
  }
  return hex(hash.finish());
}

int64_t PromptTasks::drawn(int64_t draw, uint64_t seed) const {
  const Permutation order(size(), seed, static_cast<uint64_t>(draw / size()));
  return order(draw % size());
}

bool ScoredAnswer::right() const {
  return std::any_of(reward.parts.begin(), reward.parts.end(),
                     [](const RewardPart& part) { return part.score.verdict == "right"; });
}

std::vector<double> AnswerGroup::rewards() const {
  std::vector<double> out;
  for (const ScoredAnswer& answer : answers) out.push_back(answer.reward.total);
  return out;
}

std::vector<ScoredAnswer> score_all(std::vector<Sample> samples, const std::vector<const Task*>& tasks,
                                    const std::string& prefill, const ScoreAnswers& score) {
  std::vector<Completion> completions;
  for (const Sample& sample : samples) completions.push_back(completion_of(sample, prefill));
  std::vector<RewardResult> rewards = score(tasks, completions);
  HADAL_CHECK(rewards.size() == samples.size()) << rewards.size() << " " << samples.size();
  std::vector<ScoredAnswer> out;
  for (size_t i = 0; i < samples.size(); ++i)
    out.push_back({.sample = std::move(samples[i]), .reward = std::move(rewards[i])});
  return out;
}

namespace {

// `count` groups of draws from `draw` on.
std::vector<AnswerGroup> sample_groups(Engine& engine, const PromptTasks& tasks, const GrpoConfig& config,
                                       const ScoreAnswers& score, const NewEpisode& episode, int64_t draw,
                                       int64_t count, GroupBatch& times) {
  const int64_t G = config.rollout.group_size;
  std::vector<SampleRequest> requests;
  std::vector<const Task*> task_of;
  for (int64_t k = 0; k < count * G; ++k) {
    const int64_t d = draw + k / G, task = tasks.drawn(d, config.run.seed);
    requests.push_back(
        {tasks.prompt(task),
         {.temperature = config.rollout.temperature, .seed = sample_seed(config.run.seed, d, k % G)},
         config.rollout.max_tokens,
         config.loss.replay_routes});
    task_of.push_back(&tasks.task(task));
  }
  const double start = now_seconds();
  std::vector<Sample> samples = sample_all(engine, requests, episode);
  const double sampled = now_seconds();
  std::vector<ScoredAnswer> answers = score_all(std::move(samples), task_of, tasks.prefill(), score);
  times.rollout_seconds += sampled - start, times.reward_seconds += now_seconds() - sampled;
  std::vector<AnswerGroup> groups;
  for (int64_t k = 0; k < count; ++k) {
    AnswerGroup group{.task = tasks.drawn(draw + k, config.run.seed), .draw = draw + k};
    for (int64_t i = 0; i < G; ++i)
      group.answers.push_back(std::move(answers[static_cast<size_t>(k * G + i)]));
    groups.push_back(std::move(group));
  }
  return groups;
}

void fill_advantages(std::vector<AnswerGroup>& groups, const GrpoConfig& config) {
  std::vector<double> rewards;
  for (const AnswerGroup& group : groups)
    for (const double r : group.rewards()) rewards.push_back(r);
  const std::vector<double> a =
      advantages(rewards, config.rollout.group_size, advantage_kind(config), config.loss.advantage_eps);
  size_t next = 0;
  for (AnswerGroup& group : groups)
    for (ScoredAnswer& answer : group.answers) answer.advantage = a[next++];
}

}  // namespace

GroupBatch collect_groups(Engine& engine, const PromptTasks& tasks, const GrpoConfig& config,
                          const ScoreAnswers& score, int64_t draw, const NewEpisode& episode) {
  GroupBatch batch;
  std::vector<AnswerGroup> equal;  // kept for the places that nothing better is found for
  batch.next_draw = draw;
  const int64_t wanted = config.rollout.prompts;
  for (int64_t round = 0; round < config.rollout.dynamic_rounds; ++round) {
    const int64_t missing = wanted - std::ssize(batch.groups);
    if (missing == 0) break;
    for (AnswerGroup& group :
         sample_groups(engine, tasks, config, score, episode, batch.next_draw, missing, batch)) {
      const bool keep = config.rollout.dynamic_rounds == 1 || group_differs(group.rewards());
      (keep ? batch.groups : equal).push_back(std::move(group));
    }
    batch.next_draw += missing;
  }
  batch.replaced = std::ssize(equal);
  while (std::ssize(batch.groups) < wanted) {
    batch.groups.push_back(std::move(equal.back()));
    equal.pop_back(), --batch.replaced;
  }
  fill_advantages(batch.groups, config);
  return batch;
}

namespace {

void add_lengths(const std::vector<AnswerGroup>& groups, ValuesRecord& into) {
  std::vector<double> all, ended;
  for (const AnswerGroup& group : groups)
    for (const ScoredAnswer& answer : group.answers) {
      all.push_back(static_cast<double>(answer.sample.num_written()));
      if (answer.sample.stopped()) ended.push_back(all.back());
    }
  const auto add = [&](const std::string& name, const std::vector<double>& x) {
    into.values.emplace_back("completions/mean_" + name, mean_of(x));
    into.values.emplace_back("completions/min_" + name,
                             x.empty() ? 0 : *std::min_element(x.begin(), x.end()));
    into.values.emplace_back("completions/max_" + name,
                             x.empty() ? 0 : *std::max_element(x.begin(), x.end()));
  };
  add("length", all), add("terminated_length", ended);
  into.values.emplace_back("completions/clipped_ratio",
                           1 - static_cast<double>(ended.size()) / static_cast<double>(all.size()));
}

void add_tools(const std::vector<AnswerGroup>& groups, ValuesRecord& into) {
  double calls = 0, failed = 0, turns = 0, answers = 0;
  for (const AnswerGroup& group : groups)
    for (const ScoredAnswer& answer : group.answers) {
      const Sample& sample = answer.sample;
      calls += static_cast<double>(sample.calls), failed += static_cast<double>(sample.failed_calls);
      turns += static_cast<double>(sample.turns), ++answers;
    }
  if (turns == 0) return;
  into.values.emplace_back("tools/call_frequency", calls / answers);
  into.values.emplace_back("tools/failure_frequency", calls > 0 ? failed / calls : 0);
  into.values.emplace_back("completions/mean_turns", turns / answers);
}

}  // namespace

void add_group_values(const std::vector<AnswerGroup>& groups, ValuesRecord& into) {
  std::vector<double> rewards, deviations, accuracy;
  std::map<std::string, std::vector<double>> parts;
  std::map<std::string, int64_t> verdicts;
  int64_t all_right = 0, all_wrong = 0, equal = 0, unscorable = 0;
  double low = 0, high = 0;
  for (const AnswerGroup& group : groups) {
    std::vector<double> own;
    int64_t right = 0;
    for (const ScoredAnswer& answer : group.answers) {
      unscorable += !answer.reward.scorable();
      if (answer.reward.scorable()) own.push_back(answer.reward.total);
      right += answer.right();
      low = std::min(low, answer.advantage), high = std::max(high, answer.advantage);
      for (const RewardPart& part : answer.reward.parts) {
        ++verdicts[part.name + "/" + part.score.verdict];
        if (!std::isnan(part.score.value)) parts[part.name].push_back(part.score.value);
      }
    }
    const auto G = std::ssize(group.answers);
    all_right += right == G, all_wrong += right == 0, equal += !group_differs(group.rewards());
    accuracy.push_back(static_cast<double>(right) / static_cast<double>(G));
    rewards.insert(rewards.end(), own.begin(), own.end());
    deviations.push_back(deviation_of(own));
  }
  const auto add = [&](const std::string& name, double value) { into.values.emplace_back(name, value); };
  const auto share = [&](int64_t n) { return static_cast<double>(n) / static_cast<double>(groups.size()); };
  add("reward", mean_of(rewards)), add("reward_std", mean_of(deviations));
  for (const auto& [name, values] : parts)
    add("rewards/" + name + "/mean", mean_of(values)), add("rewards/" + name + "/std", deviation_of(values));
  add("frac_reward_zero_std", share(equal)), add("accuracy_train", mean_of(accuracy));
  add("groups/all_right", static_cast<double>(all_right)),
      add("groups/all_wrong", static_cast<double>(all_wrong));
  add("groups/mixed", static_cast<double>(std::ssize(groups) - all_right - all_wrong));
  add("answers", static_cast<double>(deviations.size() * groups.front().answers.size()));
  add("unscorable", static_cast<double>(unscorable)), add("adv/min", low), add("adv/max", high);
  add_lengths(groups, into);
  add_tools(groups, into);
  for (const auto& [name, count] : verdicts) add("verdict/" + name, static_cast<double>(count));
}

std::string completion_line(int64_t step, const Task& task, const ScoredAnswer& answer) {
  Json parts = Json::object();
  for (const RewardPart& part : answer.reward.parts) {
    Json one = {{"value", nullptr}, {"verdict", part.score.verdict}, {"detail", part.score.detail}};
    if (!std::isnan(part.score.value)) one["value"] = part.score.value;
    parts[part.name] = one;
  }
  Json line = {{"step", step},
               {"task", task.id},
               {"prompt", task.prompt.empty() ? task.messages : task.prompt},
               {"completion", answer.sample.text},
               {"finish_reason", name(answer.sample.reason)},
               {"tokens", answer.sample.ids.size()},
               {"reward", nullptr},
               {"advantage", answer.advantage},
               {"parts", parts}};
  if (answer.reward.scorable()) line["reward"] = answer.reward.total;
  return dump_json(line);
}

ValuesRecord measure_tasks(Engine& engine, const PromptTasks& tasks, const GrpoConfig& config,
                           const ScoreAnswers& score, const NewEpisode& episode) {
  const int64_t n = std::min(tasks.size(), config.eval.tasks), k = config.eval.samples;
  std::vector<SampleRequest> requests;
  std::vector<const Task*> task_of;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t s = 0; s <= k; ++s) {
      // Negative draws: no sample of training has them.
      const SamplingParams sampling{.temperature = s == 0 ? 0 : config.eval.temperature,
                                    .seed = sample_seed(config.run.seed, -1 - i, s)};
      requests.push_back({tasks.prompt(i), sampling, config.rollout.max_tokens});
      task_of.push_back(&tasks.task(i));
    }
  const auto answers = score_all(sample_all(engine, requests, episode), task_of, tasks.prefill(), score);
  std::vector<double> greedy, sampled, reward;
  std::map<std::string, std::vector<double>> parts;  // of the greedy answers
  for (size_t i = 0; i < answers.size(); ++i) {
    const bool is_greedy = static_cast<int64_t>(i) % (k + 1) == 0;
    (is_greedy ? greedy : sampled).push_back(answers[i].right());
    if (!is_greedy) continue;
    if (answers[i].reward.scorable()) reward.push_back(answers[i].reward.total);
    for (const RewardPart& part : answers[i].reward.parts)
      if (!std::isnan(part.score.value)) parts[part.name].push_back(part.score.value);
  }
  ValuesRecord out{.kind = "rl_eval", .values = {{"accuracy/greedy", mean_of(greedy)}}};
  if (k > 0) out.values.emplace_back("accuracy/sampled", mean_of(sampled));
  out.values.emplace_back("reward/greedy", mean_of(reward));
  for (const auto& [name, values] : parts)
    out.values.emplace_back("rewards/" + name + "/mean", mean_of(values));
  out.values.emplace_back("tasks", static_cast<double>(n));
  return out;
}

}  // namespace hadal
