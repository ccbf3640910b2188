#include "hadal/model/weights.h"

#include <algorithm>

#include "hadal/base/check.h"
#include "hadal/base/random.h"
#include "hadal/config/weight_specs.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"

namespace hadal {

void for_each_weight(const ModelConfig& config, ModelWeights& weights, const WeightVisitor& f) {
  weights.layers.resize(static_cast<size_t>(config.num_layers + config.mtp_depth));
  std::unordered_map<std::string, Tensor*> slots;
  for_each_slot(weights, [&](const std::string& name, Tensor& tensor) { slots[name] = &tensor; });
  const auto is_here = [&](const WeightSpec& spec) {
    return weights.part.empty() ||
           std::any_of(weights.part.begin(), weights.part.end(),
                       [&](const Stage& stage) { return holds(config, stage, spec); });
  };
  for (const WeightSpec& spec : weight_specs(config)) {
    if (!is_here(spec)) continue;
    const auto slot = slots.find(spec.name);
    HADAL_CHECK(slot != slots.end()) << spec.name << " has no slot";
    f(spec, *slot->second);
  }
  if (config.tied_head) weights.head_WD = weights.embedding_WD;
}

ModelWeights random_weights(const ModelConfig& config, uint64_t seed, const WeightShare& share,
                            const std::vector<Stage>& stages) {
  ModelWeights weights;
  weights.part = stages;
  for_each_weight(config, weights, [&](const WeightSpec& spec, Tensor& tensor) {
    const bool is_norm = spec.role == WeightRole::kNorm;
    tensor = full(shape_of(spec, share), is_norm ? 1.0 : 0.0);
    if (is_norm || spec.role == WeightRole::kBalanceBias) return;
    float* value = static_cast<float*>(tensor.data_ptr());
    const uint64_t stream = stream_id(spec.name);
    // The part is a run of `length` values in each of the whole's rows of `stride`.
    const WeightPart part = part_of(spec, share);
    int64_t inner = 1;
    for (size_t d = static_cast<size_t>(part.dim) + 1; d < spec.shape.size(); ++d) inner *= spec.shape[d];
    const int64_t stride = spec.shape[static_cast<size_t>(part.dim)] * inner, length = part.size * inner;
    for (int64_t row = part.begin * inner; row < spec.num_values(); row += stride, value += length)
      parallel_for(length, 1 << 14, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          value[i] =
              static_cast<float>(config.init_std * normal(seed, stream, static_cast<uint64_t>(row + i)));
      });
  });
  return weights;
}

ModelWeights on_device(const ModelConfig& config, const ModelWeights& weights, at::Device device) {
  ModelWeights moved = weights;
  for_each_weight(config, moved,
                  [&](const WeightSpec&, Tensor& tensor) { tensor = on_device(tensor, device); });
  return moved;
}

ModelWeights cut_to(const ModelConfig& config, const ModelWeights& weights, const WeightShare& share) {
  ModelWeights mine = weights;  // handles
  for_each_weight(config, mine, [&](const WeightSpec& spec, Tensor& tensor) {
    const WeightPart part = part_of(spec, share);
    if (part.size < spec.shape[static_cast<size_t>(part.dim)])
      tensor = tensor.detach().narrow(part.dim, part.begin, part.size).clone();
  });
  return mine;
}

ModelWeights part_of(const ModelConfig& config, const ModelWeights& weights, const std::vector<Stage>& part) {
  ModelWeights all = weights, some;  // handles: nothing is copied
  std::unordered_map<std::string, Tensor> by_name;
  for_each_weight(config, all, [&](const WeightSpec& spec, Tensor& tensor) { by_name[spec.name] = tensor; });
  some.part = part;
  for_each_weight(config, some,
                  [&](const WeightSpec& spec, Tensor& tensor) { tensor = by_name.at(spec.name); });
  return some;
}

}  // namespace hadal
