#include "hadal/checkpoint/load.h"

#include "hadal/base/text.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/error.h"
#include "hadal/tensor/dtype.h"
#include "hadal/tensor/make.h"

namespace hadal {

ModelWeights load_weights(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kBF16)
    throw Error(ErrorCode::kUnsupported,
                "[checkpoint.load] models compute in f32 or bf16. Choose one of them.");
  ModelWeights weights;
  std::vector<Tensor> tensors;  // by position in weight_specs()
  for_each_weight(config, weights, [&](const WeightSpec& spec, Tensor& tensor) {
    const bool bias = spec.role == WeightRole::kBalanceBias;
    tensor = empty(spec.shape, bias ? at::kFloat : scalar_type(dtype));
    tensors.push_back(tensor);
  });
  for (const HfTensor& part : hf_tensors(config)) {
    if (part.copy) continue;
    const std::optional<StoredTensor> stored = find_weight(checkpoint, part);
    if (!stored)
      throw Error(ErrorCode::kInvalidConfig, cat("[checkpoint.load] ", checkpoint.path().string(), ": ",
                                                 part.hf_name, " is missing. Is config.json of this model?"));
    const Tensor whole = tensors[part.spec];
    const Tensor slot = part.expert < 0 ? whole : whole.select(0, part.expert);
    if (slot.scalar_type() == at::kFloat) {
      read_f32(checkpoint, *stored, static_cast<float*>(slot.data_ptr()));
    } else {
      read_bf16(checkpoint, *stored, static_cast<uint16_t*>(slot.data_ptr()));
    }
  }
  return weights;
}

Transformer load_model(const std::filesystem::path& folder, std::optional<DType> dtype) {
  const Checkpoint checkpoint = open_checkpoint(folder);
  const ModelConfig config = check_against(load_config(folder), checkpoint);
  if (!dtype)
    dtype = config.stored_dtype == DType::kBF16 || config.stored_dtype == DType::kF8E4M3 ? DType::kBF16
                                                                                         : DType::kF32;
  return {config, load_weights(config, checkpoint, *dtype)};
}

}  // namespace hadal
