#include "hadal/posttrain/model_rewards.h"

#include <cmath>
#include <map>
#include <mutex>

#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/posttrain/chat_data.h"
#include "hadal/posttrain/judge.h"
#include "hadal/posttrain/preference_data.h"
#include "hadal/posttrain/reward_model.h"
#include "hadal/rewards/reward_options.h"

namespace hadal {
namespace {

std::vector<ChatMessage> prompt_messages(const Task& task) {
  if (task.messages.empty()) return {{.role = "user", .content = task.prompt}};
  return parse_chat_messages(task.messages, "task " + task.id);
}

// One that scores many answers together.
class ModelReward : public Reward {
 public:
  RewardScore score(const Task& task, const Completion& completion) const override {
    const Task* const tasks[] = {&task};
    return score_all(tasks, {&completion, 1}, 1)[0];
  }
};

class ScalarReward : public ModelReward {
 public:
  ScalarReward(const Json& json, int threads) {
    RewardOptions options("rm", json);
    const std::string path = options.text("path");
    normalise_ = options.number("normalise", 1, 0, 1) > 0;
    options.end();
    model_.emplace(RewardModel::open(path, threads));
  }

  // Equal answers are scored once, the others together.
  std::vector<RewardScore> score_all(std::span<const Task* const> tasks,
                                     std::span<const Completion> completions, int) const override {
    constexpr size_t kTooLong = SIZE_MAX;
    std::map<std::vector<int32_t>, size_t> place;
    std::vector<std::vector<int32_t>> asked;
    std::vector<size_t> place_of;
    for (size_t i = 0; i < completions.size(); ++i) {
      std::vector<int32_t> ids = exchange(*tasks[i], completions[i]);
      const bool fits = std::ssize(ids) <= model_->config().max_positions;
      place_of.push_back(fits ? place.try_emplace(ids, asked.size()).first->second : kTooLong);
      if (place_of.back() == asked.size()) asked.push_back(std::move(ids));
    }
    const std::lock_guard lock(mutex_);
    const std::vector<double> scores = model_->score(asked);
    std::vector<RewardScore> out;
    for (const size_t at : place_of) {
      if (at == kTooLong)
        out.push_back({.verdict = "too_long"});
      else
        out.push_back(
            {.value = normalise_ ? model_->normalised(scores[at]) : scores[at], .verdict = "scored"});
    }
    return out;
  }

 private:
  std::vector<int32_t> exchange(const Task& task, const Completion& completion) const {
    std::vector<ChatMessage> messages = prompt_messages(task);
    messages.push_back({.role = "assistant", .content = completion.prefill + completion.text});
    return encode_exchange(*model_->tokenizer(), model_->format(), messages);
  }

  bool normalise_ = true;
  mutable std::mutex mutex_;
  mutable std::optional<RewardModel> model_;
};

class JudgeReward : public ModelReward {
 public:
  JudgeReward(const Json& json, int threads) {
    RewardOptions options("judge", json);
    const std::string path = options.text("path");
    const JudgeConfig config{
        .votes = static_cast<int64_t>(options.number("votes", 4, 1, 64)),
        .temperature = options.number("temperature", 1, 0, 100),
        .max_tokens = static_cast<int64_t>(options.number("max_tokens", 256, 8, 1 << 16))};
    options.end();
    engine_.emplace(Engine::open(path, {.threads = threads}));
    if (!engine_->tokenizer())
      throw Error(ErrorCode::kNotFound, cat("[rewards.judge] ", path, " has no tokenizer.json. Add it."));
    const auto format = chat_format(*engine_->tokenizer(), "");
    if (!format)
      throw Error(ErrorCode::kUnsupported, cat("[rewards.judge] ", path,
                                               " has no chat format, in which a judge is asked. Use a model ",
                                               "that was fine-tuned on chats."));
    judge_.emplace(*engine_, *format, config);
  }

  // A judgement's seed is of the task and the answer: equal ones would be judged alike and are judged once.
  std::vector<RewardScore> score_all(std::span<const Task* const> tasks,
                                     std::span<const Completion> completions, int) const override {
    std::map<std::pair<const Task*, std::string>, size_t> place;
    std::vector<JudgedAnswers> items;
    std::vector<int64_t> draws;
    std::vector<size_t> place_of;
    for (size_t i = 0; i < completions.size(); ++i) {
      JudgedAnswers item{.prompt = prompt_messages(*tasks[i]),
                         .responses = {completions[i].prefill + completions[i].text}};
      if (tasks[i]->verifier == "genrm" && !tasks[i]->answer.empty()) item.reference = tasks[i]->answer;
      place_of.push_back(place.try_emplace({tasks[i], item.responses[0]}, items.size()).first->second);
      if (place_of.back() < items.size()) continue;
      draws.push_back(static_cast<int64_t>(stream_id(item.responses[0] + tasks[i]->id) >> 1));
      items.push_back(std::move(item));
    }
    const std::lock_guard lock(mutex_);
    const std::vector<std::vector<Judgement>> judgements = judge_->judge(items, draws);
    std::vector<RewardScore> scores, out;
    for (size_t k = 0; k < items.size(); ++k) scores.push_back(score_of(items[k], judgements[k]));
    for (const size_t at : place_of) out.push_back(scores[at]);
    return out;
  }

 private:
  static RewardScore score_of(const JudgedAnswers& item, const std::vector<Judgement>& judgements) {
    const Vote vote = count_votes(judgements, item);
    const std::string detail = judgements.empty() ? "" : judgements[0].text;
    if (vote.valid == 0) return {.verdict = judgements.empty() ? "too_long" : "not_valid", .detail = detail};
    if (!item.reference)
      return {.value = (vote.mean_scores[0] - 5.5) / 4.5, .verdict = "judged", .detail = detail};
    if (!vote.match) return {.verdict = "undecided", .detail = detail};
    return {.value = *vote.match ? 1.0 : 0.0, .verdict = *vote.match ? "right" : "wrong", .detail = detail};
  }

  mutable std::mutex mutex_;
  mutable std::optional<Engine> engine_;
  mutable std::optional<Judge> judge_;
};

// What a task of judge_tasks() wants, as a JudgedAnswers whose responses nobody needs any more.
std::optional<JudgedAnswers> label_of(const Json& record) {
  JudgedAnswers item;
  item.responses.resize(1);
  if (record.contains("match") && record["match"].is_boolean()) {
    item.reference = "", item.match = record["match"].get<bool>();
    return item;
  }
  if (!record.contains("responses") || !record["responses"].is_number_integer()) return std::nullopt;
  const int64_t count = record["responses"].get<int64_t>();
  const char* key = count > 1 ? "best" : "score";
  if (count < 1 || count > 64 || !record.contains(key) || !record[key].is_number_integer())
    return std::nullopt;
  item.responses.resize(static_cast<size_t>(count));
  if (count > 1) item.best = record[key].get<int64_t>();
  if (count == 1) item.scores = {record[key].get<int64_t>()};
  return item;
}

class VerdictReward : public Reward {
 public:
  explicit VerdictReward(const Json& json) { RewardOptions("verdict", json).end(); }

  RewardScore score(const Task& task, const Completion& completion) const override {
    if (task.verifier != "verdict") return {.verdict = "not_asked"};
    const std::optional<JudgedAnswers> item = label_of(*task.record);
    if (!item) return {.verdict = "no_label"};
    std::vector<int64_t> order;
    for (int64_t i = 0; i < std::ssize(item->responses); ++i) order.push_back(i);
    const Judgement judgement = read_judgement(completion.text, *item, order);
    if (!judgement.valid()) return {.value = -1, .verdict = "not_valid"};
    const bool right = is_right(count_votes({&judgement, 1}, *item), *item);
    return {.value = right ? 1.0 : -1.0, .verdict = right ? "right" : "wrong"};
  }
};

}  // namespace

RewardKinds reward_kinds(int threads) {
  RewardKinds kinds = builtin_reward_kinds();
  kinds["rm"] = [threads](const Json& options) -> std::unique_ptr<Reward> {
    return std::make_unique<ScalarReward>(options, threads);
  };
  kinds["judge"] = [threads](const Json& options) -> std::unique_ptr<Reward> {
    return std::make_unique<JudgeReward>(options, threads);
  };
  kinds["verdict"] = [](const Json& options) -> std::unique_ptr<Reward> {
    return std::make_unique<VerdictReward>(options);
  };
  return kinds;
}

}  // namespace hadal
