#include "hadal/posttrain/grpo.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hadal/base/file.h"
#include "hadal/config/weight_specs.h"
#include "hadal/error.h"
#include "hadal/model/network_view.h"
#include "hadal/posttrain/chat_rows.h"
#include "hadal/tensor/make.h"
#include "tests/support/one_by_one.h"
#include "tests/support/small_model.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

// Models this small only wait when their operations are split over threads.
class OneThread : public testing::Environment {
  void SetUp() override { set_num_threads(1); }
};
const testing::Environment* const one_thread = testing::AddGlobalTestEnvironment(new OneThread);

const Tokenizer& bytes() {
  static const Tokenizer tokenizer = Tokenizer::load("tests/support/byte_tokenizer");
  return tokenizer;
}

ModelConfig policy_model() {
  ModelConfig c = small_model();
  c.vocab_size = bytes().vocab_size();
  c.eos_ids = {*bytes().eos_id()};
  return c;
}

GrpoConfig small_run(int64_t steps) {
  GrpoConfig c;
  c.run.steps = steps, c.run.seed = 5, c.run.threads = 1;
  c.rollout.prompts = 4, c.rollout.group_size = 6, c.rollout.max_tokens = 6;
  c.optimizer.lr = 1e-2, c.schedule.warmup_steps = 0;
  c.batch.row_tokens = 32, c.batch.workers = 2;
  c.checkpoint.every = 1, c.checkpoint.background = false;
  c.eval.every = 2;
  return c;
}

PromptTasks tasks_of(int64_t n, char letter) {
  std::vector<Task> tasks;
  for (int64_t i = 0; i < n; ++i) {
    Task task;
    task.id = std::to_string(i), task.prompt = std::string(static_cast<size_t>(1 + i % 5), letter);
    task.verifier = "exact", task.answer = "-";
    tasks.push_back(task);
  }
  return PromptTasks(std::move(tasks), bytes(), std::nullopt, 40);
}

// Share of tokens with an even id.
RewardResult even_tokens(const Task&, const Completion& c) {
  double even = 0;
  for (const int32_t id : c.ids) even += id % 2 == 0;
  const double share = c.ids.empty() ? 0 : even / static_cast<double>(c.ids.size());
  return {.total = share, .parts = {{"even", 1, {share, share == 1 ? "right" : "wrong", ""}}}};
}

struct Killed {};

// A run in a folder of its own.
struct TestRun {
  // It dies after its next `steps` steps, before what they did is saved.
  TestRun(const std::filesystem::path& folder, const GrpoConfig& config, int64_t steps = 1000)
      : tasks(tasks_of(9, 'a')),
        held_out(tasks_of(5, 'b')),
        store(folder / "checkpoints", 2, false, {}, [](const std::string&) {}),
        metrics(folder),
        completions(folder / "completions.jsonl"),
        trainer(config, policy_model(), random_weights(policy_model(), 3), bytes(), tasks, &held_out,
                one_by_one(even_tokens),
                {.report =
                     [left = steps](const ValuesRecord&, const TimingRecord&) mutable {
                       if (--left == 0) throw Killed();
                     },
                 .checkpoints = &store,
                 .metrics = &metrics,
                 .completions = &completions}) {}
  PromptTasks tasks, held_out;
  CheckpointStore store;
  MetricsWriter metrics;
  LineFile completions;
  GrpoTrainer trainer;
};

void expect_same_weights(const ModelConfig& config, const ModelWeights& a, const ModelWeights& b) {
  ModelWeights x = a, y = b;
  std::vector<Tensor> tensors;
  for_each_weight(config, x, [&](const WeightSpec&, Tensor& t) { tensors.push_back(t); });
  size_t next = 0;
  for_each_weight(config, y, [&](const WeightSpec& spec, Tensor& t) {
    EXPECT_TRUE(t.equal(tensors[next++])) << spec.name;
  });
}

TEST(Grpo, WhatIsRewardedBecomesMoreFrequent) {
  const TemporaryFolder folder;
  TestRun run(folder.path(), small_run(25));
  EXPECT_EQ(run.trainer.run(), TrainEnd::kFinished);
  const RunMetrics seen = read_run(folder.path());
  double first = 0, last = 0;
  std::vector<double> rewards;
  for (const ValuesRecord& r : seen.values)
    if (r.kind == "rl") rewards.push_back(*r.get("reward"));
  ASSERT_EQ(rewards.size(), 25u);
  for (size_t i = 0; i < 5; ++i) first += rewards[i] / 5, last += rewards[20 + i] / 5;
  EXPECT_GT(last, first + 0.3);  // from about 0.5
}

// Runs it to the end, each process dying after three steps.
void run_in_pieces(const std::filesystem::path& folder, const GrpoConfig& config) {
  while (true) {
    TestRun run(folder, config, 3);
    run.trainer.resume();
    try {
      run.trainer.run();
      return;
    } catch (const Killed&) {
    }
  }
}

TEST(Grpo, KilledBetweenCheckpointsAndResumedItIsTheSameRunBitForBit) {
  GrpoConfig config = small_run(5);
  config.loss.beta = 0.05, config.reference.refresh = "mix", config.reference.every = 2;
  config.loss.minibatches = 2, config.rollout.dynamic_rounds = 2;
  config.checkpoint.every = 2, config.run.log_completions = 1;
  const TemporaryFolder whole, parts;
  TestRun unbroken(whole.path(), config);
  unbroken.trainer.run();
  run_in_pieces(parts.path(), config);
  TestRun again(parts.path(), config);
  ASSERT_TRUE(again.trainer.resume());
  EXPECT_EQ(again.trainer.counters().step, 5);
  expect_same_weights(policy_model(), unbroken.trainer.model().weights(), again.trainer.model().weights());
  for (const char* file : {"metrics.jsonl", "completions.jsonl"})
    EXPECT_EQ(read_file(whole / file), read_file(parts / file)) << file;
}

TEST(Grpo, CheckingOneAnswerOfAGroupOrAllIsTheSameRunBitForBit) {
  const TemporaryFolder one, all;
  GrpoConfig config = small_run(4);
  config.loss.iterations = 2;
  TestRun some(one.path(), config);
  some.trainer.run();
  config.rollout.check = "all";
  TestRun every(all.path(), config);
  every.trainer.run();
  expect_same_weights(policy_model(), some.trainer.model().weights(), every.trainer.model().weights());
  EXPECT_EQ(read_file(one / "metrics.jsonl"), read_file(all / "metrics.jsonl"));
}

TEST(Grpo, ItEndsWhenItsMinutesAreOverAndGoesOnWhenThereAreMore) {
  const TemporaryFolder folder;
  GrpoConfig config = small_run(3);
  config.run.minutes = 1e-9;
  {
    TestRun run(folder.path(), config);
    EXPECT_EQ(run.trainer.run(), TrainEnd::kFinished);
    EXPECT_EQ(run.trainer.counters().step, 1);
  }
  config.run.minutes = 60;
  TestRun run(folder.path(), config);
  ASSERT_TRUE(run.trainer.resume());
  EXPECT_EQ(run.trainer.run(), TrainEnd::kFinished);
  EXPECT_EQ(run.trainer.counters().step, 3);
}

TEST(Grpo, OtherTasksAreRefusedWhenResumed) {
  const TemporaryFolder folder;
  { TestRun(folder.path(), small_run(1)).trainer.run(); }
  TestRun run(folder.path(), small_run(2));
  const PromptTasks others = tasks_of(9, 'c');
  GrpoTrainer trainer(small_run(2), policy_model(), random_weights(policy_model(), 3), bytes(), others,
                      nullptr, one_by_one(even_tokens), {.checkpoints = &run.store});
  EXPECT_THROW(trainer.resume(), Error);
}

// Answers of a small model to three prompts, scored by itself.
struct Answers {
  Transformer model{policy_model(), random_weights(policy_model(), 3)};
  std::vector<Sample> samples;
  std::vector<ScoredSample> old;
  std::vector<PolicySample> policy;

  Answers() {
    Engine engine(network_view(model.config(), model.weights()), bytes(),
                  {.threads = 1, .cache_tokens = 2048, .cache_dtype = "f32"});
    std::vector<SampleRequest> asked;
    for (int32_t p = 0; p < 6; ++p)
      asked.push_back({std::make_shared<const std::vector<int32_t>>(std::vector<int32_t>(3 + p, 40 + p)),
                       {.temperature = 1, .seed = sample_seed(1, p, 0)},
                       3 + p});
    samples = sample_all(engine, asked);
    Scorer scorer(network_view(model.config(), model.weights()), 1);
    std::vector<const Sample*> all;
    for (const Sample& s : samples) all.push_back(&s);
    old = scorer.score(all, 1);
    for (size_t i = 0; i < samples.size(); ++i) {
      EXPECT_EQ(samples[i].logp, old[i].logp);
      policy.push_back({&samples[i], &old[i], nullptr, i % 2 ? 1.0 : -0.5});
    }
  }
};

TEST(PolicyStep, TrainingSeesTheProbabilitiesAndExpertsOfSampling) {
  Answers a;
  GradientWorkers workers(a.model, 1);
  const PolicyStepResult got = policy_step(workers, a.model.config(), {.row_tokens = 24}, a.policy);
  EXPECT_LT(got.logp_difference_max, 1e-4);  // other kernels, other sums in fp32
  EXPECT_EQ(got.routes_changed, 0);
  EXPECT_GT(got.routes, 0);
}

TEST(PolicyStep, ReplayedExpertsAreTakenAlthoughTheGateWouldChooseOthers) {
  Answers a;
  {
    NoGrad no_grad;
    Tensor& router = a.model.weights().layers[1].moe.router_ED;
    router.copy_(router.flip({0}));  // now it wants others
  }
  GradientWorkers workers(a.model, 1);
  const PolicyStepResult replayed = policy_step(workers, a.model.config(), {.row_tokens = 24}, a.policy);
  EXPECT_GT(replayed.routes_changed, 0);
  const PolicyStepResult anew =
      policy_step(workers, a.model.config(), {.row_tokens = 24, .replay_routes = false}, a.policy);
  EXPECT_GT(std::abs(replayed.logp_difference_sum - anew.logp_difference_sum), 1e-4);
}

TEST(PolicyStep, GradientsDoNotDependOnRowsMicroBatchesOrWorkers) {
  Answers a;
  const auto gradients = [&](int64_t row_tokens, int64_t micro, int64_t workers) {
    GradientWorkers crew(a.model, workers);
    return policy_step(crew, a.model.config(),
                       {.loss = {.beta = 0}, .row_tokens = row_tokens, .micro = micro, .workers = workers},
                       a.policy)
        .gradients;
  };
  const Gradients want = gradients(24, 0, 1);
  for (const Gradients& got : {gradients(64, 0, 1), gradients(16, 1, 1), gradients(16, 0, 2)})
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(got[i].defined(), want[i].defined());
      if (!want[i].defined()) continue;
      EXPECT_LT((got[i] - want[i]).abs().max().item<double>(), 1e-5);  // fp32, other orders of summing
    }
}

TEST(PolicyStep, TheGradientIsThatOfMinusAdvantageTimesLogProbability) {
  Answers a;
  GradientWorkers workers(a.model, 1);
  const Gradients got = policy_step(workers, a.model.config(), {.row_tokens = 24}, a.policy).gradients;
  const PolicyRows rows = pack_policy_rows(a.model.config(), a.policy, 24, true);
  AdamW optimizer(a.model, {});  // makes the weights require gradients
  const Tensor logp = answer_logps(a.model, rows, a.policy, 1);
  std::vector<float> factors;
  for (const auto& row : rows.samples_of)
    for (const size_t i : row)
      factors.insert(factors.end(), a.samples[i].ids.size(), static_cast<float>(-a.policy[i].advantage));
  ((logp * from_floats(factors)).sum() / static_cast<double>(factors.size())).backward();
  for (size_t i = 0; i < got.size(); ++i) {
    const Tensor& want = optimizer.weights()[i].values.grad();
    ASSERT_EQ(got[i].defined(), want.defined()) << optimizer.weights()[i].name;
    if (!want.defined()) continue;
    // The ratio is 1 up to the difference between the training pass and sampling.
    EXPECT_LT((got[i] - want).abs().max().item<double>(), 1e-4 * (1 + want.abs().max().item<double>()));
  }
}

// Of answers with replies in them.
TEST(PolicyStep, TokensThatTheModelDidNotWriteTrainNothingAndCountNowhere) {
  Answers a;
  std::vector<std::vector<uint8_t>> written;
  for (Sample& sample : a.samples) {
    for (size_t t = 0; t < sample.ids.size(); ++t) sample.written.push_back(t % 3 != 1);
    written.push_back(sample.written);
  }
  GradientWorkers workers(a.model, 1);
  const PolicyStepResult got = policy_step(workers, a.model.config(), {.row_tokens = 24}, a.policy);
  const PolicyRows rows = pack_policy_rows(a.model.config(), a.policy, 24, true);
  AdamW optimizer(a.model, {});
  const Tensor logp = answer_logps(a.model, rows, a.policy, 1);
  std::vector<float> factors;
  int64_t count = 0;
  for (const auto& row : rows.samples_of)
    for (const size_t i : row)
      for (const uint8_t mine : written[i]) {
        factors.push_back(mine ? static_cast<float>(-a.policy[i].advantage) : 0);
        count += mine;
      }
  EXPECT_EQ(got.tokens, count);
  ((logp * from_floats(factors)).sum() / static_cast<double>(count)).backward();
  for (size_t i = 0; i < got.gradients.size(); ++i) {
    const Tensor& want = optimizer.weights()[i].values.grad();
    ASSERT_EQ(got.gradients[i].defined(), want.defined()) << optimizer.weights()[i].name;
    if (!want.defined()) continue;
    EXPECT_LT((got.gradients[i] - want).abs().max().item<double>(),
              1e-4 * (1 + want.abs().max().item<double>()));
  }
}

TEST(PolicyStep, AnswersThatAreLeftOutCountInTheDivisor) {
  Answers a;
  GradientWorkers workers(a.model, 1);
  std::vector<PolicySample> all = a.policy, some;
  all[0].advantage = all[3].advantage = 0;
  PolicyDivisor divisor{.completions = std::ssize(all)};
  for (const PolicySample& s : all) {
    divisor.tokens += std::ssize(s.sample->ids);
    if (s.advantage != 0) some.push_back(s);
  }
  const PolicyStepConfig config{.row_tokens = 24};
  EXPECT_NEAR(policy_step(workers, a.model.config(), config, all).loss,
              policy_step(workers, a.model.config(), config, some, divisor).loss, 1e-6);
}

// Rows of chats against each sample alone.
TEST(ChatTraining, PackedSamplesGiveTheLossAndGradientsOfThoseAlone) {
  const ModelConfig config = policy_model();
  std::vector<TrainedTokens> samples;
  for (int32_t k = 0; k < 5; ++k) {
    TrainedTokens s;
    for (int32_t i = 0; i < 4 + 3 * k; ++i)
      s.ids.push_back(20 + (i * 7 + k) % 90), s.trained.push_back(i > k);
    samples.push_back(s);
  }
  const auto batch_of = [&](const std::vector<TrainedTokens>& some, int64_t length) {
    const ChatRows rows(some, length, config.mtp_depth, 0);
    const ChatRowBatch b = rows.read_plain(0, rows.rows_per_epoch());
    const std::vector<int32_t> trained(b.trained.begin(), b.trained.end());
    const auto tensor = [&](const std::vector<int32_t>& x) { return from_ids(x).view({b.rows, b.length}); };
    return TrainBatch(tensor(b.ids), tensor(b.segment_start), {}, {}, tensor(trained).to(at::kBool));
  };
  const TrainBatch packed = batch_of(samples, 31);
  ASSERT_LT(packed.window_BX.size(0), 5);
  const LossConfig loss{.mtp_weight = 0.3, .balance_alpha = 0};
  Transformer together(config, random_weights(config, 3)), alone(config, random_weights(config, 3));
  AdamW optimizer(together, {}), other(alone, {});
  const int64_t targets = count_targets(config, packed);
  const BatchLoss whole = batch_loss(together, packed, loss, {.targets = targets, .rows = 1});
  whole.total.backward();
  double sum = 0;
  for (const TrainedTokens& s : samples) {
    const BatchLoss one =
        batch_loss(alone, batch_of({s}, std::ssize(s.ids) - 1), loss, {.targets = targets, .rows = 1});
    one.total.backward();
    sum += one.total.item<double>();
  }
  EXPECT_NEAR(whole.total.item<double>(), sum, 1e-5);
  for (size_t i = 0; i < optimizer.weights().size(); ++i) {
    const Tensor &a = optimizer.weights()[i].values.grad(), &b = other.weights()[i].values.grad();
    if (!b.defined()) continue;
    EXPECT_LT((a - b).abs().max().item<double>(), 1e-5) << optimizer.weights()[i].name;  // fp32
  }
}

}  // namespace
}  // namespace hadal
