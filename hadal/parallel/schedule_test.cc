#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/parallel/schedule.h"
#include "hadal/parallel/simulate.h"
#include "tests/support/error_of.h"

namespace hadal {
namespace {

using K = ScheduleKind;

// Times of a chunk when a rank's work is split into `chunks` of them: F = I = W = 1 a rank.
PassTimes chunk_times(int chunks) {
  const double t = 1.0 / chunks;
  return {.forward = t, .input_grad = t, .weight_grad = t, .pair = 3 * t};
}

Simulation run(K kind, int P, int C, int chunks = 1) {
  const int shown = kind == K::kZeroBubbleV ? 2 : chunks;
  const Schedule schedule = make_schedule(kind, {.ranks = P, .microbatches = C, .chunks = chunks});
  return simulate(schedule,
                  kind == K::kInterleaved || kind == K::kZeroBubbleV ? chunk_times(shown) : PassTimes{});
}

double longest_wait(const Simulation& s) {
  return *std::max_element(s.idle.begin(), s.idle.end());
}

// Training spec, 10.2.
TEST(Schedule, MakespansAndWaitsAreThoseOfTheTable) {
  struct Row {
    K kind;
    int P, C, chunks;
    double makespan, idle;
  };
  for (const Row& row : std::vector<Row>{{K::kGPipe, 2, 8, 1, 27, 3},
                                         {K::kOneFOneB, 2, 8, 1, 27, 3},
                                         {K::kZeroBubbleH1, 2, 8, 1, 25, 1},
                                         {K::kZeroBubbleV, 2, 8, 2, 24.5, 0.5},
                                         {K::kInterleaved, 2, 8, 2, 25.5, 1.5},
                                         {K::kInterleaved, 2, 8, 4, 24.75, 0.75},
                                         {K::kGPipe, 4, 16, 1, 57, 9},
                                         {K::kOneFOneB, 4, 16, 1, 57, 9},
                                         {K::kZeroBubbleH1, 4, 16, 1, 51, 3},
                                         {K::kZeroBubbleV, 4, 16, 2, 49.5, 1.5},
                                         {K::kInterleaved, 4, 16, 2, 52.5, 4.5},
                                         {K::kInterleaved, 4, 16, 4, 50.25, 2.25},
                                         {K::kGPipe, 8, 32, 1, 117, 21},
                                         {K::kOneFOneB, 8, 32, 1, 117, 21},
                                         {K::kZeroBubbleH1, 8, 32, 1, 103, 7},
                                         {K::kZeroBubbleV, 8, 32, 2, 99.5, 3.5},
                                         {K::kInterleaved, 8, 32, 2, 106.5, 10.5},
                                         {K::kInterleaved, 8, 32, 4, 101.25, 5.25},
                                         {K::kDualPipe, 2, 4, 1, 12, 0},
                                         {K::kDualPipe, 4, 8, 1, 26, 2},
                                         {K::kDualPipe, 4, 16, 1, 50, 2},
                                         {K::kDualPipe, 8, 16, 1, 54, 6},
                                         {K::kDualPipe, 8, 20, 1, 66, 6},
                                         {K::kDualPipe, 8, 48, 1, 150, 6},
                                         {K::kDualPipeV, 2, 4, 1, 26, 2},
                                         {K::kDualPipeV, 2, 10, 1, 62, 2},
                                         {K::kDualPipeV, 4, 8, 1, 54, 6},
                                         {K::kDualPipeV, 4, 10, 1, 66, 6},
                                         {K::kDualPipeV, 4, 16, 1, 102, 6}}) {
    const Simulation s = run(row.kind, row.P, row.C, row.chunks);
    EXPECT_DOUBLE_EQ(s.makespan, row.makespan) << name(row.kind) << " P " << row.P << " C " << row.C;
    EXPECT_DOUBLE_EQ(longest_wait(s), row.idle) << name(row.kind) << " P " << row.P << " C " << row.C;
  }
}

TEST(Schedule, HeldActivationsAreThoseOfTheTable) {
  using Peaks = std::vector<int>;
  EXPECT_EQ(run(K::kGPipe, 4, 16).peak_held, (Peaks{16, 16, 16, 16}));
  EXPECT_EQ(run(K::kOneFOneB, 4, 16).peak_held, (Peaks{4, 3, 2, 1}));
  EXPECT_EQ(run(K::kInterleaved, 4, 16, 2).peak_held, (Peaks{11, 9, 7, 5}));
  EXPECT_EQ(run(K::kZeroBubbleH1, 4, 16).peak_held, (Peaks{4, 4, 4, 4}));
  EXPECT_EQ(run(K::kDualPipe, 8, 20).peak_held, (Peaks{8, 8, 8, 9, 9, 8, 8, 8}));
  EXPECT_EQ(run(K::kDualPipe, 4, 16).peak_held, (Peaks{4, 5, 5, 4}));
  EXPECT_EQ(run(K::kDualPipeV, 4, 16).peak_held, (Peaks{8, 8, 8, 9}));
  const Simulation h1 = run(K::kZeroBubbleH1, 8, 32);
  for (int r = 0; r < 8; ++r) EXPECT_LE(h1.peak_waiting[static_cast<size_t>(r)], r + 1);
}

// simulate() throws for a deadlock, for what is missing or done twice, and for the wrong rank.
TEST(Schedule, NoneDeadlocksUpTo16RanksAnd64MicroBatches) {
  int tried = 0;
  for (const K kind : all_schedules())
    for (int P = 1; P <= 16; ++P)
      for (int C = 1; C <= 64; ++C)
        for (const int chunks : {1, 2, 3}) {
          if (chunks > 1 && kind != K::kInterleaved) continue;
          Schedule schedule;
          try {
            schedule = make_schedule(kind, {.ranks = P, .microbatches = C, .chunks = chunks});
          } catch (const Error&) {
            continue;  // a shape it cannot have
          }
          ++tried;
          ASSERT_NO_THROW(simulate(schedule, PassTimes{})) << name(kind) << " P " << P << " C " << C;
        }
  EXPECT_GT(tried, 5000);
}

// Training spec, 10.4: so all schedules give the same bits. DualPipe in each of its directions.
TEST(Schedule, WeightGradientsOfAStageComeInAscendingOrder) {
  for (const K kind : all_schedules()) {
    const Schedule schedule = make_schedule(kind, {.ranks = 4, .microbatches = 16});
    for (const std::vector<Action>& actions : schedule.actions) {
      std::map<int, int> last;
      for (const Action& a : actions) {
        const bool pair = a.pass == Pass::kPair;
        if (!pair && a.pass != Pass::kBackward && a.pass != Pass::kWeightGrad) continue;
        const int stage = pair ? a.backward_stage : a.stage, m = pair ? a.backward_microbatch : a.microbatch;
        EXPECT_TRUE(!last.count(stage) || m > last[stage]) << name(kind);
        last[stage] = m;
      }
    }
  }
}

TEST(Schedule, AShapeItCannotHaveIsRefusedWithWhatItNeeds) {
  const auto refusal = [](K kind, int P, int C) {
    return error_of([&] { make_schedule(kind, {.ranks = P, .microbatches = C}); });
  };
  EXPECT_NE(refusal(K::kDualPipe, 3, 8).find("even number of ranks"), std::string::npos);
  EXPECT_NE(refusal(K::kDualPipeV, 4, 7).find("twice as many micro-batches"), std::string::npos);
  EXPECT_NE(refusal(K::kInterleaved, 4, 6).find("multiple of the ranks"), std::string::npos);
  try {
    schedule_kind("dualpip");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("did you mean \"dualpipe\"?"), std::string::npos);
  }
}

TEST(Simulate, ADeadlockNamesWhoWaits) {
  Schedule schedule = make_schedule(K::kOneFOneB, {.ranks = 2, .microbatches = 2});
  std::swap(schedule.actions[1][0], schedule.actions[1][1]);  // a backward before its forward
  try {
    simulate(schedule, PassTimes{});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("1f1b deadlocks: rank 0 at B0@0 rank 1 at B0@1"), std::string::npos)
        << e.what();
  }
}

TEST(Simulate, WhatIsMissingOrDoneTwiceIsFound) {
  Schedule missing = make_schedule(K::kZeroBubbleH1, {.ranks = 2, .microbatches = 2});
  missing.actions[0].pop_back();
  EXPECT_THROW(simulate(missing, PassTimes{}), Error);
  Schedule twice = make_schedule(K::kGPipe, {.ranks = 1, .microbatches = 2});
  twice.actions[0].push_back(twice.actions[0].back());
  EXPECT_THROW(simulate(twice, PassTimes{}), Error);
}

TEST(Simulate, ThePictureHasABoxForEachPass) {
  const Schedule schedule = make_schedule(K::kDualPipe, {.ranks = 2, .microbatches = 4});
  const std::string svg = schedule_svg(schedule, simulate(schedule, PassTimes{}));
  size_t boxes = 0;
  for (size_t at = 0; (at = svg.find("stroke-width", at)) != std::string::npos; ++at) ++boxes;
  size_t passes = 0;
  for (const auto& rank : schedule.actions)
    for (const Action& a : rank) passes += a.pass == Pass::kPair ? 2 : 1;
  EXPECT_EQ(boxes, passes);
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
}

}  // namespace
}  // namespace hadal
