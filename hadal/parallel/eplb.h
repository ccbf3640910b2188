// Which device holds which experts when a model is served: copies of the experts that are busiest, dealt out
// so that devices have equal work (DeepSeek's EPLB; V3 report 3.4.1, training spec 11.2). Torch-free.
#pragma once
#include <cstdint>
#include <vector>

namespace hadal {

// Devices of a node and copies of a device are neighbours: copy p is on device p / (copies / devices).
struct PlacementShape {
  int64_t copies = 0;   // of all experts together, at least one of each
  int64_t groups = 1;   // of experts, as the gate's
  int64_t nodes = 1;    // if they divide the groups, a group stays on one node
  int64_t devices = 1;  // of all nodes
};

// Of one layer.
struct ExpertPlacement {
  std::vector<int64_t> expert_of_copy;                 // [copies]
  std::vector<std::vector<int64_t>> copies_of_expert;  // [experts]; in the order they were added
};

// For each layer from its experts' loads, all layers alike in length. Deterministic: ties go to the lower
// index. Throws invalid_argument for a shape that does not divide or a load that is no number of at least 0.
std::vector<ExpertPlacement> place_experts(const std::vector<std::vector<double>>& loads,
                                           const PlacementShape& shape);

// What each device has to do if the tokens of an expert are shared evenly by its copies.
std::vector<double> device_loads(const std::vector<double>& load, const ExpertPlacement& placement,
                                 int64_t devices);

}  // namespace hadal
