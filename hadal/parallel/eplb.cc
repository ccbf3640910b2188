#include "hadal/parallel/eplb.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

using Indices = std::vector<int64_t>;

int64_t count(const auto& x) {
  return static_cast<int64_t>(x.size());
}

// Items into `packs` of equal count: the heaviest first, each into the lightest pack that has room. Returns
// the items in their new order, pack by pack.
Indices packed(const std::vector<double>& weight, int64_t packs) {
  const int64_t room = count(weight) / packs;
  Indices order(weight.size());
  std::iota(order.begin(), order.end(), 0);
  if (room == 1) return order;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return weight[static_cast<size_t>(a)] > weight[static_cast<size_t>(b)];
  });
  std::vector<Indices> pack(static_cast<size_t>(packs));
  std::vector<double> load(pack.size());
  for (const int64_t item : order) {
    size_t best = pack.size();
    for (size_t p = 0; p < pack.size(); ++p)
      if (count(pack[p]) < room && (best == pack.size() || load[p] < load[best])) best = p;
    pack[best].push_back(item);
    load[best] += weight[static_cast<size_t>(item)];
  }
  Indices all;
  for (const Indices& one : pack) all.insert(all.end(), one.begin(), one.end());
  return all;
}

// The expert of each of `copies` copies: one each, then one more of whichever has most load a copy.
struct Copies {
  Indices expert, rank;       // of each copy; rank: which copy of its expert it is
  std::vector<double> count;  // of each expert
};
Copies replicated(const std::vector<double>& load, int64_t copies) {
  Copies all;
  all.count.assign(load.size(), 0);
  for (int64_t copy = 0; copy < copies; ++copy) {
    size_t expert = static_cast<size_t>(copy);
    if (copy >= count(load)) {
      expert = 0;
      for (size_t e = 1; e < load.size(); ++e)
        if (load[e] / all.count[e] > load[expert] / all.count[expert]) expert = e;
    }
    all.expert.push_back(static_cast<int64_t>(expert));
    all.rank.push_back(static_cast<int64_t>(all.count[expert]++));
  }
  return all;
}

// Experts in the order of their nodes.
Indices node_order(const std::vector<double>& load, const PlacementShape& shape) {
  const int64_t in_group = count(load) / shape.groups;
  std::vector<double> group(static_cast<size_t>(shape.groups));
  for (int64_t e = 0; e < count(load); ++e)
    group[static_cast<size_t>(e / in_group)] += load[static_cast<size_t>(e)];
  Indices order;
  for (const int64_t g : packed(group, shape.nodes))
    for (int64_t i = 0; i < in_group; ++i) order.push_back(g * in_group + i);
  return order;
}

ExpertPlacement place(const std::vector<double>& load, const PlacementShape& shape) {
  const Indices order = node_order(load, shape);
  const int64_t experts = count(load) / shape.nodes, copies = shape.copies / shape.nodes;
  ExpertPlacement placement;
  placement.copies_of_expert.resize(load.size());
  for (int64_t node = 0; node < shape.nodes; ++node) {
    std::vector<double> here;
    for (int64_t i = 0; i < experts; ++i)
      here.push_back(load[static_cast<size_t>(order[static_cast<size_t>(node * experts + i)])]);
    const Copies all = replicated(here, copies);
    std::vector<double> share;
    for (const int64_t e : all.expert)
      share.push_back(here[static_cast<size_t>(e)] / all.count[static_cast<size_t>(e)]);
    for (const int64_t copy : packed(share, shape.devices / shape.nodes)) {
      const int64_t local = all.expert[static_cast<size_t>(copy)];
      const int64_t expert = order[static_cast<size_t>(node * experts + local)];
      Indices& places = placement.copies_of_expert[static_cast<size_t>(expert)];
      places.resize(static_cast<size_t>(all.count[static_cast<size_t>(local)]));
      places[static_cast<size_t>(all.rank[static_cast<size_t>(copy)])] = count(placement.expert_of_copy);
      placement.expert_of_copy.push_back(expert);
    }
  }
  return placement;
}

void require(bool good, const std::string& what) {
  if (!good) throw Error(ErrorCode::kInvalidArgument, "[parallel.experts] " + what);
}

void check(const std::vector<std::vector<double>>& loads, const PlacementShape& s) {
  require(!loads.empty() && !loads[0].empty(), "there are no loads: need a list of numbers for each layer.");
  const int64_t N = count(loads[0]);
  for (size_t layer = 0; layer < loads.size(); ++layer) {
    require(count(loads[layer]) == N, cat("layer ", layer, " has ", loads[layer].size(),
                                          " loads, layer 0 has ", N, ". Give one for each expert."));
    for (const double load : loads[layer])
      require(std::isfinite(load) && load >= 0,
              cat("layer ", layer, " has the load ", load, ": need a number of at least 0."));
  }
  require(s.groups >= 1 && s.nodes >= 1 && s.devices >= 1,
          cat("got ", s.groups, " groups, ", s.nodes, " nodes, ", s.devices, " devices: need 1 at least."));
  require(s.copies >= N, cat("got ", s.copies, " copies, need one at least of each of ", N, " experts."));
  require(N % s.groups == 0, cat(N, " experts are not a multiple of ", s.groups, " groups."));
  require(s.devices % s.nodes == 0, cat(s.devices, " devices are not a multiple of ", s.nodes, " nodes."));
  require(s.copies % s.devices == 0,
          cat(s.copies, " copies are not a multiple of ", s.devices, " devices: all hold the same number."));
}

}  // namespace

std::vector<ExpertPlacement> place_experts(const std::vector<std::vector<double>>& loads,
                                           const PlacementShape& shape) {
  check(loads, shape);
  PlacementShape used = shape;
  if (shape.groups % shape.nodes != 0) used.groups = used.nodes = 1;
  std::vector<ExpertPlacement> placements;
  for (const std::vector<double>& load : loads) placements.push_back(place(load, used));
  return placements;
}

std::vector<double> device_loads(const std::vector<double>& load, const ExpertPlacement& placement,
                                 int64_t devices) {
  const int64_t of_device = count(placement.expert_of_copy) / devices;
  std::vector<double> sum(static_cast<size_t>(devices));
  for (size_t e = 0; e < load.size(); ++e)
    for (const int64_t copy : placement.copies_of_expert[e])
      sum[static_cast<size_t>(copy / of_device)] +=
          load[e] / static_cast<double>(placement.copies_of_expert[e].size());
  return sum;
}

}  // namespace hadal
