// Our weights <-> tensors of a Hugging Face checkpoint. HF names appear in names.cc and nowhere else.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/checkpoint.h"
#include "hadal/config/weight_specs.h"
#include "hadal/kernels/infer.h"

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

// weight_scale_inv of an F8_E4M3 weight, weight_scale of a U8 one (INT8, INT4), or nullptr.
const StoredTensor* find_scale(const Checkpoint& checkpoint, const StoredTensor& weight);

std::string scale_name(const std::string& weight);        // "X.weight" -> "X.weight_scale_inv"
std::string group_scale_name(const std::string& weight);  // "X.weight" -> "X.weight_scale"
bool is_scale_name(std::string_view name);
bool is_rotary_table(std::string_view name);  // a buffer some checkpoints carry along

// How a matrix is stored. A U8 one is INT8 or INT4 as its scales say: a BF16 [N, G] for rows of 128 G bytes,
// or of 32 G bytes. nullopt: a type the kernels do not multiply, or U8 without such scales.
std::optional<WeightFormat> weight_format(const Checkpoint& checkpoint, const StoredTensor& weight);

// How a checkpoint of config.stored_dtype kInt8 or kInt4 has to store this tensor (shape: [N, row_bytes()]).
// nullopt: not in groups.
std::optional<WeightFormat> group_format(const ModelConfig& config, const HfTensor& tensor);
// What an INT4 checkpoint written by hadal stores as INT8, for ModelConfig::int8_matrices.
std::vector<std::string> default_int8_matrices(const ModelConfig& config);

// What is wrong with the scales of a weight; "" if nothing, or if it is neither F8_E4M3 nor U8.
std::string scale_problem(const Checkpoint& checkpoint, const StoredTensor& weight);

// A weight as floats (out [num_values], or rows of `columns`); FP8, INT8 and INT4 are dequantised with their
// scale. `first_row`/`rows` select rows of a matrix; rows < 0: all. `columns`: the K that config knows, for
// INT8 and INT4; < 0: with the padding. Throws corrupt if a quantised weight has no fitting scale,
// unsupported.
void read_f32(const Checkpoint& checkpoint, const StoredTensor& weight, float* out, int64_t first_row = 0,
              int64_t rows = -1, int64_t columns = -1);
// The same rounded to bfloat16 bits (dequantised in float, one rounding).
void read_bf16(const Checkpoint& checkpoint, const StoredTensor& weight, uint16_t* out, int64_t columns = -1);

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
