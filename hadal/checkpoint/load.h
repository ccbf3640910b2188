// From a checkpoint to a model's tensors and back.
#pragma once
#include <filesystem>
#include <optional>

#include "hadal/checkpoint.h"
#include "hadal/model/transformer.h"

namespace hadal {

// The weights of `config` from a checked checkpoint, in fp32 or bf16; quantised ones are dequantised. The
// balance bias is fp32 always. part: of these stages; empty: all. share: of each layer's experts these alone.
// Throws invalid_config if the checkpoint does not fit, unsupported for another dtype.
ModelWeights load_weights(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype,
                          const std::vector<Stage>& part = {}, const WeightShare& share = {});

// Reads FOLDER/config.json and the weights beside it. MTP modules the file does not hold are left out.
// dtype absent: as stored, with FP8, INT8 and INT4 computed in bf16, F16 in fp32. Throws unsupported for a
// model with the other purpose.
Transformer load_model(const std::filesystem::path& folder, std::optional<DType> dtype = std::nullopt,
                       Purpose purpose = Purpose::kLanguage);

// Writes config.json and safetensors under the published names, in fp32 or bf16 (as the tensors are). Files
// appear whole or not at all.
void save_model(const std::filesystem::path& folder, const ModelConfig& config, const ModelWeights& weights);

// The same by several processes: each writes a file of what it has, weights.part and of `share`, without
// undefined tensors; then one of them writes config.json and the index of what all have written.
struct ModelFile {
  std::string file;
  std::vector<std::string> tensors;  // as published
  int64_t bytes = 0;                 // of their data
};
// Without weights no file is written.
ModelFile save_model_file(const std::filesystem::path& folder, const std::string& file,
                          const ModelConfig& config, const ModelWeights& weights,
                          const WeightShare& share = {});
void save_model_index(const std::filesystem::path& folder, const ModelConfig& config,
                      const std::vector<ModelFile>& files);

}  // namespace hadal
