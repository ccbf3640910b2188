// A contiguous part of a network, as the ranks of a pipeline share it out. Torch-free.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "hadal/config/weight_specs.h"

namespace hadal {

struct Stage {
  int64_t first_layer = 0, last_layer = 0;       // main layers [first, last)
  bool has_embedding = false, has_head = false;  // head: final norm, head and the MTP modules
  bool operator==(const Stage&) const = default;
};

// All of it.
Stage whole_model(const ModelConfig& config);

bool holds(const ModelConfig& config, const Stage& stage, const WeightSpec& spec);

// Stages of these numbers of main layers, e.g. "3,4,4,3". Throws invalid_config naming list and need if they
// are not `stages` numbers that add up to the model's layers.
std::vector<Stage> listed_stages(const ModelConfig& config, int64_t stages, const std::string& layers);

// The same from numbers.
std::vector<Stage> stages_of_sizes(const std::vector<int64_t>& layers);

}  // namespace hadal
