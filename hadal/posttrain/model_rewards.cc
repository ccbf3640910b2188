#include "hadal/posttrain/model_rewards.h"

#include <cmath>
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

class ScalarReward : public Reward {
 public:
  ScalarReward(const Json& json, int threads) {
    RewardOptions options("rm", json);
    const std::string path = options.text("path");
    normalise_ = options.number("normalise", 1, 0, 1) > 0;
    options.end();
    model_.emplace(RewardModel::open(path, threads));
  }

  RewardScore score(const Task& task, const Completion& completion) const override {
    std::vector<ChatMessage> messages = prompt_messages(task);
    messages.push_back({.role = "assistant", .content = completion.prefill + completion.text});
    const std::vector<int32_t> ids[] = {encode_exchange(*model_->tokenizer(), model_->format(), messages)};
    if (std::ssize(ids[0]) > model_->config().max_positions) return {.verdict = "too_long"};
    const std::lock_guard lock(mutex_);
    const double score = model_->score(ids)[0];
    return {.value = normalise_ ? model_->normalised(score) : score, .verdict = "scored"};
  }

 private:
  bool normalise_ = true;
  mutable std::mutex mutex_;
  mutable std::optional<RewardModel> model_;
};

class JudgeReward : public Reward {
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

  RewardScore score(const Task& task, const Completion& completion) const override {
    JudgedAnswers item{.prompt = prompt_messages(task), .responses = {completion.prefill + completion.text}};
    if (task.verifier == "genrm" && !task.answer.empty()) item.reference = task.answer;
    const auto draw = static_cast<int64_t>(stream_id(item.responses[0] + task.id) >> 1);
    const std::lock_guard lock(mutex_);
    const std::vector<Judgement> judgements = judge_->judge({&item, 1}, draw)[0];
    const Vote vote = count_votes(judgements, item);
    const std::string detail = judgements.empty() ? "" : judgements[0].text;
    if (vote.valid == 0) return {.verdict = judgements.empty() ? "too_long" : "not_valid", .detail = detail};
    if (!item.reference)
      return {.value = (vote.mean_scores[0] - 5.5) / 4.5, .verdict = "judged", .detail = detail};
    if (!vote.match) return {.verdict = "undecided", .detail = detail};
    return {.value = *vote.match ? 1.0 : 0.0, .verdict = *vote.match ? "right" : "wrong", .detail = detail};
  }

 private:
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
