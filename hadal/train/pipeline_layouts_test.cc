// Every pipeline trains the model of one process, bit for bit.
#include <gtest/gtest.h>

#include "tests/support/layout_runs.h"

namespace hadal {
namespace {

constexpr int64_t kSlots = 8;  // enough for DualPipe on four ranks

TrainConfig pipeline_run(const Variant& variant, int64_t steps = 10) {
  TrainConfig c = layout_run(variant, steps);
  c.batch.sequences = 9, c.batch.workers = kSlots;  // a slot of two rows, seven of one
  return c;
}

TEST(PipelineLayouts, EveryScheduleOnTwoAndFourRanksTrainsTheModelOfOneProcess) {
  for (const Variant& variant : spread_variants()) {
    const TrainConfig config = pipeline_run(variant);
    const TrainRows rows = measured_rows(config, variant.mtp_depth);
    const ModelConfig model = deep_model(variant.mtp_depth);
    const Outcome one = train(config, model, kAlone, rows);
    ASSERT_EQ(one.numbers.size(), 60u);
    ASSERT_FALSE(one.measured.empty());
    for (const int64_t ranks : {2, 4})
      for (const char* schedule : kSchedules) {
        const Layout layout{.ranks = ranks, .pipeline = ranks, .schedule = schedule};
        expect_same_run(train(config, model, layout, rows), one,
                        std::string(variant.name) + ", " + layout.text());
      }
  }
}

TEST(PipelineLayouts, WithDataParallelRanksAndZeroToo) {
  const Variant variant = spread_variants()[0];
  const TrainConfig config = pipeline_run(variant);
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  const ModelConfig model = deep_model(variant.mtp_depth);
  const Outcome one = train(config, model, kAlone, rows);
  for (const char* schedule : kSchedules)
    for (const bool shard : {false, true}) {
      const Layout layout{.ranks = 4, .pipeline = 2, .schedule = schedule, .shard = shard};
      expect_same_run(train(config, model, layout, rows), one, layout.text());
    }
}

TEST(PipelineLayouts, AnyResumesACheckpointOfAnyOther) {
  const Variant variant = spread_variants()[2];
  const TrainConfig config = pipeline_run(variant);
  expect_any_goes_on_in_another_bit_for_bit(
      config, deep_model(variant.mtp_depth), measured_rows(config, variant.mtp_depth),
      {kAlone,
       {.ranks = 2, .pipeline = 2, .schedule = "zb-v"},
       {.ranks = 4, .pipeline = 2, .shard = true},
       {.ranks = 2, .pipeline = 2, .schedule = "dualpipe"},
       {.ranks = 4, .pipeline = 4, .schedule = "interleaved"},
       {.ranks = 2, .shard = true},
       {.ranks = 4, .pipeline = 2, .schedule = "dualpipe", .shard = true}});
}

TEST(PipelineLayouts, ThoseThatCannotBeAreRefusedWithTheirNumbers) {
  const auto expect = [](const Layout& layout, const char* want,
                         const std::function<void(TrainConfig&, ModelConfig&)>& set = {}) {
    const std::string got = refusal(
        layout.ranks,
        [&](TrainConfig& c, ModelConfig& m, TrainRows&) {
          if (set) set(c, m);
        },
        layout.in(pipeline_run(spread_variants()[1])), deep_model(0), bordered_rows(13));
    EXPECT_NE(got.find(want), std::string::npos) << got;
  };
  expect({.ranks = 2, .pipeline = 3}, "2 ranks are no multiple of pipeline 3");
  expect({.ranks = 3, .pipeline = 3, .schedule = "dualpipe"}, "an even number of ranks");
  expect({.ranks = 2, .pipeline = 2}, "2 stages of 2 layers, need 2 stages of 4",
         [](TrainConfig& c, ModelConfig&) { c.parallel.layers = "1,1"; });
  expect({.ranks = 2, .pipeline = 2}, "the head is the embedding's",
         [](TrainConfig&, ModelConfig& m) { m.tied_head = true; });
}

}  // namespace
}  // namespace hadal
