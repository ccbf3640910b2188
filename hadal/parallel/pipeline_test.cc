#include "hadal/parallel/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>

#include "hadal/error.h"
#include "hadal/parallel/measure_schedule.h"
#include "hadal/parallel/simulate.h"

namespace hadal {
namespace {

// Stages that add up their numbers: activation = sum of inputs * 2 + stage, gradient = sum of gradients * 3 +
// stage. What each pass saw is written down.
class Arithmetic : public StageWork {
 public:
  Arithmetic(std::vector<StageLink> links, int last_stage) : links_(std::move(links)), last_(last_stage) {}

  int64_t forward_size(const StageLink& link, int microbatch) const override {
    return 1 + (link.from + microbatch) % 3;
  }
  int64_t backward_size(const StageLink& link, int microbatch) const override {
    return 1 + (link.to + microbatch) % 2;
  }
  std::vector<Packet> forward(int stage, int microbatch, std::vector<Packet> in) override {
    float sum = static_cast<float>(microbatch);
    for (const Packet& packet : in) sum += packet.back();
    log.push_back({'F', stage, microbatch, sum});
    return packets(&StageLink::from, stage, microbatch, 2 * sum + static_cast<float>(stage));
  }
  std::vector<Packet> backward(int stage, int microbatch, std::vector<Packet> gradients,
                               bool input_only) override {
    float sum = static_cast<float>(microbatch);
    for (const Packet& packet : gradients) sum += packet.back();
    log.push_back({'B', stage, microbatch, sum});
    if (!input_only) weight_gradients(stage, microbatch);
    return packets(&StageLink::to, stage, microbatch, 3 * sum + static_cast<float>(stage));
  }
  void weight_gradients(int stage, int microbatch) override { log.push_back({'W', stage, microbatch, 0}); }

  struct Entry {
    char pass;
    int stage, microbatch;
    float sum;
    auto operator<=>(const Entry&) const = default;
  };
  std::vector<Entry> log;

 private:
  std::vector<Packet> packets(int StageLink::*end, int stage, int microbatch, float value) const {
    std::vector<Packet> out;
    for (const StageLink& link : links_)
      if (link.*end == stage) {
        const bool back = end == &StageLink::to;
        out.emplace_back(back ? backward_size(link, microbatch) : forward_size(link, microbatch));
        out.back().back() = value;
      }
    return out;
  }

  std::vector<StageLink> links_;
  int last_;
};

std::vector<StageLink> chain_with_skip(int stages) {
  std::vector<StageLink> links;
  for (int s = 0; s + 1 < stages; ++s) links.push_back({s, s + 1});
  links.push_back({0, stages - 1});
  return links;
}

using Log = std::vector<Arithmetic::Entry>;

Log run(const Schedule& schedule) {
  Log all;
  std::mutex mutex;
  const std::vector<StageLink> links = chain_with_skip(schedule.stages);
  run_ranks(schedule.shape.ranks, [&](Comm& comm) {
    Arithmetic work(links, schedule.stages - 1);
    run_pipeline(comm, schedule, links, work);
    const std::lock_guard lock(mutex);
    all.insert(all.end(), work.log.begin(), work.log.end());
  });
  std::sort(all.begin(), all.end());
  return all;
}

ScheduleShape shape_for(ScheduleKind kind, int ranks) {
  return {.ranks = ranks, .microbatches = 2 * ranks, .chunks = kind == ScheduleKind::kInterleaved ? 3 : 2};
}

TEST(Pipeline, EveryScheduleComputesWhatOneRankDoes) {
  for (const ScheduleKind kind : all_schedules())
    for (const int ranks : {2, 4}) {
      const Schedule schedule = make_schedule(kind, shape_for(kind, ranks));
      // The same stages one after the other.
      Schedule serial = make_schedule(ScheduleKind::kGPipe, {.ranks = 1, .microbatches = 2 * ranks});
      serial.stages = schedule.stages;
      serial.actions[0].clear();
      for (int m = 0; m < 2 * ranks; ++m) {
        for (int s = 0; s < schedule.stages; ++s) serial.actions[0].push_back({Pass::kForward, s, m});
        for (int s = schedule.stages - 1; s >= 0; --s) serial.actions[0].push_back({Pass::kBackward, s, m});
      }
      serial.kind = ScheduleKind::kInterleaved;  // whose stages are all of its rank
      EXPECT_EQ(run(schedule), run(serial)) << name(kind) << " " << ranks;
    }
}

TEST(Pipeline, ForwardAloneMeetsEveryStageOnce) {
  for (const ScheduleKind kind : all_schedules()) {
    const Schedule schedule = make_schedule(kind, shape_for(kind, 2));
    const Log log = run(forward_only(schedule, 3));
    EXPECT_EQ(log.size(), static_cast<size_t>(3 * schedule.stages)) << name(kind);
    Log whole = run(schedule);
    std::erase_if(whole, [](const auto& entry) { return entry.pass != 'F' || entry.microbatch >= 3; });
    EXPECT_EQ(log, whole) << name(kind);
  }
}

TEST(Pipeline, AMessageThatIsAnotherIsAnErrorNotOtherNumbers) {
  const Schedule schedule = make_schedule(ScheduleKind::kGPipe, {.ranks = 2, .microbatches = 4});
  Schedule other = schedule;  // as if one rank had built another list
  std::swap(other.actions[0][0], other.actions[0][3]);
  const std::vector<StageLink> links = {{0, 1}};
  const auto body = [&](Comm& comm) {
    Arithmetic work(links, 1);
    run_pipeline(comm, comm.rank() == 0 ? other : schedule, links, work);
  };
  try {
    run_ranks(2, body);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("rank 0 sent link 0, back 0, micro-batch 3, rank 1 expects 0, 0, 0"),
              std::string::npos)
        << e.what();
  }
}

// A chain whose passes take time on a clock of the rank's own, that a message which comes later sets: what a
// run takes, without the noise of the machine. A stage is `share` of a rank's layers.
class Clocked : public StageWork {
 public:
  Clocked(int stages, float share) : last_(stages - 1), share_(share) {}
  int64_t forward_size(const StageLink&, int) const override { return 1; }
  int64_t backward_size(const StageLink&, int) const override { return 1; }
  std::vector<Packet> forward(int stage, int, std::vector<Packet> in) override {
    return pass(in, 1, stage < last_);
  }
  std::vector<Packet> backward(int stage, int, std::vector<Packet> in, bool input_only) override {
    return pass(in, input_only ? 1 : 2, stage > 0);
  }
  void weight_gradients(int, int) override { pass({}, 1, false); }
  float now = 0, busy = 0;

 private:
  std::vector<Packet> pass(const std::vector<Packet>& in, float time, bool sends) {
    for (const Packet& packet : in) now = std::max(now, packet[0]);
    now += time * share_, busy += time * share_;
    return std::vector<Packet>(sends ? 1 : 0, Packet{now});
  }
  int last_;
  float share_;
};

// Idle time of the rank that waits longest, until all have ended.
double bubble_of(const Schedule& schedule, float share) {
  std::vector<StageLink> links;
  for (int s = 0; s + 1 < schedule.stages; ++s) links.push_back({s, s + 1});
  std::vector<float> end(static_cast<size_t>(schedule.shape.ranks)), busy(end.size());
  run_ranks(schedule.shape.ranks, [&](Comm& comm) {
    Clocked work(schedule.stages, share);
    run_pipeline(comm, schedule, links, work);
    const auto r = static_cast<size_t>(comm.rank());
    end[r] = work.now, busy[r] = work.busy;
  });
  return *std::max_element(end.begin(), end.end()) - *std::min_element(busy.begin(), busy.end());
}

// Training spec 10.1, with a forward pass and both parts of a backward pass 1. A pair is not one block of 3
// here: its backward's result goes out before its forward, which takes a forward from each hole of DualPipe.
TEST(Pipeline, BubblesOfARunAreThoseOfTheFormulas) {
  constexpr int P = 4, C = 8;
  struct Case {
    ScheduleKind kind;
    float share;
    double bubble;
  };
  using K = ScheduleKind;
  const Case cases[] = {{K::kGPipe, 1, (P - 1) * 3.0},
                        {K::kOneFOneB, 1, (P - 1) * 3.0},
                        {K::kInterleaved, 0.5, (P - 1) * 1.5},
                        {K::kZeroBubbleH1, 1, P - 1.0},
                        {K::kZeroBubbleV, 0.5, (P - 1) * 0.5},
                        {K::kDualPipe, 1, (P / 2 - 1) * (2.0 - 1)},
                        {K::kDualPipeV, 0.5, (P - 1) * (2.0 - 1) * 0.5}};
  for (const Case& c : cases) {
    const Schedule schedule = make_schedule(c.kind, {.ranks = P, .microbatches = C});
    EXPECT_EQ(bubble_of(schedule, c.share), c.bubble) << name(c.kind);
    const Simulation said = simulate(pairs_in_turn(schedule), PassTimes{c.share, c.share, c.share});
    EXPECT_DOUBLE_EQ(*std::max_element(said.idle.begin(), said.idle.end()), c.bubble) << name(c.kind);
  }
}

TEST(Pipeline, PairsInTurnHoldWhatWholePairsHoldAndNeverDeadlock) {
  int tried = 0;
  for (const ScheduleKind kind : {ScheduleKind::kDualPipe, ScheduleKind::kDualPipeV})
    for (int P = 2; P <= 16; P += 2)
      for (int C = 2 * P; C <= 64; C += 2, ++tried) {
        const Schedule schedule = make_schedule(kind, {.ranks = P, .microbatches = C});
        ASSERT_EQ(simulate(pairs_in_turn(schedule), PassTimes{}).peak_held,
                  simulate(schedule, PassTimes{}).peak_held)
            << name(kind) << " P " << P << " C " << C;
      }
  EXPECT_GT(tried, 300);
}

// A sleep never ends early, so what may be said without a quiet machine has one side.
TEST(MeasureSchedule, ARunOfSleepingPassesTakesAtLeastTheSimulatedTimeAndHoldsExactlyItsPeaks) {
  for (const ScheduleKind kind : all_schedules()) {
    const Schedule schedule = make_schedule(kind, {.ranks = 2, .microbatches = 4});
    const PassTimes times{.forward = 2e-3, .input_grad = 1e-3, .weight_grad = 3e-3};
    const Simulation said = simulate(pairs_in_turn(schedule), times);
    const MeasuredRun run = measure_schedule(schedule, times);
    EXPECT_EQ(run.peak_held, said.peak_held) << name(kind);
    EXPECT_GE(run.makespan, said.makespan) << name(kind);
    for (size_t r = 0; r < 2; ++r) {
      // Busy at least as long as its passes are, and never more than the whole.
      EXPECT_LE(run.makespan - run.idle[r] + 1e-9, run.makespan) << name(kind);
      EXPECT_GE(run.makespan - run.idle[r] + 1e-9, said.makespan - said.idle[r]) << name(kind);
    }
  }
}

}  // namespace
}  // namespace hadal
