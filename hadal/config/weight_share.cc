#include "hadal/config/weight_share.h"

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

// A split dimension, and over how many ranks, as which of them.
struct Cut {
  size_t dim = 0;
  int64_t ranks = 1, rank = 0;
};
Cut cut_of(const WeightSpec& spec, const WeightShare& share) {
  switch (spec.split) {
    case WeightSplit::kNone:
      break;
    case WeightSplit::kExperts:
      return {0, share.expert_ranks, share.expert_rank};
    case WeightSplit::kOutputs:
      return {0, share.tensor_ranks, share.tensor_rank};
    case WeightSplit::kInputs:
      return {spec.shape.size() - 1, share.tensor_ranks, share.tensor_rank};
  }
  return {};
}

[[noreturn]] void refuse(const std::string& what, int64_t n, int64_t ranks, const char* key) {
  throw Error(ErrorCode::kInvalidConfig,
              cat("[config.share] ", what, " cannot be shared out evenly: got ", ranks,
                  " ranks, need a divisor of ", n, ". Change parallel.", key, "."));
}

}  // namespace

void check_share(const ModelConfig& config, const WeightShare& share) {
  if (config.mla.num_heads % share.tensor_ranks != 0)
    refuse("the heads", config.mla.num_heads, share.tensor_ranks, "tensor");
  for (const WeightSpec& spec : weight_specs(config)) {
    const Cut cut = cut_of(spec, share);
    if (spec.shape[cut.dim] % cut.ranks != 0)
      refuse(spec.name, spec.shape[cut.dim], cut.ranks,
             spec.split == WeightSplit::kExperts ? "experts" : "tensor");
  }
}

WeightPart part_of(const WeightSpec& spec, const WeightShare& share) {
  const Cut cut = cut_of(spec, share);
  const int64_t size = spec.shape[cut.dim] / cut.ranks;
  return {static_cast<int64_t>(cut.dim), cut.rank * size, size};
}

bool holds(const WeightShare& share, const WeightSpec& spec, int64_t expert) {
  const WeightPart part = part_of(spec, share);
  return expert < 0 || part.dim > 0 || (expert >= part.begin && expert < part.begin + part.size);
}

std::vector<int64_t> shape_of(const WeightSpec& spec, const WeightShare& share) {
  const WeightPart part = part_of(spec, share);
  std::vector<int64_t> shape = spec.shape;
  shape[static_cast<size_t>(part.dim)] = part.size;
  return shape;
}

}  // namespace hadal
