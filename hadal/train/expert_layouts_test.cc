// Ranks that share out the experts of each layer train the model of one process, bit for bit.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/layout_runs.h"

namespace hadal {
namespace {

std::vector<Variant> expert_variants() {
  std::vector<Variant> all = spread_variants();
  all.push_back({"micro-batches, of which the last is one row",
                 [](TrainConfig& c) { c.batch.sequences = 11, c.batch.micro = 5; }});
  all.push_back({"a batch that grows from one row",
                 [](TrainConfig& c) { c.batch.start = 1, c.batch.ramp_tokens = 400; }});
  return all;
}

// Two ranks with half of the experts each, four with a quarter, two of such pairs.
std::vector<Layout> blocks(bool shard) {
  return {{.ranks = 2, .experts = 2, .shard = shard},
          {.ranks = 4, .experts = 4, .shard = shard},
          {.ranks = 4, .experts = 2, .shard = shard}};
}

TEST(ExpertLayouts, EveryBlockOfRanksTrainsTheModelOfOneProcess) {
  for (const Variant& variant : expert_variants()) {
    const TrainConfig config = layout_run(variant);
    const TrainRows rows = measured_rows(config, variant.mtp_depth);
    const ModelConfig model = layout_model(variant.mtp_depth);
    const Outcome one = train(config, model, kAlone, rows);
    ASSERT_EQ(one.numbers.size(), 60u);
    ASSERT_FALSE(one.measured.empty());
    for (const bool shard : {false, true})
      for (const Layout& layout : blocks(shard))
        expect_same_run(train(config, model, layout, rows), one,
                        std::string(variant.name) + ", " + layout.text());
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
    for (const Layout& layout : blocks(shard))
      expect_same_run(train(config, model, layout, rows), one, layout.text());
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
        const Layout layout{.ranks = 4, .pipeline = 2, .schedule = schedule, .experts = 2, .shard = shard};
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
    const Layout layout{.ranks = 4, .pipeline = 2, .schedule = schedule, .experts = 2};
    expect_same_run(train(config, model, layout, rows), one, layout.text());
  }
}

TEST(ExpertLayouts, ANonFiniteGradientIsSkippedByAll) {
  TrainConfig config = layout_run(variants()[1], 6);
  config.optimizer.lr = 1e18;  // overflows by itself after a few steps
  const TrainRows rows = bordered_rows(config.batch.length + 1);
  const Outcome one = train(config, layout_model(0), kAlone, rows);
  EXPECT_FALSE(std::isfinite(one.numbers[one.numbers.size() - 3]));
  EXPECT_TRUE(same_weights(train(config, layout_model(0), {.ranks = 2, .experts = 2}, rows), one));
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
  expect_any_goes_on_in_another_bit_for_bit(
      config, deep_model(variant.mtp_depth), measured_rows(config, variant.mtp_depth),
      {kAlone,
       {.ranks = 2, .experts = 2},
       {.ranks = 4, .experts = 4, .shard = true},
       {.ranks = 4, .experts = 2},
       {.ranks = 2, .pipeline = 2, .schedule = "zb-v"},
       {.ranks = 4, .pipeline = 2, .schedule = "dualpipe", .experts = 2, .shard = true},
       {.ranks = 2, .shard = true},
       {.ranks = 4, .experts = 2, .shard = true},
       {.ranks = 4, .pipeline = 2, .schedule = "zb-h1", .experts = 2}});
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

TEST(ExpertLayouts, ThoseThatCannotBeAreRefusedWithTheirNumbers) {
  using C = TrainConfig;
  using M = ModelConfig;
  const auto expect = [](int64_t ranks, const char* want,
                         const std::function<void(C&, M&, TrainRows&)>& set) {
    TrainConfig config = layout_run(expert_variants()[1]);
    config.parallel.experts = 2;
    const std::string got = refusal(ranks, set, config, layout_model(0), bordered_rows(13));
    EXPECT_NE(got.find(want), std::string::npos) << got;
  };
  expect(3, "experts are spread over 2 of 3 data ranks", [](C&, M&, TrainRows&) {});
  expect(3, "cannot be shared out evenly: got 3 ranks, need a divisor of 8. Change parallel.experts.",
         [](C& c, M&, TrainRows&) { c.parallel.experts = 3; });
  expect(2, "experts 2: the model has no layer with experts. Set parallel.experts to 1.",
         [](C&, M& m, TrainRows&) { m.moe.first_layer = m.num_layers; });
  expect(2, "experts 2 with compute.precision bf16: rows go to other ranks' experts in f32.",
         [](C& c, M&, TrainRows&) { c.compute.precision = "bf16"; });
  expect(2, "only the next token is trained on by ranks that share a model out",
         [](C&, M&, TrainRows& rows) { rows.objective.run = [](auto&&...) { return StepLoss(); }; });
}

}  // namespace
}  // namespace hadal
