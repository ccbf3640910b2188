// hadal plan experts: where a served model's experts stand, from what they were given to do.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"
#include "hadal/parallel/eplb.h"

namespace hadal {
namespace {

using Loads = std::vector<std::vector<double>>;

Loads read_loads(const std::string& path) {
  const Json json = parse_json(read_file(path), path);
  const auto numbers = [](const Json& list) {
    return list.is_array() &&
           std::all_of(list.begin(), list.end(), [](const Json& x) { return x.is_number(); });
  };
  if (!json.is_array() || !std::all_of(json.begin(), json.end(), numbers))
    throw Error(ErrorCode::kInvalidArgument, cat("[plan.experts] ", path,
                                                 ": got other JSON, need [[load, ...], ...]: a list for each "
                                                 "layer, with a number for each expert."));
  return json.get<Loads>();
}

// The busiest device's load over the mean.
double imbalance(const std::vector<double>& load, const ExpertPlacement& placement, int64_t devices) {
  const std::vector<double> all = device_loads(load, placement, devices);
  const double sum = std::accumulate(all.begin(), all.end(), 0.0);
  return sum > 0 ? *std::max_element(all.begin(), all.end()) * static_cast<double>(devices) / sum : 1;
}

Json to_json(const Loads& loads, const std::vector<ExpertPlacement>& placements, int64_t devices) {
  Json layers = Json::array();
  for (size_t i = 0; i < loads.size(); ++i)
    layers.push_back(Json{{"expert_of_copy", placements[i].expert_of_copy},
                          {"copies_of_expert", placements[i].copies_of_expert},
                          {"busiest_over_mean", imbalance(loads[i], placements[i], devices)}});
  return Json{{"devices", devices}, {"layers", layers}};
}

}  // namespace

int run_plan_experts(const PlanExpertsOptions& o) {
  const Loads loads = read_loads(o.loads);
  PlacementShape shape{.copies = o.copies, .groups = o.groups, .nodes = o.nodes, .devices = o.devices};
  if (shape.copies == 0 && !loads.empty()) shape.copies = static_cast<int64_t>(loads[0].size());
  const std::vector<ExpertPlacement> placements = place_experts(loads, shape);
  if (o.json) {
    print(dump_json(to_json(loads, placements, o.devices)) + "\n");
    return 0;
  }
  for (size_t i = 0; i < loads.size(); ++i) {
    char line[80];
    std::snprintf(line, sizeof line, "layer %zu: the busiest device has %.2f of the mean\n", i,
                  imbalance(loads[i], placements[i], o.devices));
    print(line);
    const std::vector<int64_t>& experts = placements[i].expert_of_copy;
    const size_t of_device = experts.size() / static_cast<size_t>(o.devices);
    for (size_t d = 0; d < static_cast<size_t>(o.devices); ++d) {
      std::string text = cat("  device ", d, ":");
      for (size_t k = 0; k < of_device; ++k) text += cat(" ", experts[d * of_device + k]);
      print(text + "\n");
    }
  }
  return 0;
}

}  // namespace hadal
