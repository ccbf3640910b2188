// What one of the ranks that train a model together holds of its weights: some of the experts, some of the
// heads. Torch-free.
#pragma once
#include "hadal/config/weight_specs.h"

namespace hadal {

struct WeightShare {
  int64_t expert_rank = 0, expert_ranks = 1;  // of those that share out the experts of each layer
  int64_t tensor_rank = 0, tensor_ranks = 1;  // of those that share out heads and the columns of MLPs
  bool whole() const { return expert_ranks == 1 && tensor_ranks == 1; }
};

// Throws invalid_config if experts, heads or columns do not divide.
void check_share(const ModelConfig& config, const WeightShare& share);

// [begin, begin + size) of dimension `dim`, all of the others.
struct WeightPart {
  int64_t dim = 0, begin = 0, size = 0;
};
WeightPart part_of(const WeightSpec& spec, const WeightShare& share);
std::vector<int64_t> shape_of(const WeightSpec& spec, const WeightShare& share);
// Does the share have anything of the weight's leading index `expert`? -1: of the weight, then it has.
bool holds(const WeightShare& share, const WeightSpec& spec, int64_t expert);

}  // namespace hadal
