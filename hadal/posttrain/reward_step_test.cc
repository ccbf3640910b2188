#include "hadal/posttrain/reward_step.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hadal/base/file.h"
#include "hadal/checkpoint/load.h"
#include "hadal/config/weight_specs.h"
#include "hadal/engine/open_network.h"
#include "hadal/error.h"
#include "hadal/model/network_view.h"
#include "hadal/posttrain/preference_report.h"
#include "hadal/tensor/make.h"
#include "tests/support/error_of.h"
#include "tests/support/small_model.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

ModelConfig judge_model() {
  ModelConfig c = reward_config(small_model());
  c.stored_dtype = DType::kF32;
  return c;
}

Transformer reward_model(uint64_t seed = 3) {
  const ModelConfig start = small_model();
  return {judge_model(), reward_weights(start, random_weights(start, seed), seed)};
}

// Of different lengths, all between 3 and 12 tokens.
std::vector<Preference> pairs_of(int64_t n) {
  std::vector<Preference> pairs(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const auto fill = [&](std::vector<int32_t>& ids, int64_t length, int64_t salt) {
      for (int64_t k = 0; k < length; ++k)
        ids.push_back(static_cast<int32_t>((i * 31 + k * 17 + salt) % 120 + 1));
    };
    fill(pairs[static_cast<size_t>(i)].chosen, 3 + i % 7, 5);
    fill(pairs[static_cast<size_t>(i)].rejected, 12 - i % 5, 11);
    pairs[static_cast<size_t>(i)].margin = 0.1 * static_cast<double>(i % 3);
  }
  return pairs;
}

std::vector<const Preference*> pointers(const std::vector<Preference>& pairs) {
  std::vector<const Preference*> out;
  for (const Preference& pair : pairs) out.push_back(&pair);
  return out;
}

TEST(RewardModel, TrainingAndInferenceGiveTheSameScoresWhateverIsBesideThem) {
  const Transformer model = reward_model();
  const std::vector<Preference> pairs = pairs_of(6);
  std::vector<std::vector<int32_t>> answers;
  std::vector<const std::vector<int32_t>*> views;
  for (const Preference& pair : pairs) {
    answers.push_back(pair.chosen), answers.push_back(pair.rejected);
    views.push_back(&pair.chosen), views.push_back(&pair.rejected);
  }
  RewardModel inference(network_view(model.config(), model.weights()), 1);
  const std::vector<double> together = inference.score(answers);
  const std::vector<float> trained = to_floats(reward_scores(model, views));
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(inference.score(std::span(answers).subspan(i, 1))[0], together[i]) << i;
    EXPECT_NEAR(trained[i], together[i], 1e-5) << i;  // fp32, sums in another order
  }
}

TEST(RewardStep, GradientIsThatOfTheLoss) {
  Transformer model = reward_model();
  const std::vector<Preference> pairs = pairs_of(3);
  for_each_weight(model.config(), model.weights(), [](const WeightSpec& spec, Tensor& w) {
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
  });
  const RewardStepConfig config{.center = 0.01};
  const double loss = reward_step(model, pointers(pairs), config, 3).main;
  Tensor& score = model.weights().score_XD;
  const std::vector<float> gradient = to_floats(score.grad());
  float* value = score.data_ptr<float>();
  const double eps = 1e-2;
  for (const int64_t d : {0, 7, 31}) {
    const float before = value[d];
    value[d] = before + static_cast<float>(eps);
    const double up = reward_step(model, pointers(pairs), config, 3).main;
    value[d] = before - static_cast<float>(eps);
    const double down = reward_step(model, pointers(pairs), config, 3).main;
    value[d] = before;
    EXPECT_NEAR(gradient[static_cast<size_t>(d)], (up - down) / (2 * eps), 1e-4) << d;
  }
  EXPECT_GT(loss, 0);
}

TEST(RewardStep, SharesOfAStepAddUpToIt) {
  Transformer whole = reward_model(), parts = reward_model();
  for (Transformer* model : {&whole, &parts})
    for_each_weight(model->config(), model->weights(), [](const WeightSpec& spec, Tensor& w) {
      if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
    });
  const std::vector<Preference> pairs = pairs_of(5);
  const auto all = pointers(pairs);
  const StepLoss at_once = reward_step(whole, all, {}, 5);
  StepLoss sum = reward_step(parts, std::span(all).first(2), {}, 5);
  add(sum, reward_step(parts, std::span(all).subspan(2), {}, 5));
  EXPECT_NEAR(sum.main, at_once.main, 1e-6);
  ASSERT_EQ(sum.loads.size(), at_once.loads.size());
  EXPECT_TRUE(sum.loads[0].count_E.equal(at_once.loads[0].count_E));
  int64_t tokens = 0;
  for (const Preference& pair : pairs) tokens += std::ssize(pair.chosen) + std::ssize(pair.rejected);
  EXPECT_EQ(at_once.loads[0].count_E.sum().item<int64_t>(), tokens * judge_model().moe.top_k);
  const Tensor a = whole.weights().embedding_WD.grad(), b = parts.weights().embedding_WD.grad();
  EXPECT_LT((a - b).abs().max().item<float>(), 1e-6);
}

TEST(RewardModel, FolderIsNoLanguageModelAndALanguageModelsIsNoRewardModel) {
  const TemporaryFolder folder;
  save_model(folder.path() / "rm", judge_model(), reward_model().weights());
  const ModelConfig language = small_model();
  save_model(folder.path() / "lm", language, random_weights(language, 1));
  const std::string as_language = error_of([&] { open_network(folder.path() / "rm"); });
  EXPECT_NE(as_language.find("is a reward model, which scores answers"), std::string::npos) << as_language;
  EXPECT_NE(error_of([&] { load_model(folder.path() / "rm"); }).find("is a reward model"), std::string::npos);
  const std::string as_reward = error_of([&] { open_network(folder.path() / "lm", Purpose::kReward); });
  EXPECT_NE(as_reward.find("hadal reward-model train"), std::string::npos) << as_reward;

  const Transformer again = load_model(folder.path() / "rm", DType::kF32, Purpose::kReward);
  EXPECT_TRUE(again.weights().score_XD.equal(reward_model().weights().score_XD));
  EXPECT_TRUE(again.config().scores);
  EXPECT_NE(read_file(folder.path() / "rm" / "config.json").find("DeepseekV3ForSequenceClassification"),
            std::string::npos);
  EXPECT_NE(open_checkpoint(folder.path() / "rm").find("score.weight"), nullptr);
  EXPECT_EQ(open_checkpoint(folder.path() / "rm").find("lm_head.weight"), nullptr);
}

// A run in a folder of its own. The rule to be learned: the answer with token 1 in it is the better one.
struct RewardRun {
  struct Killed {};
  // It dies after step `die_after`, before what that did is saved.
  RewardRun(const std::filesystem::path& folder, int64_t steps,
            std::shared_ptr<std::vector<Preference>> pairs, std::shared_ptr<std::vector<Preference>> held_out,
            int64_t die_after = -1)
      : store(folder / "checkpoints", 2, false, {}, [](const std::string&) {}),
        metrics(folder),
        trainer(config(steps), judge_model(),
                {.objective = reward_objective(pairs, held_out, {}, 1), .fingerprint = "pairs"},
                {.report =
                     [die_after](const TrainProgress& p) {
                       if (p.step == die_after) throw Killed();
                     },
                 .measured = [this](const EvalRecord& r) { accuracy = r.accuracy.value_or(0); },
                 .checkpoints = &store,
                 .metrics = &metrics,
                 .start =
                     [] {
                       const ModelConfig start = small_model();
                       return reward_weights(start, random_weights(start, 3), 3);
                     }}) {}
  static TrainConfig config(int64_t steps) {
    TrainConfig c;
    c.run.steps = steps, c.batch.sequences = 8, c.batch.length = 16, c.batch.workers = 2;
    c.optimizer.lr = 1e-2, c.optimizer.weight_decay = 0, c.schedule.kind = "constant";
    c.schedule.warmup_steps = 2, c.checkpoint.every = 3, c.eval.loads_every = 4;
    return c;
  }
  double accuracy = 0;
  CheckpointStore store;
  MetricsWriter metrics;
  Trainer trainer;
};

std::shared_ptr<std::vector<Preference>> rule_pairs(int64_t n, int64_t salt) {
  auto pairs = std::make_shared<std::vector<Preference>>(pairs_of(n));
  for (int64_t i = 0; i < n; ++i) {
    Preference& pair = (*pairs)[static_cast<size_t>(i)];
    for (std::vector<int32_t>* ids : {&pair.chosen, &pair.rejected})
      for (int32_t& id : *ids) id = 2 + (id + static_cast<int32_t>(salt)) % 60;
    pair.chosen[static_cast<size_t>(i) % pair.chosen.size()] = 1;
  }
  return pairs;
}

TEST(RewardTraining, FindsARuleAndAgreesWithPairsItHasNotSeen) {
  const TemporaryFolder folder;
  RewardRun run(folder.path(), 30, rule_pairs(200, 0), rule_pairs(60, 29));
  EXPECT_EQ(run.trainer.run(), TrainEnd::kFinished);
  EXPECT_GE(run.accuracy, 0.95);
}

TEST(RewardTraining, KilledAndResumedRunIsTheUnbrokenOneBitForBit) {
  const TemporaryFolder one, two;
  const auto pairs = rule_pairs(20, 0), held_out = rule_pairs(6, 29);
  RewardRun whole(one.path(), 10, pairs, held_out);
  whole.trainer.run();
  {
    RewardRun killed(two.path(), 10, pairs, held_out, /*die_after=*/5);
    EXPECT_THROW(killed.trainer.run(), RewardRun::Killed);
  }
  RewardRun resumed(two.path(), 10, pairs, held_out);
  ASSERT_TRUE(resumed.trainer.resume());
  EXPECT_EQ(resumed.trainer.counters().step, 3);
  EXPECT_EQ(resumed.trainer.run(), TrainEnd::kFinished);
  whole.metrics.sync(), resumed.metrics.sync();
  EXPECT_EQ(read_file(two.path() / "metrics.jsonl"), read_file(one.path() / "metrics.jsonl"));
  std::vector<Tensor> want;
  for_each_weight(judge_model(), whole.trainer.model().weights(),
                  [&](const WeightSpec&, Tensor& w) { want.push_back(w); });
  size_t next = 0;
  for_each_weight(judge_model(), resumed.trainer.model().weights(), [&](const WeightSpec& spec, Tensor& w) {
    EXPECT_TRUE(w.equal(want[next++])) << spec.name;
  });
}

}  // namespace
}  // namespace hadal
