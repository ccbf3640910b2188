#include "hadal/planner/train_memory.h"

#include <gtest/gtest.h>

#include "hadal/error.h"
#include "hadal/planner/rank_split.h"
#include "tests/support/small_model.h"

namespace hadal {
namespace {

ModelConfig model() {
  ModelConfig c = small_model();
  c.num_layers = 4, c.mla.num_heads = 4;
  return c;
}

TrainConfig run() {
  TrainConfig c;
  c.batch.sequences = 8, c.batch.length = 16;
  c.checkpoint.background = false;
  return c;
}

std::vector<TrainMemory> of_ranks(const TrainConfig& config, int64_t workers, int64_t ranks) {
  std::vector<TrainMemory> all;
  for (int64_t r = 0; r < ranks; ++r) all.push_back(train_memory(model(), config, workers, r, ranks));
  return all;
}

int64_t sum(const std::vector<TrainMemory>& all, int64_t TrainMemory::*part) {
  int64_t sum = 0;
  for (const TrainMemory& m : all) sum += m.*part;
  return sum;
}

// fp32, with the balance bias, which is no parameter.
int64_t weight_bytes() {
  int64_t values = 0;
  for (const WeightSpec& spec : weight_specs(model())) values += spec.num_values();
  return 4 * values;
}

TEST(TrainMemory, RanksOfAPipelineHaveTheModelOnceAndDualPipeTwice) {
  for (const auto& [schedule, copies] :
       {std::pair{"1f1b", 1}, {"zb-v", 1}, {"dualpipe", 2}, {"dualpipe-v", 1}}) {
    TrainConfig config = run();
    config.parallel.pipeline = 2, config.parallel.schedule = schedule;
    const auto all = of_ranks(config, 4, 2);
    EXPECT_EQ(sum(all, &TrainMemory::weights), copies * weight_bytes()) << schedule;
    EXPECT_EQ(sum(all, &TrainMemory::moments), 2 * copies * weight_bytes()) << schedule;
    config.parallel.shard_optimizer = true;  // over DualPipe's two copies
    EXPECT_EQ(sum(of_ranks(config, 4, 2), &TrainMemory::moments), 2 * weight_bytes()) << schedule;
  }
}

TEST(TrainMemory, RanksShareOutMomentsExpertsHeadsAndColumns) {
  int64_t experts = 0, cut = 0;
  for (const WeightSpec& spec : weight_specs(model())) {
    if (spec.split == WeightSplit::kExperts) experts += 4 * spec.num_values();
    if (spec.cut()) cut += 4 * spec.num_values();
  }
  TrainConfig config = run();
  EXPECT_EQ(sum(of_ranks(config, 4, 4), &TrainMemory::moments), 4 * 2 * weight_bytes());
  config.parallel.shard_optimizer = true;
  EXPECT_NEAR(static_cast<double>(sum(of_ranks(config, 4, 4), &TrainMemory::moments)),
              static_cast<double>(2 * weight_bytes()), 64);
  config = run();
  config.parallel.experts = 2;
  EXPECT_EQ(sum(of_ranks(config, 4, 4), &TrainMemory::weights), 4 * weight_bytes() - 2 * experts);
  config = run();
  config.parallel.tensor = 2;
  EXPECT_EQ(sum(of_ranks(config, 4, 4), &TrainMemory::weights), 4 * weight_bytes() - 2 * cut);
}

// As many slots as the schedule holds, of the stage's own layers.
TEST(TrainMemory, APipelineKeepsTheSlotsThatItsScheduleHolds) {
  TrainConfig config = run();
  config.parallel.pipeline = 2, config.parallel.layers = "2,2";
  const auto first = [&](const char* schedule, int64_t workers) {
    config.parallel.schedule = schedule;
    return train_memory(model(), config, workers, 0, 2);
  };
  const int64_t slot = first("1f1b", 8).activations / 2;  // of 8: P in flight on the first rank
  EXPECT_EQ(first("gpipe", 8).activations, 8 * slot);
  EXPECT_EQ(first("gpipe", 8).others, 7 * slot);
  EXPECT_EQ(first("1f1b", 8).others, slot);
  EXPECT_EQ(first("zb-h1", 8).activations, 2 * slot);
  EXPECT_EQ(first("1f1b", 4).activations, 2 * 2 * slot);  // of twice as many rows
}

// Counted by hand: P values, two slots of which each rank has one.
TEST(TrainMemory, WhatTwoRanksExchangeIsCountedPieceByPiece) {
  TrainConfig config = run();
  const int64_t P = weight_bytes();
  EXPECT_EQ(of_ranks(config, 2, 1)[0].exchange, 0);
  EXPECT_EQ(of_ranks(config, 2, 2)[1].exchange, P + P / 2);  // its gradients, the other's of its half
  EXPECT_EQ(of_ranks(config, 1, 2)[0].exchange, P / 2 + P);  // no slot of one: memory for the sum
  config.parallel.shard_optimizer = true;                    // and the sum of its half
  EXPECT_EQ(of_ranks(config, 2, 2)[1].exchange, 2 * P);
  config.batch.micro = 2;  // slots 0 to 3 and 4 to 7 of 8: one piece each
  EXPECT_EQ(of_ranks(config, 2, 2)[1].exchange, 2 * P);
  EXPECT_EQ(of_ranks(config, 2, 2)[1].sums, 2 * P);  // of slots 0, 1 and of 2, while 3 is computed
}

// Each copy of a stage sees half of the slots: of 0 and 1, or 2 and 3, one sum waits, not that of three.
TEST(TrainMemory, DualPipesCopiesSumHalfOfTheSlotsEach) {
  TrainConfig config = run();
  config.parallel.pipeline = 2;
  config.parallel.schedule = "zb-v";
  EXPECT_EQ(sum(of_ranks(config, 4, 2), &TrainMemory::sums), 2 * weight_bytes());
  config.parallel.schedule = "dualpipe";
  EXPECT_EQ(sum(of_ranks(config, 4, 2), &TrainMemory::sums), 2 * weight_bytes());
}

TEST(TrainMemory, ALayoutThatCannotBeIsRefused) {
  TrainConfig config = run();
  config.parallel.pipeline = 3;
  EXPECT_THROW(train_memory(model(), config, 4, 0, 2), Error);
}

TEST(RankSplit, WithoutWorkersSlotsFillThePipelineOrTheThreads) {
  TrainConfig config = run();
  const auto workers = [&](int64_t ranks) {
    return default_workers(RankSplit(config.parallel, model(), 16, ranks, 0), 3);
  };
  EXPECT_EQ(workers(1), 3);
  EXPECT_EQ(workers(2), 6);
  config.parallel.pipeline = 2;
  EXPECT_EQ(workers(4), 2 * 2 * 2);
  config.parallel.pipeline = 1, config.parallel.tensor = 2;
  EXPECT_EQ(workers(4), 2);
}

}  // namespace
}  // namespace hadal
