// Our weights <-> tensors of a Hugging Face checkpoint. HF names appear in names.cc and nowhere else.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/checkpoint.h"
#include "hadal/config/weight_specs.h"

namespace hadal {

// One checkpoint tensor. Stacked experts are one tensor per expert there.
struct HfTensor {
  std::string hf_name;         // "model.layers.3.mlp.experts.7.gate_proj.weight"
  size_t spec = 0;             // index into weight_specs(config)
  int64_t expert = -1;         // leading index of the stacked weight; -1: the whole weight
  std::vector<int64_t> shape;  // of this tensor
  WeightRole role = WeightRole::kMatrix;
  bool copy =
      false;  // an MTP layer's duplicate of embedding or head: written, optional and ignored when read
};

// All tensors of a checkpoint, in checkpoint order (weight_specs order; MTP at model.layers.<num_layers +
// j>).
std::vector<HfTensor> hf_tensors(const ModelConfig& config);

// The stored tensor for `tensor`: under its own name, or the slice of the packed form in which transformers 5
// holds experts (mlp.experts.gate_up_proj [E, 2M, D], mlp.experts.down_proj [E, D, M]). nullopt: absent.
std::optional<StoredTensor> find_weight(const Checkpoint& checkpoint, const HfTensor& tensor);

// weight_scale_inv of an F8_E4M3 weight, or nullptr.
const StoredTensor* find_scale(const Checkpoint& checkpoint, const StoredTensor& weight);

std::string scale_name(const std::string& weight);  // "X.weight" -> "X.weight_scale_inv"
bool is_scale_name(std::string_view name);
bool is_rotary_table(std::string_view name);  // a buffer some checkpoints carry along

// What is wrong with the block scales of a weight; "" if nothing, or if it is not F8_E4M3.
std::string scale_problem(const Checkpoint& checkpoint, const StoredTensor& weight);

// A weight as floats (out [num_values]); block FP8 is dequantised with its scale. `first_row`/`rows` select
// rows of a matrix; rows < 0: all. Throws corrupt if an F8 weight has no fitting scale, unsupported.
void read_f32(const Checkpoint& checkpoint, const StoredTensor& weight, float* out, int64_t first_row = 0,
              int64_t rows = -1);
// The same rounded to bfloat16 bits (FP8: dequantised in float, one rounding).
void read_bf16(const Checkpoint& checkpoint, const StoredTensor& weight, uint16_t* out);

// MTP layers really stored: 0 ... Layers from num_layers on that have an eh_proj.
int64_t stored_mtp_depth(const Checkpoint& checkpoint, int64_t num_layers);

// One line per difference between config and checkpoint: missing, wrong shape or type, not of this model.
// MTP layers beyond mtp_depth and rotary inv_freq buffers are no difference.
struct Difference {
  enum class Kind { kMissing, kShape, kScale, kUnexpected } kind;
  std::string text;
};
std::vector<Difference> compare(const ModelConfig& config, const Checkpoint& checkpoint);

// Throws invalid_config with the first difference and the number of others. Returns the config with mtp_depth
// 0 if the file has none of the MTP layers the config speaks of (transformers saves the main model that way).
ModelConfig check_against(const ModelConfig& config, const Checkpoint& checkpoint);

}  // namespace hadal
