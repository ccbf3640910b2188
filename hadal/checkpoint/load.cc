#include "hadal/checkpoint/load.h"

#include "hadal/base/check.h"
#include "hadal/base/machine.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/config/weight_specs.h"
#include "hadal/error.h"
#include "hadal/tensor/dtype.h"
#include "hadal/tensor/make.h"

namespace hadal {

namespace {

// Refuses before anything is allocated what the machine would be killed for.
void check_memory(int64_t values, const Checkpoint& checkpoint, DType dtype) {
  const int64_t needed = values * (dtype == DType::kF32 ? 4 : 2);
  const int64_t available = this_machine().available_bytes;
  if (available > 0 && needed > available)
    throw Error(ErrorCode::kExhausted,
                cat("[checkpoint.load] ", checkpoint.path().string(), ": the weights need ",
                    human_bytes(needed), " as ", dtype == DType::kF32 ? "f32" : "bf16", ", ",
                    human_bytes(available), " of memory is available. ",
                    dtype == DType::kF32 ? "Try --dtype bf16, or use" : "Use", " a machine with more."));
}

}  // namespace

ModelWeights load_weights(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype,
                          const std::vector<Stage>& part, const WeightShare& share) {
  HADAL_CHECK(share.tensor_ranks == 1) << "parts of matrices are not read";
  if (dtype != DType::kF32 && dtype != DType::kBF16)
    throw Error(ErrorCode::kUnsupported,
                "[checkpoint.load] models compute in f32 or bf16. Choose one of them.");
  const std::vector<WeightSpec> specs = weight_specs(config);
  ModelWeights weights;
  weights.part = part;
  int64_t values = 0;
  for_each_weight(config, weights, [&](const WeightSpec& spec, Tensor&) {
    values += spec.num_values() / spec.shape[0] * part_of(spec, share).size;
  });
  check_memory(values, checkpoint, dtype);
  std::unordered_map<std::string, Tensor> tensors;
  for_each_weight(config, weights, [&](const WeightSpec& spec, Tensor& tensor) {
    const bool bias = spec.role == WeightRole::kBalanceBias;
    tensor = empty(shape_of(spec, share), bias ? at::kFloat : scalar_type(dtype));
    tensors[spec.name] = tensor;
  });
  for (const HfTensor& part : hf_tensors(config)) {
    const auto found = tensors.find(specs[part.spec].name);
    if (part.copy || found == tensors.end() || !holds(share, specs[part.spec], part.expert)) continue;
    const std::optional<StoredTensor> stored = find_weight(checkpoint, part);
    if (!stored)
      throw Error(ErrorCode::kInvalidConfig, cat("[checkpoint.load] ", checkpoint.path().string(), ": ",
                                                 part.hf_name, " is missing. Is config.json of this model?"));
    const Tensor whole = found->second;
    const Tensor slot =
        part.expert < 0 ? whole : whole.select(0, part.expert - part_of(specs[part.spec], share).begin);
    const int64_t columns = part.shape.back();
    if (slot.scalar_type() == at::kFloat) {
      read_f32(checkpoint, *stored, static_cast<float*>(slot.data_ptr()), 0, -1, columns);
    } else {
      read_bf16(checkpoint, *stored, static_cast<uint16_t*>(slot.data_ptr()), columns);
    }
  }
  return weights;
}

Transformer load_model(const std::filesystem::path& folder, std::optional<DType> dtype, Purpose purpose) {
  const Checkpoint checkpoint = open_checkpoint(folder);
  const ModelConfig config = check_against(load_config(folder), checkpoint);
  require_purpose(config, purpose, folder.string());
  require_dense_attention(config, folder.string());
  if (!dtype)
    dtype =
        config.stored_dtype == DType::kF32 || config.stored_dtype == DType::kF16 ? DType::kF32 : DType::kBF16;
  return {config, load_weights(config, checkpoint, *dtype)};
}

}  // namespace hadal
