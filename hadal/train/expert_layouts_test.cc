// Ranks that share out the experts of each layer train the model of one process, bit for bit.
#include <gtest/gtest.h>

#include <cmath>

#include "hadal/error.h"
#include "tests/support/layout_runs.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

struct Layout {
  int64_t ranks, experts, pipeline = 1;
  const char* schedule = "1f1b";
  bool shard = false;

  std::string text() const {
    return std::to_string(ranks) + " ranks, experts over " + std::to_string(experts) + ", pipeline " +
           std::to_string(pipeline) + " " + schedule + (shard ? ", ZeRO-1" : "");
  }
};

std::vector<Variant> expert_variants() {
  return {
      {"balance loss, bias, two MTP modules, clipped",
       [](TrainConfig& c) { c.loss.balance_alpha = 0.1, c.loss.bias_step = 0.1, c.optimizer.clip = 0.05; },
       2},
      {"V2's losses, dropped tokens, selective recomputing, no MTP",
       [](TrainConfig& c) {
         c.loss.expert_alpha = 0.1, c.loss.device_alpha = 0.2, c.loss.communication_alpha = 0.3;
         c.loss.capacity_factor = 1, c.loss.never_dropped_share = 0.3, c.compute.recompute = "selective";
       },
       0},
      {"recomputed, bf16 moments and an average",
       [](TrainConfig& c) {
         c.compute.recompute = "full", c.optimizer.bf16_moments = true, c.optimizer.ema = 0.9;
       }},
      {"micro-batches, of which the last is one row",
       [](TrainConfig& c) { c.batch.sequences = 11, c.batch.micro = 5; }},
      {"a batch that grows from one row",
       [](TrainConfig& c) { c.batch.start = 1, c.batch.ramp_tokens = 400; }},
  };
}

Outcome train(TrainConfig config, const ModelConfig& model, const Layout& layout, const TrainRows& rows,
              const std::filesystem::path& folder = {}, int64_t stop_after = -1) {
  config.parallel.experts = layout.experts, config.parallel.pipeline = layout.pipeline;
  config.parallel.schedule = layout.schedule;
  return train(config, model, layout.ranks, layout.shard, rows, folder, stop_after);
}

const Layout kAlone{1, 1};

TEST(ExpertLayouts, EveryBlockOfRanksTrainsTheModelOfOneProcess) {
  for (const Variant& variant : expert_variants()) {
    const TrainConfig config = layout_run(variant);
    const TrainRows rows = measured_rows(config, variant.mtp_depth);
    const ModelConfig model = layout_model(variant.mtp_depth);
    const Outcome one = train(config, model, kAlone, rows);
    ASSERT_EQ(one.numbers.size(), 60u);
    ASSERT_FALSE(one.measured.empty());
    for (const bool shard : {false, true})
      for (Layout layout : {Layout{2, 2}, Layout{4, 4}, Layout{4, 2}}) {
        layout.shard = shard;
        expect_same_run(train(config, model, layout, rows), one,
                        std::string(variant.name) + ", " + layout.text());
      }
  }
}

// Experts larger than a block of the norm's sums, and no multiple of one.
TEST(ExpertLayouts, LargeExpertsHaveTheNormOfOneProcess) {
  const Variant variant = expert_variants()[2];
  const TrainConfig config = layout_run(variant, 2);
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  ModelConfig model = layout_model(variant.mtp_depth);
  model.moe.expert_dim = 520;
  const Outcome one = train(config, model, kAlone, rows);
  for (const bool shard : {false, true})
    for (Layout layout : {Layout{2, 2}, Layout{4, 2}}) {
      layout.shard = shard;
      expect_same_run(train(config, model, layout, rows), one, layout.text());
    }
}

TEST(ExpertLayouts, PipelinesOfEveryScheduleToo) {
  for (const size_t i : {0, 2}) {
    const Variant variant = expert_variants()[i];
    TrainConfig config = layout_run(variant, 4);
    config.batch.sequences = 9, config.batch.workers = 8;
    const TrainRows rows = measured_rows(config, variant.mtp_depth);
    const ModelConfig model = deep_model(variant.mtp_depth);
    const Outcome one = train(config, model, kAlone, rows);
    for (const char* schedule : kSchedules)
      for (const bool shard : {false, true}) {
        const Layout layout{4, 2, 2, schedule, shard};
        expect_same_run(train(config, model, layout, rows), one,
                        std::string(variant.name) + ", " + layout.text());
      }
  }
}

TEST(ExpertLayouts, APipelineWithUnequalNumbersOfSlotsGoesOnWithoutRows) {
  const Variant variant = expert_variants()[0];
  TrainConfig config = layout_run(variant, 3);
  config.batch.workers = 5;
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  const ModelConfig model = deep_model(variant.mtp_depth);
  const Outcome one = train(config, model, kAlone, rows);
  for (const char* schedule : {"gpipe", "1f1b", "zb-h1"}) {
    const Layout layout{4, 2, 2, schedule};
    expect_same_run(train(config, model, layout, rows), one, layout.text());
  }
}

TEST(ExpertLayouts, ANonFiniteGradientIsSkippedByAll) {
  TrainConfig config = layout_run(variants()[1], 6);
  config.optimizer.lr = 1e18;  // overflows by itself after a few steps
  const TrainRows rows = bordered_rows(config.batch.length + 1);
  const Outcome one = train(config, layout_model(0), kAlone, rows);
  EXPECT_FALSE(std::isfinite(one.numbers[one.numbers.size() - 3]));
  EXPECT_TRUE(same_weights(train(config, layout_model(0), {2, 2}, rows), one));
}

// Diverges, goes back to the start, diverges again and gives up.
Outcome rolled_back(TrainConfig config, int64_t ranks) {
  config.optimizer.lr = 1e18, config.run.steps = 40;
  config.checkpoint.max_skips_in_a_row = 1, config.checkpoint.max_rollbacks = 1;
  config.parallel.experts = ranks;
  Outcome outcome;
  outcome.weights.resize(static_cast<size_t>(ranks));
  run_ranks(ranks, [&](Comm& comm) {
    set_num_threads(1);
    TrainHooks hooks{.clock = [] { return 0.0; }, .comm = &comm};
    if (comm.rank() == 0) hooks.report = [&](const TrainProgress& p) { outcome.numbers.push_back(p.loss); };
    Trainer trainer(config, layout_model(0), bordered_rows(config.batch.length + 1), hooks);
    EXPECT_EQ(trainer.run(), TrainEnd::kFailed);
    EXPECT_EQ(trainer.counters().rollbacks, 1);
    outcome.weights[static_cast<size_t>(comm.rank())] = copies(trainer.model());
  });
  return outcome;
}

TEST(ExpertLayouts, GoingBackToTheStartIsThatOfOneProcess) {
  const TrainConfig config = layout_run(variants()[1]);
  const Outcome one = rolled_back(config, 1);
  ASSERT_EQ(one.numbers.size(), 4u);  // a step and what comes of it, twice
  for (const int64_t experts : {2, 4}) {
    const Outcome got = rolled_back(config, experts);
    ASSERT_EQ(got.numbers.size(), one.numbers.size());
    for (size_t i = 0; i < one.numbers.size(); ++i)  // NaN is NaN
      EXPECT_TRUE(got.numbers[i] == one.numbers[i] ||
                  (std::isnan(got.numbers[i]) && std::isnan(one.numbers[i])))
          << i << ", experts over " << experts;
    EXPECT_TRUE(same_weights(got, one)) << experts;
  }
}

TEST(ExpertLayouts, AnyResumesACheckpointOfAnyOther) {
  const Variant variant = expert_variants()[2];
  TrainConfig config = layout_run(variant);
  config.batch.sequences = 9, config.batch.workers = 8;
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  const ModelConfig model = deep_model(variant.mtp_depth);
  const TemporaryFolder unbroken;
  const Outcome whole = train(config, model, kAlone, rows, unbroken.path());
  const std::vector<Tensor> want = stored(unbroken.path(), model);
  const std::vector<Layout> layouts = {{1, 1},
                                       {2, 2},
                                       {4, 4, 1, "1f1b", true},
                                       {4, 2},
                                       {2, 1, 2, "zb-v"},
                                       {4, 2, 2, "dualpipe", true},
                                       {2, 1, 1, "1f1b", true},
                                       {4, 2, 1, "1f1b", true},
                                       {4, 2, 2, "zb-h1"}};
  for (size_t i = 0; i < layouts.size(); ++i)
    for (const size_t next : {i, (i + 1) % layouts.size()}) {
      const std::string what = layouts[i].text() + "; then " + layouts[next].text();
      const TemporaryFolder folder;
      const Outcome begun = train(config, model, layouts[i], rows, folder.path(), 4);
      EXPECT_EQ(begun.numbers.size(), 24u) << what;
      Outcome ended = train(config, model, layouts[next], rows, folder.path());
      ended.numbers.insert(ended.numbers.begin(), begun.numbers.begin(), begun.numbers.end());
      ended.measured.insert(ended.measured.begin(), begun.measured.begin(), begun.measured.end());
      expect_same_run(ended, whole, what);
      EXPECT_TRUE(same_bits(stored(folder.path(), model), want)) << what;
    }
}

TEST(ExpertLayouts, GivenWeightsAreCutAsRandomOnesAre) {
  const ModelConfig config = layout_model(1);
  const ModelWeights whole = random_weights(config, 1);
  for (int64_t rank = 0; rank < 4; ++rank) {
    const WeightShare share{.expert_rank = rank, .expert_ranks = 4};
    ModelWeights want = random_weights(config, 1, share), got = cut_to(config, whole, share);
    std::map<std::string, Tensor> by_name;
    for_each_weight(config, want, [&](const WeightSpec& spec, Tensor& w) { by_name[spec.name] = w; });
    for_each_weight(config, got, [&](const WeightSpec& spec, Tensor& w) {
      EXPECT_TRUE(w.equal(by_name.at(spec.name))) << spec.name << " of rank " << rank;
    });
  }
}

std::string refusal(int64_t ranks, const std::function<void(TrainConfig&, ModelConfig&, TrainRows&)>& set) {
  try {
    run_ranks(ranks, [&](Comm& comm) {
      TrainConfig config = layout_run(expert_variants()[1]);
      ModelConfig model = layout_model(0);
      TrainRows rows = bordered_rows(13);
      config.parallel.experts = 2;
      set(config, model, rows);
      Trainer(config, model, rows, {.comm = &comm});
    });
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(ExpertLayouts, ThoseThatCannotBeAreRefusedWithTheirNumbers) {
  using C = TrainConfig;
  using M = ModelConfig;
  const auto expect = [](const std::string& got, const char* want) {
    EXPECT_NE(got.find(want), std::string::npos) << got;
  };
  expect(refusal(3, [](C&, M&, TrainRows&) {}), "experts are spread over 2 of 3 data ranks");
  expect(refusal(3, [](C& c, M&, TrainRows&) { c.parallel.experts = 3; }),
         "cannot be shared out evenly: got 3 ranks, need a divisor of 8. Change parallel.experts.");
  expect(refusal(2, [](C&, M& m, TrainRows&) { m.moe.first_layer = m.num_layers; }),
         "experts 2: the model has no layer with experts. Set parallel.experts to 1.");
  expect(refusal(2, [](C& c, M&, TrainRows&) { c.compute.precision = "bf16"; }),
         "experts 2 with compute.precision bf16: rows go to other ranks' experts in f32.");
  expect(
      refusal(2, [](C&, M&, TrainRows& rows) { rows.objective.run = [](auto&&...) { return StepLoss(); }; }),
      "only the next token is trained on by ranks that share a model out");
}

}  // namespace
}  // namespace hadal
