#include <nlohmann/json.hpp>
#include <set>

#include "hadal/base/check.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/checkpoint/load.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/tensor/tensor.h"

namespace hadal {
namespace {

// Weights as the tensors of a checkpoint.
struct NamedTensors {
  std::vector<TensorHead> heads;
  std::unordered_map<std::string, Tensor> by_name;
  DType dtype = DType::kF32;

  void write(const TensorHead& head, SafetensorsWriter& writer) const {
    const Tensor& tensor = by_name.at(head.name);
    writer.write(tensor.data_ptr(), tensor.nbytes());
  }
};

NamedTensors named_tensors(const ModelConfig& config, const ModelWeights& weights,
                           const WeightShare& share = {}) {
  ModelWeights shared = weights;  // tensors are handles: nothing is copied
  std::unordered_map<std::string, Tensor> tensors;
  for_each_weight(config, shared,
                  [&](const WeightSpec& spec, Tensor& tensor) { tensors[spec.name] = tensor; });
  const std::vector<WeightSpec> specs = weight_specs(config);
  NamedTensors named;
  for (const HfTensor& part : hf_tensors(config)) {
    const auto found = tensors.find(specs[part.spec].name);
    // Of another part of the model, or left to another process.
    if (found == tensors.end() || !holds(share, specs[part.spec], part.expert)) continue;
    const Tensor& whole = found->second;
    if (!whole.defined()) continue;
    const int64_t begin = part_of(specs[part.spec], share).begin;
    const Tensor slot =
        (part.expert < 0 ? whole : whole.select(0, part.expert - begin)).detach().cpu().contiguous();
    const bool is_bf16 = slot.scalar_type() == at::kBFloat16;
    HADAL_CHECK(is_bf16 || slot.scalar_type() == at::kFloat) << part.hf_name;
    named.heads.push_back({part.hf_name, is_bf16 ? ElementType::kBF16 : ElementType::kF32, part.shape});
    named.by_name[part.hf_name] = slot;
    if (is_bf16) named.dtype = DType::kBF16;
  }
  return named;
}

// Files of the model that another layout has left here would be taken for it.
void remove_other_files(const std::filesystem::path& folder, const std::set<std::string>& kept) {
  std::vector<std::filesystem::path> old;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("model") && name.find(".safetensors") != std::string::npos && !kept.contains(name))
      old.push_back(entry.path());
  }
  for (const std::filesystem::path& path : old) std::filesystem::remove(path);
}

void write_config(const std::filesystem::path& folder, const ModelConfig& config, DType dtype) {
  ModelConfig written = config;
  written.stored_dtype = dtype;
  write_file(folder / "config.json", config_json(written));
}

}  // namespace

void save_model(const std::filesystem::path& folder, const ModelConfig& config, const ModelWeights& weights) {
  const NamedTensors named = named_tensors(config, weights);
  HADAL_CHECK(named.heads.size() == hf_tensors(config).size()) << "a weight of the model is missing";
  std::filesystem::create_directories(folder);
  constexpr int64_t kShardBytes = 5'000'000'000;
  write_checkpoint(folder, named.heads, kShardBytes,
                   [&](const TensorHead& head, SafetensorsWriter& writer) { named.write(head, writer); });
  write_config(folder, config, named.dtype);
  if (plan_shards(named.heads, kShardBytes).size() == 1) remove_other_files(folder, {"model.safetensors"});
}

ModelFile save_model_file(const std::filesystem::path& folder, const std::string& file,
                          const ModelConfig& config, const ModelWeights& weights, const WeightShare& share) {
  const NamedTensors named = named_tensors(config, weights, share);
  ModelFile written{.file = file, .tensors = {}};
  if (named.heads.empty()) return written;
  SafetensorsWriter writer(folder / file, named.heads);
  for (const TensorHead& head : writer.heads()) {
    named.write(head, writer);
    written.tensors.push_back(head.name);
    written.bytes += head.num_bytes();
  }
  writer.finish();
  return written;
}

void save_model_index(const std::filesystem::path& folder, const ModelConfig& config,
                      const std::vector<ModelFile>& files) {
  std::map<std::string, std::string> weight_map;
  int64_t total = 0;
  for (const ModelFile& file : files) {
    for (const std::string& tensor : file.tensors) {
      HADAL_CHECK(weight_map.emplace(tensor, file.file).second) << tensor << " is written twice";
    }
    total += file.bytes;
  }
  for (const HfTensor& tensor : hf_tensors(config))
    HADAL_CHECK(weight_map.contains(tensor.hf_name)) << tensor.hf_name << " was written by nobody";
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", Json(weight_map)}};
  write_file(folder / "model.safetensors.index.json", dump_json(index, 2) + "\n");
  write_config(folder, config, DType::kF32);
  std::set<std::string> kept{"model.safetensors.index.json"};
  for (const ModelFile& file : files) kept.insert(file.file);
  remove_other_files(folder, kept);
}

}  // namespace hadal
