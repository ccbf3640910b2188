// hadal plan schedule: a pipeline's bubbles before it runs.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/parallel/measure_schedule.h"
#include "hadal/parallel/pipeline.h"
#include "hadal/parallel/simulate.h"

namespace hadal {
namespace {

// `times` are of a rank's layers; a chunk has its share of them.
PassTimes chunk_times(const PlanScheduleOptions& o, const Schedule& schedule) {
  const bool twice = schedule.kind == ScheduleKind::kDualPipe;  // its chunks are whole stages, held twice
  const double share = twice ? 1.0 : static_cast<double>(o.ranks) / schedule.stages;
  return {o.times[0] * share, o.times[1] * share, o.times[2] * share, o.times[3] * share};
}

double longest(const std::vector<double>& idle) {
  return *std::max_element(idle.begin(), idle.end());
}

// A run against the clock, and what it should take; both in the unit of the times.
struct Measured {
  Simulation said;
  MeasuredRun run;
};

Measured measure(const PlanScheduleOptions& o, const Schedule& schedule, const PassTimes& times) {
  const double unit = static_cast<double>(o.measure_ms) / 1e3;
  Measured m{simulate(pairs_in_turn(schedule), times),
             measure_schedule(schedule, {times.forward * unit, times.input_grad * unit,
                                         times.weight_grad * unit, times.pair * unit})};
  m.run.makespan /= unit;
  for (double& idle : m.run.idle) idle /= unit;
  return m;
}

Json measured_json(const PlanScheduleOptions& o, const Measured& m) {
  const auto fields = [](const auto& run) {
    return Json{{"makespan", run.makespan}, {"idle", run.idle}, {"peak_held", run.peak_held}};
  };
  return {{"milliseconds_a_unit", o.measure_ms}, {"run", fields(m.run)}, {"said", fields(m.said)}};
}

void print_measured(const PlanScheduleOptions& o, const Measured& m) {
  char line[200];
  const double said = longest(m.said.idle), ran = longest(m.run.idle);
  std::snprintf(
      line, sizeof line,
      "run with %lld ms a unit, a pair's backward pass before its forward: %.4g long, said %.4g; the "
      "longest wait %.4g, said %.4g\n",
      static_cast<long long>(o.measure_ms), m.run.makespan, m.said.makespan, ran, said);
  print(line);
  print("rank   waits    said   holds    said\n");
  for (size_t r = 0; r < m.run.idle.size(); ++r) {
    std::snprintf(line, sizeof line, "%4zu %7.4g %7.4g %7d %7d\n", r, m.run.idle[r], m.said.idle[r],
                  m.run.peak_held[r], m.said.peak_held[r]);
    print(line);
  }
}

void print_plan(const Schedule& schedule, const Simulation& s) {
  char line[200];
  const double wait = longest(s.idle);
  std::snprintf(line, sizeof line,
                "%s: %d ranks, %d stages, %d micro-batches; %.4g long, the longest wait %.4g (%.1f %%)\n",
                name(schedule.kind), schedule.shape.ranks, schedule.stages, schedule.shape.microbatches,
                s.makespan, wait, 100 * wait / s.makespan);
  print(line);
  print("rank   waits   holds   stages\n");
  for (size_t r = 0; r < s.ranks.size(); ++r) {
    std::string stages;
    for (const int stage : schedule.stages_of(static_cast<int>(r)))
      stages += cat(stages.empty() ? "" : ", ", stage);
    std::snprintf(line, sizeof line, "%4zu %7.4g %7d   %s\n", r, s.idle[r], s.peak_held[r], stages.c_str());
    print(line);
  }
}

Json to_json(const Schedule& schedule, const Simulation& s) {
  Json out{{"schedule", name(schedule.kind)},
           {"ranks", schedule.shape.ranks},
           {"microbatches", schedule.shape.microbatches},
           {"stages", schedule.stages},
           {"makespan", s.makespan}};
  out["idle"] = s.idle;
  out["peak_held"] = s.peak_held;
  out["peak_waiting_for_weight_gradient"] = s.peak_waiting;
  Json ranks = Json::array();
  for (const std::vector<TimedAction>& actions : s.ranks) {
    Json list = Json::array();
    for (const TimedAction& t : actions)
      list.push_back(Json{{"does", text_of(t.action)}, {"begin", t.begin}, {"end", t.end}});
    ranks.push_back(std::move(list));
  }
  out["actions"] = std::move(ranks);
  return out;
}

}  // namespace

int run_plan_schedule(const PlanScheduleOptions& o) {
  const Schedule schedule =
      make_schedule(schedule_kind(o.kind), {.ranks = static_cast<int>(o.ranks),
                                            .microbatches = static_cast<int>(o.microbatches),
                                            .chunks = static_cast<int>(o.chunks)});
  const PassTimes times = chunk_times(o, schedule);
  const Simulation s = simulate(schedule, times);
  std::optional<Measured> measured;
  if (o.measure_ms > 0) measured = measure(o, schedule, times);
  if (!o.svg.empty()) write_file(o.svg, schedule_svg(schedule, s));
  if (o.json) {
    Json out = to_json(schedule, s);
    if (measured) out["measured"] = measured_json(o, *measured);
    print(dump_json(out) + "\n");
    return 0;
  }
  print_plan(schedule, s);
  if (measured) print_measured(o, *measured);
  print(schedule_text(schedule));
  return 0;
}

}  // namespace hadal
