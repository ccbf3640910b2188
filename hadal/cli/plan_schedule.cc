// hadal plan schedule: a pipeline's bubbles before it runs.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/parallel/simulate.h"

namespace hadal {
namespace {

// `times` are of a rank's layers; a chunk has its share of them.
PassTimes chunk_times(const PlanScheduleOptions& o, const Schedule& schedule) {
  const bool twice = schedule.kind == ScheduleKind::kDualPipe;  // its chunks are whole stages, held twice
  const double share = twice ? 1.0 : static_cast<double>(o.ranks) / schedule.stages;
  return {o.times[0] * share, o.times[1] * share, o.times[2] * share, o.times[3] * share};
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
  const Simulation s = simulate(schedule, chunk_times(o, schedule));
  if (!o.svg.empty()) write_file(o.svg, schedule_svg(schedule, s));
  if (o.json) {
    print(dump_json(to_json(schedule, s)) + "\n");
    return 0;
  }
  const double longest = *std::max_element(s.idle.begin(), s.idle.end());
  char line[200];
  std::snprintf(line, sizeof line,
                "%s: %d ranks, %d stages, %d micro-batches; %.4g long, the longest wait %.4g (%.1f %%)\n",
                name(schedule.kind), schedule.shape.ranks, schedule.stages, schedule.shape.microbatches,
                s.makespan, longest, 100 * longest / s.makespan);
  print(line);
  print("rank   waits   holds   stages\n");
  for (size_t r = 0; r < s.ranks.size(); ++r) {
    std::string stages;
    for (const int stage : schedule.stages_of(static_cast<int>(r)))
      stages += cat(stages.empty() ? "" : ", ", stage);
    std::snprintf(line, sizeof line, "%4zu %7.4g %7d   %s\n", r, s.idle[r], s.peak_held[r], stages.c_str());
    print(line);
  }
  print(schedule_text(schedule));
  return 0;
}

}  // namespace hadal
