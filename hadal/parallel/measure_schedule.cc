#include "hadal/parallel/measure_schedule.h"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "hadal/base/clock.h"
#include "hadal/parallel/pipeline.h"

namespace hadal {
namespace {

// A chain of stages whose passes sleep.
class Sleeper : public StageWork {
 public:
  Sleeper(int stages, const PassTimes& times) : last_(stages - 1), times_(times) {}

  int64_t forward_size(const StageLink&, int) const override { return 1; }
  int64_t backward_size(const StageLink&, int) const override { return 1; }
  std::vector<Packet> forward(int stage, int, std::vector<Packet>) override {
    peak_held = std::max(peak_held, ++held_);
    return pass(times_.forward, stage < last_);
  }
  std::vector<Packet> backward(int stage, int, std::vector<Packet>, bool input_only) override {
    if (!input_only) --held_;
    return pass(times_.of(input_only ? Pass::kInputGrad : Pass::kBackward), stage > 0);
  }
  void weight_gradients(int, int) override {
    --held_;
    pass(times_.weight_grad, false);
  }

  double busy = 0;  // seconds
  int peak_held = 0;

 private:
  std::vector<Packet> pass(double seconds, bool sends) {
    const double begin = now_seconds();
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    busy += now_seconds() - begin;
    return std::vector<Packet>(sends ? 1 : 0, Packet{0});
  }

  int last_;
  PassTimes times_;
  int held_ = 0;
};

}  // namespace

MeasuredRun measure_schedule(const Schedule& schedule, const PassTimes& times) {
  std::vector<StageLink> links;
  for (int stage = 0; stage + 1 < schedule.stages; ++stage) links.push_back({stage, stage + 1});
  const auto ranks = static_cast<size_t>(schedule.shape.ranks);
  MeasuredRun run{.idle = std::vector<double>(ranks), .peak_held = std::vector<int>(ranks)};
  std::vector<double> begin(ranks), end(ranks);
  run_ranks(schedule.shape.ranks, [&](Comm& comm) {
    const auto r = static_cast<size_t>(comm.rank());
    ::prctl(PR_SET_TIMERSLACK, 1);  // ns; by default a sleep may last 50 us longer
    Sleeper work(schedule.stages, times);
    barrier(comm);
    begin[r] = now_seconds();
    run_pipeline(comm, schedule, links, work);
    end[r] = now_seconds();
    run.idle[r] = -work.busy, run.peak_held[r] = work.peak_held;
  });
  run.makespan = *std::max_element(end.begin(), end.end()) - *std::min_element(begin.begin(), begin.end());
  for (double& idle : run.idle) idle += run.makespan;
  return run;
}

}  // namespace hadal
