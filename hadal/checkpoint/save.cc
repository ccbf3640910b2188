#include "hadal/base/check.h"
#include "hadal/base/file.h"
#include "hadal/checkpoint/load.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

void save_model(const std::filesystem::path& folder, const ModelConfig& config, const ModelWeights& weights) {
  ModelWeights shared = weights;  // tensors are handles: nothing is copied
  std::vector<Tensor> tensors;
  for_each_weight(config, shared, [&](const WeightSpec&, Tensor& tensor) { tensors.push_back(tensor); });

  ModelConfig written = config;
  written.stored_dtype = weights.embedding_WD.scalar_type() == at::kBFloat16 ? DType::kBF16 : DType::kF32;
  std::vector<TensorHead> heads;
  std::unordered_map<std::string, Tensor> by_name;
  for (const HfTensor& part : hf_tensors(config)) {
    const Tensor& whole = tensors[part.spec];
    const Tensor slot = (part.expert < 0 ? whole : whole.select(0, part.expert)).detach().contiguous();
    const bool is_bf16 = slot.scalar_type() == at::kBFloat16;
    HADAL_CHECK(is_bf16 || slot.scalar_type() == at::kFloat) << part.hf_name;
    heads.push_back({part.hf_name, is_bf16 ? ElementType::kBF16 : ElementType::kF32, part.shape});
    by_name[part.hf_name] = slot;
  }
  std::filesystem::create_directories(folder);
  constexpr int64_t kShardBytes = 5'000'000'000;
  write_checkpoint(folder, heads, kShardBytes, [&](const TensorHead& head, SafetensorsWriter& writer) {
    const Tensor& tensor = by_name.at(head.name);
    writer.write(tensor.data_ptr(), tensor.nbytes());
  });
  write_file(folder / "config.json", config_json(written));
}

}  // namespace hadal
