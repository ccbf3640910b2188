// Every layout of ranks trains the same model, bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mutex>

#include "hadal/config/weight_specs.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "hadal/train/loop.h"
#include "hadal/train/rank_sum.h"
#include "tests/support/small_model.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

constexpr int64_t kWorkers = 4;

// Large enough that embedding and head are cut between ranks.
ModelConfig layout_model(int64_t mtp_depth) {
  ModelConfig c = small_model(mtp_depth);
  c.vocab_size = 700;
  return c;
}

// Rows with a document border each, at places that differ: ranks have unequal numbers of targets.
TrainRows bordered_rows(int64_t X) {
  return {.read =
              [X](int64_t first, int64_t n) {
                std::vector<int64_t> ids, starts;
                for (int64_t row = first; row < first + n; ++row)
                  for (int64_t i = 0; i < X; ++i) {
                    ids.push_back((row * 131 + i * i * 7 + i * 3) % 700);
                    const int64_t border = row % 3 == 0 ? X : 1 + row * 5 % (X - 2);
                    starts.push_back(i < border ? 0 : border);
                  }
                return TrainBatch(from_ints(ids).view({n, X}), from_ints(starts).view({n, X}));
              },
          .fingerprint = "bordered"};
}

struct Variant {
  const char* name;
  std::function<void(TrainConfig&)> set;
  int64_t mtp_depth = 1;
};

std::vector<Variant> variants() {
  return {
      {"plain", [](TrainConfig& c) { c.loss.balance_alpha = 0, c.loss.bias_step = 0; }, 0},
      {"experts, balance loss and bias",
       [](TrainConfig& c) { c.loss.balance_alpha = 0.1, c.loss.bias_step = 0.1; }, 0},
      {"two MTP modules", [](TrainConfig& c) { c.loss.mtp_weight = 0.5; }, 2},
      {"V2's losses",
       [](TrainConfig& c) {
         c.loss.expert_alpha = 0.1, c.loss.device_alpha = 0.2, c.loss.communication_alpha = 0.3;
       }},
      {"dropped tokens",
       [](TrainConfig& c) { c.loss.capacity_factor = 1, c.loss.never_dropped_share = 0.3; }},
      {"clipped", [](TrainConfig& c) { c.optimizer.clip = 0.05; }},
      {"recomputed", [](TrainConfig& c) { c.compute.recompute = "full"; }},
      {"micro-batches", [](TrainConfig& c) { c.batch.sequences = 12, c.batch.micro = 5; }},
      {"bf16 moments and an average",
       [](TrainConfig& c) { c.optimizer.bf16_moments = true, c.optimizer.ema = 0.9; }},
      {"a batch that grows from one row",
       [](TrainConfig& c) { c.batch.start = 1, c.batch.ramp_tokens = 400; }},
  };
}

TrainConfig layout_run(const Variant& variant, int64_t steps = 10) {
  TrainConfig c;
  c.run.steps = steps, c.run.seed = 1, c.data.text = "-";
  c.batch.sequences = 7, c.batch.length = 12, c.batch.workers = kWorkers;
  c.schedule.warmup_steps = 2, c.optimizer.lr = 1e-2;
  c.checkpoint.background = false, c.eval.loads_every = 0;
  variant.set(c);
  return c;
}

// What a run came to: numbers of every step, weights of every rank, the moments.
struct Outcome {
  std::vector<double> numbers;
  std::vector<std::vector<Tensor>> weights;
  std::vector<Tensor> moments;
};

std::vector<Tensor> copies(Transformer& model) {
  std::vector<Tensor> out;
  for_each_weight(model.config(), model.weights(),
                  [&](const WeightSpec&, Tensor& w) { out.push_back(w.detach().clone()); });
  return out;
}

// On `ranks` ranks from where `folder` is, if it is given; stops after `stop_after` steps of this process.
Outcome train(TrainConfig config, int64_t mtp_depth, int64_t ranks, bool shard, TrainRows rows,
              const std::filesystem::path& folder = {}, int64_t stop_after = -1) {
  config.parallel.shard_optimizer = shard;
  Outcome outcome;
  outcome.weights.resize(static_cast<size_t>(ranks));
  run_ranks(ranks, [&](Comm& comm) {
    set_num_threads(1);
    std::optional<CheckpointStore> store;
    std::atomic<bool> stop{false};
    TrainHooks hooks{.stop = &stop, .clock = [] { return 0.0; }, .comm = &comm};
    if (comm.rank() == 0) {
      if (!folder.empty())
        hooks.checkpoints =
            &store.emplace(folder, 2, false, std::map<std::string, std::string>(), [](const std::string&) {});
      hooks.report = [&](const TrainProgress& p) {
        for (const double x : {p.loss, p.mtp_loss, p.balance_loss, p.grad_norm, p.max_violation, p.rate})
          outcome.numbers.push_back(x);
      };
    }
    // A signal that reaches one rank only, the last.
    int64_t reads = 0;
    TrainRows mine = rows;
    mine.read = [&](int64_t first, int64_t n) {
      if (++reads == stop_after && comm.rank() == comm.size() - 1) stop = true;
      return rows.read(first, n);
    };
    Trainer trainer(config, layout_model(mtp_depth), mine, hooks);
    trainer.resume();
    const TrainEnd end = trainer.run();
    EXPECT_EQ(end, stop_after > 0 ? TrainEnd::kStopped : TrainEnd::kFinished);
    outcome.weights[static_cast<size_t>(comm.rank())] = copies(trainer.model());
    std::vector<AdamW::Moments> moments = trainer.gather_state();
    if (comm.rank() == 0)
      for (const AdamW::Moments& each : moments)
        outcome.moments.push_back(each.m.clone()), outcome.moments.push_back(each.v.clone());
  });
  return outcome;
}

bool same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!a[i].flatten().equal(b[i].flatten())) return false;
  return a.size() == b.size();
}

void expect_same(const Outcome& got, const Outcome& want, const std::string& what) {
  EXPECT_EQ(got.numbers, want.numbers) << what;
  for (const std::vector<Tensor>& weights : got.weights)
    EXPECT_TRUE(same_bits(weights, want.weights[0])) << what;
  EXPECT_TRUE(same_bits(got.moments, want.moments)) << what;
}

TEST(RankLayouts, EveryOneTrainsTheModelOfOneProcessBitForBit) {
  for (const Variant& variant : variants()) {
    const TrainConfig config = layout_run(variant);
    const TrainRows rows = bordered_rows(config.batch.length + 1 + variant.mtp_depth);
    const Outcome one = train(config, variant.mtp_depth, 1, false, rows);
    ASSERT_EQ(one.numbers.size(), 60u);
    EXPECT_TRUE(std::isfinite(one.numbers.back()));
    for (const int64_t ranks : {2, 3, 4})
      for (const bool shard : {false, true})
        expect_same(
            train(config, variant.mtp_depth, ranks, shard, rows), one,
            std::string(variant.name) + ", " + std::to_string(ranks) + " ranks" + (shard ? ", ZeRO-1" : ""));
  }
}

TEST(RankLayouts, RanksWithoutRowsTakePart) {
  TrainConfig config = layout_run(variants()[1]);
  config.batch.sequences = 2;
  const TrainRows rows = bordered_rows(config.batch.length + 1);
  const Outcome one = train(config, 0, 1, false, rows);
  for (const bool shard : {false, true})
    expect_same(train(config, 0, 4, shard, rows), one, "2 rows, 4 ranks");
}

TEST(RankLayouts, ANonFiniteGradientOfOneRankIsSkippedByAll) {
  TrainConfig config = layout_run(variants()[1], 6);
  config.optimizer.lr = 1e18;  // overflows by itself after a few steps
  const TrainRows rows = bordered_rows(config.batch.length + 1);
  const Outcome one = train(config, 0, 1, false, rows);
  EXPECT_FALSE(std::isfinite(one.numbers[one.numbers.size() - 3]));
  for (const bool shard : {false, true}) {
    const Outcome two = train(config, 0, 2, shard, rows);
    EXPECT_TRUE(same_bits(two.weights[0], one.weights[0]));
    EXPECT_TRUE(same_bits(two.weights[1], one.weights[0]));
  }
}

TEST(RankLayouts, AnyResumesACheckpointOfAnyOtherBitForBit) {
  const Variant variant = variants()[8];
  const TrainConfig config = layout_run(variant);
  const TrainRows rows = bordered_rows(config.batch.length + 2);
  const Outcome whole = train(config, 1, 1, false, rows);
  struct Layout {
    int64_t ranks;
    bool shard;
  };
  const Layout layouts[] = {{1, false}, {2, false}, {2, true}, {4, true}};
  for (const Layout& first : layouts)
    for (const Layout& second : layouts) {
      const TemporaryFolder folder;
      const Outcome begun =
          train(config, 1, first.ranks, first.shard, rows, folder.path() / "checkpoints", 4);
      EXPECT_EQ(begun.numbers.size(), 24u);
      Outcome ended = train(config, 1, second.ranks, second.shard, rows, folder.path() / "checkpoints");
      ended.numbers.insert(ended.numbers.begin(), begun.numbers.begin(), begun.numbers.end());
      expect_same(ended, whole, std::to_string(first.ranks) + " then " + std::to_string(second.ranks));
    }
}

TEST(RankLayouts, AnotherConfigurationOnOneRankIsRefusedByItsName) {
  const auto body = [](Comm& comm) {
    TrainConfig config = layout_run(variants()[0]);
    if (comm.rank() == 1) config.optimizer.lr = 2e-2;
    Trainer(config, layout_model(0), bordered_rows(13), {.comm = &comm});
  };
  try {
    run_ranks(2, body);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("the configuration of rank 1 is not that of rank 0: got lr = 0.02"),
              std::string::npos)
        << e.what();
  }
}

TEST(RankLayouts, TheRanksMomentsAreEqualSharesOfOneSet) {
  const ModelConfig config = layout_model(1);
  Transformer model(config, random_weights(config, 1));
  int64_t whole = 0, sum = 0, largest = 0;
  AdamW all(model, {});
  for (const AdamW::Moments& each : all.moments()) whole += each.m.numel();
  for (int64_t r = 0; r < 4; ++r) {
    int64_t mine = 0;
    AdamW share(model, {}, {r, 4});
    for (const AdamW::Moments& each : share.moments()) mine += each.m.numel();
    sum += mine, largest = std::max(largest, mine);
  }
  EXPECT_EQ(sum, whole);
  EXPECT_LE(largest, whole / 4 + kShardBlock);
}

}  // namespace
}  // namespace hadal
