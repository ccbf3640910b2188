#include "hadal/planner/pipeline_run.h"

#include <algorithm>

namespace hadal {
namespace {

constexpr int kPipesPlayed = 6;  // times 2 x ranks micro-batches, before a step is lengthened on paper

size_t at(int i) {
  return static_cast<size_t>(i);
}

// Most that rank's forwards hold, replayed; in a pair one grows as the other shrinks.
double peak_of(const std::vector<TimedAction>& actions, const std::vector<double>& each) {
  double held = 0, peak = 0;
  for (const TimedAction& t : actions) {
    const Action& a = t.action;
    if (a.pass == Pass::kForward || a.pass == Pass::kPair) held += each[at(a.stage)];
    if (a.pass == Pass::kPair) held -= each[at(a.backward_stage)];
    peak = std::max(peak, held);
    if (a.pass == Pass::kBackward || a.pass == Pass::kWeightGrad) held -= each[at(a.stage)];
  }
  return peak;
}

PipelineRun play(ScheduleKind kind, const ScheduleShape& shape, const std::vector<StageTimes>& stages,
                 const std::vector<double>& kept) {
  const Schedule schedule = make_schedule(kind, shape);
  const Simulation s = simulate(schedule, [&](const Action& a) { return seconds_of(a, stages); });
  PipelineRun run{.seconds = s.makespan, .idle = s.idle};
  const std::vector<double> one(stages.size(), 1.0);
  for (const std::vector<TimedAction>& actions : s.ranks) {
    run.peak_kept.push_back(peak_of(actions, kept));
    run.peak_held.push_back(peak_of(actions, one));
  }
  return run;
}

// a + (b - a) * times
void lengthen(double& a, double b, double times) {
  a += (b - a) * times;
}

}  // namespace

double seconds_of(const Action& a, const std::vector<StageTimes>& stages) {
  const StageTimes& s = stages[at(a.stage)];
  switch (a.pass) {
    case Pass::kForward:
      return s.forward + s.forward_exchange;
    case Pass::kBackward:
      return s.input_grad + s.weight_grad + s.backward_exchange;
    case Pass::kInputGrad:
      return s.input_grad + s.backward_exchange;
    case Pass::kWeightGrad:
      return s.weight_grad;
    case Pass::kPair: {
      const StageTimes& b = stages[at(a.backward_stage)];
      return std::max(s.forward + b.input_grad + b.weight_grad, s.forward_exchange + b.backward_exchange);
    }
  }
  return 0;
}

PipelineRun run_pipeline(ScheduleKind kind, const ScheduleShape& shape, const std::vector<StageTimes>& stages,
                         const std::vector<double>& kept) {
  const int step = 2 * shape.ranks;
  const int played = kPipesPlayed * step + shape.microbatches % step;
  if (shape.microbatches <= played + step) return play(kind, shape, stages, kept);
  ScheduleShape shorter = shape;
  shorter.microbatches = played;
  PipelineRun run = play(kind, shorter, stages, kept);
  shorter.microbatches = played + step;
  const PipelineRun longer = play(kind, shorter, stages, kept);
  const double times = static_cast<double>(shape.microbatches - played) / step;
  lengthen(run.seconds, longer.seconds, times);
  for (size_t r = 0; r < run.idle.size(); ++r) {
    lengthen(run.idle[r], longer.idle[r], times);
    lengthen(run.peak_kept[r], longer.peak_kept[r], times);
    lengthen(run.peak_held[r], longer.peak_held[r], times);
  }
  return run;
}

}  // namespace hadal
