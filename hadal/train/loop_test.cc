#include "hadal/train/loop.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "hadal/base/file.h"
#include "hadal/config/weight_specs.h"
#include "hadal/data/rows.h"
#include "hadal/data/story_text.h"
#include "hadal/data/token_windows.h"
#include "hadal/error.h"
#include "hadal/kernels/half.h"
#include "hadal/tensor/make.h"
#include "tests/support/small_model.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

// Models this small only wait when their operations are split over threads.
class OneThread : public testing::Environment {
  void SetUp() override { set_num_threads(1); }
};
const testing::Environment* const one_thread = testing::AddGlobalTestEnvironment(new OneThread);

TrainConfig small_run(int64_t steps) {
  TrainConfig c;
  c.run.steps = steps, c.run.seed = 1, c.data.text = "-";
  c.batch.sequences = 4, c.batch.length = 16;
  c.schedule.warmup_steps = 5, c.optimizer.lr = 1e-2, c.optimizer.ema = 0.9;
  c.checkpoint.every = 5, c.checkpoint.background = false;
  c.eval.every = 10, c.eval.windows = 4, c.eval.loads_every = 4;
  return c;
}

TrainRows story_rows(int64_t X) {
  const std::string text = story_text(1, 20'000);
  const TokenSplit split = split_tokens(std::vector<int32_t>(text.begin(), text.end()), 0.1, X);
  RowConfig config{.length = X - 2, .extra = 1, .seed = 1};
  config.sources = {{.path = "stories", .ids = std::make_shared<const std::vector<int32_t>>(split.train)}};
  return {.read =
              [rows = open_rows(config)](int64_t first, int64_t n) {
                RowBatch batch;
                rows.read(first, n, batch);
                return TrainBatch(from_ids(batch.ids).view({batch.rows, batch.length}));
              },
          .fingerprint = "stories",
          .held_out_NX = spread_windows(split.held_out, 16, X),
          .token_bytes = std::vector<int64_t>(128, 1)};
}

// A run in a folder of its own; every note is kept.
struct TestRun {
  TestRun(const std::filesystem::path& folder, const TrainConfig& config, const TrainRows& rows,
          const std::atomic<bool>* stop = nullptr, std::function<double()> clock = {})
      : store(folder / "checkpoints", config.checkpoint.keep, config.checkpoint.background, {},
              [this](const std::string& text) { notes += text + "\n"; }),
        metrics(folder),
        trainer(config, small_model(), rows,
                {.note = [this](const std::string& text) { notes += text + "\n"; },
                 .stop = stop,
                 .checkpoints = &store,
                 .metrics = &metrics,
                 .clock = std::move(clock)}) {}
  std::string notes;
  CheckpointStore store;
  MetricsWriter metrics;
  Trainer trainer;
};

void expect_same_tensors(const TrainSnapshot& a, const TrainSnapshot& b) {
  ModelWeights x = a.weights, y = b.weights;
  std::vector<Tensor> want;
  for_each_weight(a.config, x, [&](const WeightSpec&, Tensor& t) { want.push_back(t); });
  size_t next = 0;
  for_each_weight(b.config, y, [&](const WeightSpec& spec, Tensor& t) {
    EXPECT_TRUE(t.equal(want[next++])) << spec.name;
  });
  ASSERT_EQ(a.moments.size(), b.moments.size());
  for (size_t i = 0; i < a.moments.size(); ++i)
    EXPECT_TRUE(a.moments[i].second.equal(b.moments[i].second)) << a.moments[i].first;
  EXPECT_EQ(a.optimizer_steps, b.optimizer_steps);
}

// The newest checkpoint of a run, read back into a new model.
TrainSnapshot last_state(const std::filesystem::path& folder, const TrainConfig& config) {
  Transformer model(small_model(), random_weights(small_model(), 99));
  AdamW optimizer(model, {});
  WeightAverage average(model, 0.5);
  CheckpointStore store(folder / "checkpoints", 2, false, {}, [](const std::string&) {});
  const TrainCounters counters = restore(store.newest().value(), model, {&optimizer}, &average);
  return take_snapshot(counters, model, optimizer, &average, true);
}

TEST(Trainer, HeldOutLossFallsAndTheMtpModuleLearnsToGuess) {
  TrainConfig config = small_run(120);
  config.batch.sequences = 8, config.batch.length = 32;
  Trainer trainer(config, small_model(), story_rows(34), {});
  const HeldOut before = trainer.measure();
  EXPECT_NEAR(before.loss, std::log(128.0), 0.3);  // an untrained model knows nothing
  EXPECT_NEAR(before.bits_per_byte.value(), before.loss / std::log(2.0), 1e-9);
  EXPECT_EQ(trainer.run(), TrainEnd::kFinished);
  const HeldOut after = trainer.measure();
  EXPECT_LT(after.loss, before.loss - 1.5);
  EXPECT_GT(after.mtp_acceptance.at(0), before.mtp_acceptance.at(0) + 0.1);
}

// Rows of small_run() that end the process, so to say, after a number of steps.
struct Killed {};
TrainRows killed_after(int64_t step) {
  TrainRows rows = story_rows(18);
  rows.read = [read = rows.read, step](int64_t first, int64_t n) {
    if (first >= step * 4) throw Killed();
    return read(first, n);
  };
  return rows;
}

TEST(Trainer, ResumedRunEqualsTheUnbrokenOneBitForBit) {
  const TrainConfig config = small_run(20);
  const TemporaryFolder whole, broken;
  {
    TestRun run(whole.path(), config, story_rows(18));
    EXPECT_EQ(run.trainer.run(), TrainEnd::kFinished);
  }
  {
    std::atomic<bool> stop{false};
    TestRun run(broken.path(), config, story_rows(18), &stop);
    stop = true;
    EXPECT_EQ(run.trainer.run(), TrainEnd::kStopped);  // before the first step
  }
  {
    // What came after the checkpoint of step 10 is only in the metrics.
    TestRun run(broken.path(), config, killed_after(13));
    EXPECT_TRUE(run.trainer.resume());
    EXPECT_THROW(run.trainer.run(), Killed);
    EXPECT_EQ(run.metrics.last_step(), 13);
  }
  {
    TestRun run(broken.path(), config, story_rows(18));
    EXPECT_TRUE(run.trainer.resume());
    EXPECT_EQ(run.trainer.counters().step, 10);
    EXPECT_EQ(run.trainer.run(), TrainEnd::kFinished);
  }
  expect_same_tensors(last_state(whole.path(), config), last_state(broken.path(), config));
  EXPECT_EQ(read_file(whole / "metrics.jsonl"), read_file(broken / "metrics.jsonl"));
  const std::string step = "checkpoints/step-000020/";
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "ema/model.safetensors"})
    EXPECT_EQ(read_file(whole / (step + file)), read_file(broken / (step + file))) << file;
}

// A clock of 0.1 s a step, so that 3 s are 29 steps; the cosine falls from step 2 on and would show a number
// of steps that was fixed at another step. Without a checkpoint a killed run leaves metrics alone behind,
// which who starts it again removes.
TEST(Trainer, ARunBoundedByTimeKilledBeforeItsLengthIsFixedEndsLikeTheUnbrokenOne) {
  const auto clock = [now = std::make_shared<double>(0)] { return *now += 0.1; };
  for (const int64_t every : {0, 3}) {
    TrainConfig config = small_run(0);
    config.run.minutes = 0.05, config.checkpoint.every = every;
    config.schedule.kind = "cosine", config.schedule.warmup_steps = 2;
    const TemporaryFolder whole, broken;
    {
      TestRun run(whole.path(), config, story_rows(18), nullptr, clock);
      EXPECT_EQ(run.trainer.run(), TrainEnd::kFinished);
      EXPECT_EQ(run.trainer.counters().step, 29);
    }
    for (const int64_t kill : {2, 5, 7, 12}) {
      const bool saved = every > 0 && kill > 5;
      for (const char* file : {"metrics.jsonl", "timing.jsonl"})
        if (!saved) std::filesystem::remove(broken / file);
      TestRun run(broken.path(), config, killed_after(kill), nullptr, clock);
      EXPECT_EQ(run.trainer.resume(), saved) << kill;
      EXPECT_THROW(run.trainer.run(), Killed);
    }
    TestRun run(broken.path(), config, story_rows(18), nullptr, clock);
    EXPECT_TRUE(run.trainer.resume());
    EXPECT_EQ(run.trainer.counters().step, every > 0 ? 12 : 8);
    EXPECT_EQ(run.trainer.counters().planned_steps, 29);  // no longer measured
    EXPECT_EQ(run.trainer.run(), TrainEnd::kFinished);
    expect_same_tensors(last_state(whole.path(), config), last_state(broken.path(), config));
    EXPECT_EQ(read_file(whole / "metrics.jsonl"), read_file(broken / "metrics.jsonl"));
  }
}

TEST(Trainer, Bf16MomentsLearnAlikeAndResumeBitForBit) {
  TrainConfig config = small_run(20);
  const auto final_loss = [&](const TrainConfig& c) {
    Trainer trainer(c, small_model(), story_rows(18), {});
    trainer.run();
    return trainer.progress().loss;
  };
  const double full_precision = final_loss(config);
  config.optimizer.bf16_moments = true;
  EXPECT_NEAR(final_loss(config), full_precision, 0.05);
  const TemporaryFolder whole, broken;
  { TestRun(whole.path(), config, story_rows(18)).trainer.run(); }
  {
    TrainConfig half = config;
    half.checkpoint.keep = 9;
    TestRun run(broken.path(), half, story_rows(18));
    run.trainer.run();
  }
  std::filesystem::remove_all(broken / "checkpoints/step-000020");
  TestRun run(broken.path(), config, story_rows(18));
  EXPECT_TRUE(run.trainer.resume());
  EXPECT_EQ(run.trainer.counters().step, 15);
  run.trainer.run();
  const char* file = "checkpoints/step-000020/optimizer.safetensors";
  EXPECT_EQ(read_file(whole / file), read_file(broken / file));
}

double final_loss(const TrainConfig& config) {
  Trainer trainer(config, small_model(), story_rows(18), {});
  trainer.run();
  return trainer.progress().loss;
}

// The gradients of a step differ by about one per cent, now this way and now that.
TEST(Trainer, Bf16AndF16ProductsLearnAlike) {
  TrainConfig config = small_run(100);
  config.optimizer.lr = 3e-3;
  const auto held_out = [&](const TrainConfig& c) {
    Trainer trainer(c, small_model(), story_rows(18), {});
    trainer.run();
    return trainer.measure().loss;
  };
  const double f32 = held_out(config);
  for (const char* precision : {"bf16", "f16"}) {
    if (precision == std::string("f16") && !half_is_fast(HalfFormat::kFp16)) continue;
    config.compute.precision = precision;
    const double rounded = held_out(config);
    EXPECT_LT(rounded, 3.5) << precision;  // an untrained model: 4.9
    EXPECT_NE(rounded, f32) << precision;
    EXPECT_NEAR(rounded, f32, 0.02 * f32) << precision;
  }
}

TEST(Trainer, RecomputingChangesNotABitOfTheRun) {
  TrainConfig config = small_run(5);
  const double want = final_loss(config);
  for (const char* how : {"selective", "full"}) {
    config.compute.recompute = how;
    EXPECT_EQ(final_loss(config), want) << how;
  }
}

TEST(Trainer, DroppingTokensFollowsItsKeys) {
  TrainConfig config = small_run(2);
  const double all = final_loss(config);
  config.loss.capacity_factor = 0.5, config.loss.never_dropped_share = 0;
  EXPECT_NE(final_loss(config), all);
  config.loss.never_dropped_share = 1;
  EXPECT_EQ(final_loss(config), all);
}

TEST(Trainer, AResumedRunKeepsTheWorkersItBeganWithWhateverTheThreadsAreNow) {
  const TrainConfig config = small_run(10);
  const TemporaryFolder whole, broken;
  set_num_threads(2);
  { TestRun(whole.path(), config, story_rows(18)).trainer.run(); }
  { TestRun(broken.path(), config, story_rows(18)).trainer.run(); }
  set_num_threads(1);
  std::filesystem::remove_all(broken / "checkpoints/step-000010");
  TestRun run(broken.path(), config, story_rows(18));
  EXPECT_TRUE(run.trainer.resume());
  EXPECT_NE(run.notes.find("began with 2 workers"), std::string::npos) << run.notes;
  run.trainer.run();
  const char* file = "checkpoints/step-000010/model.safetensors";
  EXPECT_EQ(read_file(whole / file), read_file(broken / file));
}

TEST(Trainer, MicroBatchesGiveTheWholeBatchsStep) {
  const auto loss_after = [](int64_t micro) {
    TrainConfig config = small_run(6);
    config.batch.micro = micro;
    Trainer trainer(config, small_model(), story_rows(18), {});
    trainer.run();
    return std::make_pair(trainer.progress().loss, trainer.progress().grad_norm);
  };
  const auto whole = loss_after(0);
  for (const int64_t micro : {1, 3}) {  // 3: a short one at the end
    EXPECT_NEAR(loss_after(micro).first, whole.first, 1e-4);
    EXPECT_NEAR(loss_after(micro).second, whole.second, 1e-3);
  }
}

TEST(Trainer, ACorruptNewestCheckpointFallsBackAndSaysSo) {
  const TrainConfig config = small_run(10);
  const TemporaryFolder folder;
  { TestRun(folder.path(), config, story_rows(18)).trainer.run(); }
  const auto damaged = folder / "checkpoints/step-000010/model.safetensors";
  const std::string before = read_file(damaged);
  std::string content = before;
  content[content.size() - 9] ^= 1;
  std::ofstream(damaged, std::ios::binary) << content;
  TestRun run(folder.path(), config, story_rows(18));
  EXPECT_TRUE(run.trainer.resume());
  EXPECT_EQ(run.trainer.counters().step, 5);
  EXPECT_NE(run.notes.find("step-000010"), std::string::npos) << run.notes;
  EXPECT_NE(run.notes.find("model.safetensors is not what was written"), std::string::npos) << run.notes;
  EXPECT_EQ(run.trainer.run(), TrainEnd::kFinished);
  EXPECT_EQ(checkpoint_problem(folder / "checkpoints/step-000010"), "");
  EXPECT_EQ(read_file(damaged), before);
}

TEST(Trainer, OtherDataAreRefusedOnResume) {
  const TrainConfig config = small_run(5);
  const TemporaryFolder folder;
  { TestRun(folder.path(), config, story_rows(18)).trainer.run(); }
  TrainRows other = story_rows(18);
  other.fingerprint = "novels";
  TestRun run(folder.path(), config, other);
  EXPECT_THROW(run.trainer.resume(), Error);
}

TEST(Trainer, V2sLossesJoinTheBalanceLoss) {
  const auto balance = [](double alpha) {
    TrainConfig config = small_run(1);
    config.loss.balance_alpha = 0, config.loss.expert_alpha = alpha, config.loss.communication_alpha = alpha;
    Trainer trainer(config, small_model(), story_rows(18), {});
    trainer.run();
    return trainer.progress().balance_loss;
  };
  EXPECT_EQ(balance(0), 0);
  EXPECT_GT(balance(0.01), 0);
  EXPECT_NEAR(balance(0.02), 2 * balance(0.01), 1e-6);
}

// Rows whose tokens are all 127 in [begin, end), a token whose embedding the tests make infinite.
TrainRows poisoned(int64_t begin, int64_t end) {
  TrainRows rows = story_rows(18);
  rows.held_out_NX = Tensor();
  rows.read = [read = rows.read, begin, end](int64_t first, int64_t n) {
    const TrainBatch out = read(first, n);
    for (int64_t i = 0; i < n; ++i)
      if (first + i >= begin && first + i < end) out.window_BX.select(0, i).fill_(127);
    return out;
  };
  return rows;
}

void poison(Trainer& trainer) {
  NoGrad no_grad;
  trainer.model().weights().embedding_WD.select(0, 127).fill_(INFINITY);
}

TEST(Trainer, NonFiniteStepsAreSkippedAndCountedAndRepeatedOnesRollBack) {
  TrainConfig config = small_run(20);
  config.checkpoint.max_skips_in_a_row = 2;
  const TemporaryFolder folder;
  TestRun run(folder.path(), config, poisoned(7 * 4, 12 * 4));  // steps 8 to 12 of the data
  poison(run.trainer);
  EXPECT_EQ(run.trainer.run(), TrainEnd::kFinished);
  const TrainCounters& c = run.trainer.counters();
  EXPECT_EQ(c.rollbacks, 1);
  EXPECT_EQ(c.skipped, 5);  // three before the rollback, two of the rest after it
  EXPECT_EQ(c.step, 20);
  EXPECT_EQ(c.next_row, (20 + 5) * 4);  // from step 5's checkpoint on, the ten rows in between not again
  EXPECT_NE(run.notes.find("back to step 5"), std::string::npos) << run.notes;
}

TEST(Trainer, GivesUpWhenRollingBackDoesNotHelp) {
  TrainConfig config = small_run(40);
  config.checkpoint.max_skips_in_a_row = 1, config.checkpoint.max_rollbacks = 2;
  const TemporaryFolder folder;
  TestRun run(folder.path(), config, poisoned(7 * 4, 1'000'000));
  poison(run.trainer);
  EXPECT_EQ(run.trainer.run(), TrainEnd::kFailed);
  EXPECT_NE(run.notes.find("has not helped 2 times"), std::string::npos) << run.notes;
}

TEST(CheckpointStore, KeepsTheLastOnesAndRemovesWhatAKilledProcessLeft) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "checkpoints/.step-000003.partial");
  { TestRun(folder.path(), small_run(20), story_rows(18)).trainer.run(); }
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "checkpoints"))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"step-000015", "step-000020"}));
}

TEST(CheckpointStore, AFolderOnItsWayOutComesBackIfNothingReplacedIt) {
  const TemporaryFolder folder;
  { TestRun(folder.path(), small_run(5), story_rows(18)).trainer.run(); }
  std::filesystem::rename(folder / "checkpoints/step-000005", folder / "checkpoints/.step-000005.old");
  CheckpointStore store(folder / "checkpoints", 2, true, {}, [](const std::string&) {});
  EXPECT_TRUE(store.newest());
}

TEST(CheckpointStore, BackgroundWritesTheSameBytes) {
  TrainConfig config = small_run(10);
  const TemporaryFolder a, b;
  { TestRun(a.path(), config, story_rows(18)).trainer.run(); }
  config.checkpoint.background = true;
  { TestRun(b.path(), config, story_rows(18)).trainer.run(); }
  for (const char* file :
       {"checkpoints/step-000005/model.safetensors", "checkpoints/step-000010/model.safetensors",
        "checkpoints/step-000005/optimizer.safetensors"})
    EXPECT_EQ(read_file(a / file), read_file(b / file)) << file;
}

TEST(WeightAverage, FollowsTheWeightsByItsDecay) {
  Transformer model(small_model(), random_weights(small_model(), 1));
  WeightAverage average(model, 0.75);
  const Tensor before = model.weights().head_WD.detach().clone();
  model.weights().head_WD.add_(1.0);
  average.update(model);
  EXPECT_TRUE(average.weights().head_WD.allclose(before + 0.25));
}

}  // namespace
}  // namespace hadal
