// Every pipeline trains the model of one process, bit for bit.
#include <gtest/gtest.h>

#include <cmath>

#include "hadal/checkpoint/load.h"
#include "hadal/error.h"
#include "tests/support/layout_runs.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

constexpr int64_t kSlots = 8;  // enough for DualPipe on four ranks

struct PipelineVariant {
  const char* name;
  int64_t mtp_depth;
  std::function<void(TrainConfig&)> set;
};

std::vector<PipelineVariant> pipeline_variants() {
  return {
      {"balance loss, bias, two MTP modules, clipped", 2,
       [](TrainConfig& c) { c.loss.balance_alpha = 0.1, c.loss.bias_step = 0.1, c.optimizer.clip = 0.05; }},
      {"V2's losses, dropped tokens, selective recomputing, no MTP", 0,
       [](TrainConfig& c) {
         c.loss.expert_alpha = 0.1, c.loss.device_alpha = 0.2, c.loss.communication_alpha = 0.3;
         c.loss.capacity_factor = 1, c.loss.never_dropped_share = 0.3, c.compute.recompute = "selective";
       }},
      {"recomputed, bf16 moments and an average", 1,
       [](TrainConfig& c) {
         c.compute.recompute = "full", c.optimizer.bf16_moments = true, c.optimizer.ema = 0.9;
       }},
  };
}

TrainConfig pipeline_run(const PipelineVariant& variant, int64_t steps = 10) {
  TrainConfig c = layout_run({variant.name, variant.set, variant.mtp_depth}, steps);
  c.batch.sequences = 9, c.batch.workers = kSlots;  // a slot of two rows, seven of one
  return c;
}

void set_pipeline(TrainConfig& c, int64_t ranks, const char* schedule) {
  c.parallel.pipeline = ranks, c.parallel.schedule = schedule;
}

TEST(PipelineLayouts, EveryScheduleOnTwoAndFourRanksTrainsTheModelOfOneProcess) {
  for (const PipelineVariant& variant : pipeline_variants()) {
    TrainConfig config = pipeline_run(variant);
    const TrainRows rows = measured_rows(config, variant.mtp_depth);
    const ModelConfig model = deep_model(variant.mtp_depth);
    const Outcome one = train(config, model, 1, false, rows);
    ASSERT_EQ(one.numbers.size(), 60u);
    ASSERT_FALSE(one.measured.empty());
    for (const int64_t ranks : {2, 4})
      for (const char* schedule : kSchedules) {
        set_pipeline(config, ranks, schedule);
        expect_same_run(train(config, model, ranks, false, rows), one,
                        std::string(variant.name) + ", " + std::to_string(ranks) + " " + schedule);
      }
  }
}

TEST(PipelineLayouts, WithDataParallelRanksAndZeroToo) {
  const PipelineVariant variant = pipeline_variants()[0];
  TrainConfig config = pipeline_run(variant);
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  const ModelConfig model = deep_model(variant.mtp_depth);
  const Outcome one = train(config, model, 1, false, rows);
  for (const char* schedule : kSchedules)
    for (const bool shard : {false, true}) {
      set_pipeline(config, 2, schedule);
      expect_same_run(train(config, model, 4, shard, rows), one,
                      std::string("2 x 2 ") + schedule + (shard ? ", ZeRO-1" : ""));
    }
}

struct Layout {
  int64_t ranks, pipeline;
  const char* schedule;
  bool shard = false;
};

TEST(PipelineLayouts, AnyResumesACheckpointOfAnyOther) {
  const PipelineVariant variant = pipeline_variants()[2];
  const TrainConfig config = pipeline_run(variant);
  const TrainRows rows = measured_rows(config, variant.mtp_depth);
  const ModelConfig model = deep_model(variant.mtp_depth);
  const TemporaryFolder unbroken;
  const Outcome whole = train(config, model, 1, false, rows, unbroken.path());
  const std::vector<Tensor> want = stored(unbroken.path(), model);
  const std::vector<Layout> layouts = {{1, 1, "1f1b"},          {2, 2, "zb-v"},        {4, 2, "1f1b", true},
                                       {2, 2, "dualpipe"},      {4, 4, "interleaved"}, {2, 1, "1f1b", true},
                                       {4, 2, "dualpipe", true}};
  const auto in = [&](const Layout& layout) {
    TrainConfig c = config;
    set_pipeline(c, layout.pipeline, layout.schedule);
    return c;
  };
  for (size_t i = 0; i < layouts.size(); ++i)
    for (const size_t next : {i, (i + 1) % layouts.size()}) {
      const Layout &first = layouts[i], &second = layouts[next];
      const std::string what = std::to_string(i) + " then " + std::to_string(next);
      const TemporaryFolder folder;
      const Outcome begun = train(in(first), model, first.ranks, first.shard, rows, folder.path(), 4);
      EXPECT_EQ(begun.numbers.size(), 24u) << what;
      Outcome ended = train(in(second), model, second.ranks, second.shard, rows, folder.path());
      ended.numbers.insert(ended.numbers.begin(), begun.numbers.begin(), begun.numbers.end());
      ended.measured.insert(ended.measured.begin(), begun.measured.begin(), begun.measured.end());
      expect_same_run(ended, whole, what);
      EXPECT_TRUE(same_bits(stored(folder.path(), model), want)) << what;
    }
}

std::string refusal(const std::function<void(TrainConfig&)>& set, int64_t ranks,
                    ModelConfig model = deep_model(0)) {
  try {
    run_ranks(ranks, [&](Comm& comm) {
      TrainConfig config = pipeline_run(pipeline_variants()[1]);
      set(config);
      Trainer(config, model, bordered_rows(13), {.comm = &comm});
    });
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(PipelineLayouts, ThoseThatCannotBeAreRefusedWithTheirNumbers) {
  EXPECT_NE(
      refusal([](auto& c) { c.parallel.pipeline = 3; }, 2).find("2 ranks are no multiple of pipeline 3"),
      std::string::npos);
  EXPECT_NE(refusal([](auto& c) { set_pipeline(c, 3, "dualpipe"); }, 3).find("an even number of ranks"),
            std::string::npos);
  EXPECT_NE(refusal(
                [](auto& c) {
                  set_pipeline(c, 2, "1f1b");
                  c.parallel.layers = "1,1";
                },
                2)
                .find("2 stages of 2 layers, need 2 stages of 4"),
            std::string::npos);
  ModelConfig tied = deep_model(0);
  tied.tied_head = true;
  EXPECT_NE(refusal([](auto& c) { set_pipeline(c, 2, "1f1b"); }, 2, tied).find("the head is the embedding's"),
            std::string::npos);
}

}  // namespace
}  // namespace hadal
