#include "hadal/model/weights.h"

#include "hadal/base/check.h"
#include "hadal/base/random.h"
#include "hadal/config/weight_specs.h"
#include "hadal/tensor/make.h"

namespace hadal {

void for_each_weight(const ModelConfig& config, ModelWeights& weights, const WeightVisitor& f) {
  weights.layers.resize(static_cast<size_t>(config.num_layers + config.mtp_depth));
  std::unordered_map<std::string, Tensor*> slots;
  for_each_slot(weights, [&](const std::string& name, Tensor& tensor) { slots[name] = &tensor; });
  for (const WeightSpec& spec : weight_specs(config)) {
    const auto slot = slots.find(spec.name);
    HADAL_CHECK(slot != slots.end()) << spec.name << " has no slot";
    f(spec, *slot->second);
  }
  if (config.tied_head) weights.head_WD = weights.embedding_WD;
}

ModelWeights random_weights(const ModelConfig& config, uint64_t seed) {
  ModelWeights weights;
  for_each_weight(config, weights, [&](const WeightSpec& spec, Tensor& tensor) {
    const bool is_norm = spec.role == WeightRole::kNorm;
    tensor = full(spec.shape, is_norm ? 1.0 : 0.0);
    if (is_norm || spec.role == WeightRole::kBalanceBias) return;
    float* value = static_cast<float*>(tensor.data_ptr());
    const uint64_t stream = stream_id(spec.name);
    for (int64_t i = 0; i < spec.num_values(); ++i)
      value[i] = static_cast<float>(config.init_std * normal(seed, stream, static_cast<uint64_t>(i)));
  });
  return weights;
}

}  // namespace hadal
