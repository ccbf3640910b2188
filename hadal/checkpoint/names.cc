#include "hadal/checkpoint/names.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <unordered_set>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/group_codes.h"
#include "hadal/checkpoint/numbers.h"
#include "hadal/error.h"
#include "hadal/kernels/fp8.h"

namespace hadal {
namespace {

struct NameRow {
  std::string_view ours, hf;
};

// The one table. Ours (weight_specs.h) | Hugging Face. "layers.N." of ours is "model.layers.N." there; {e} is
// the expert.
constexpr std::array kTopNames = {
    NameRow{"embedding", "model.embed_tokens.weight"},
    NameRow{"final_norm", "model.norm.weight"},
    NameRow{"head", "lm_head.weight"},
    NameRow{"score", "score.weight"},
};
constexpr std::array kLayerNames = {
    NameRow{"attention_norm", "input_layernorm.weight"},
    NameRow{"mla.query", "self_attn.q_proj.weight"},
    NameRow{"mla.q_down", "self_attn.q_a_proj.weight"},
    NameRow{"mla.q_norm", "self_attn.q_a_layernorm.weight"},
    NameRow{"mla.q_up", "self_attn.q_b_proj.weight"},
    NameRow{"mla.kv_down", "self_attn.kv_a_proj_with_mqa.weight"},
    NameRow{"mla.kv_norm", "self_attn.kv_a_layernorm.weight"},
    NameRow{"mla.kv_up", "self_attn.kv_b_proj.weight"},
    NameRow{"mla.out", "self_attn.o_proj.weight"},
    NameRow{"mla.indexer.query", "self_attn.indexer.wq_b.weight"},
    NameRow{"mla.indexer.key", "self_attn.indexer.wk.weight"},
    NameRow{"mla.indexer.key_norm", "self_attn.indexer.k_norm.weight"},
    NameRow{"mla.indexer.key_bias", "self_attn.indexer.k_norm.bias"},
    NameRow{"mla.indexer.weights", "self_attn.indexer.weights_proj.weight"},
    NameRow{"ffn_norm", "post_attention_layernorm.weight"},
    NameRow{"mlp.gate", "mlp.gate_proj.weight"},
    NameRow{"mlp.up", "mlp.up_proj.weight"},
    NameRow{"mlp.down", "mlp.down_proj.weight"},
    NameRow{"moe.router", "mlp.gate.weight"},
    NameRow{"moe.balance_bias", "mlp.gate.e_score_correction_bias"},
    NameRow{"moe.experts.gate", "mlp.experts.{e}.gate_proj.weight"},
    NameRow{"moe.experts.up", "mlp.experts.{e}.up_proj.weight"},
    NameRow{"moe.experts.down", "mlp.experts.{e}.down_proj.weight"},
    NameRow{"moe.shared.gate", "mlp.shared_experts.gate_proj.weight"},
    NameRow{"moe.shared.up", "mlp.shared_experts.up_proj.weight"},
    NameRow{"moe.shared.down", "mlp.shared_experts.down_proj.weight"},
    NameRow{"mtp.embedding_norm", "enorm.weight"},
    NameRow{"mtp.hidden_norm", "hnorm.weight"},
    NameRow{"mtp.project", "eh_proj.weight"},
    NameRow{"mtp.final_norm", "shared_head.norm.weight"},
};
// An MTP layer also stores the shared weights again.
constexpr NameRow kMtpEmbeddingCopy{"embedding", "embed_tokens.weight"};
constexpr NameRow kMtpHeadCopy{"head", "shared_head.head.weight"};
constexpr std::string_view kScaleSuffix = "_scale_inv";   // X.weight -> X.weight_scale_inv
constexpr std::string_view kGroupScaleSuffix = "_scale";  // X.weight -> X.weight_scale
constexpr std::string_view kLayerPrefix = "model.layers.";

template <class Table>
std::string_view lookup(const Table& table, std::string_view ours) {
  for (const NameRow& row : table)
    if (row.ours == ours) return row.hf;
  HADAL_CHECK(false) << "no checkpoint name for weight " << ours;
  return {};
}

// "layers.3.mla.out" -> 3 and "mla.out"; layer -1 for a weight outside the layers.
std::pair<int64_t, std::string> split_layer(const std::string& ours) {
  if (ours.rfind("layers.", 0) != 0) return {-1, ours};
  const size_t dot = ours.find('.', 7);
  return {std::stoll(ours.substr(7, dot - 7)), ours.substr(dot + 1)};
}

// "model.layers.3.x" -> 3; -1 otherwise.
int64_t layer_of(std::string_view hf_name) {
  if (hf_name.substr(0, kLayerPrefix.size()) != kLayerPrefix) return -1;
  int64_t layer = -1;
  for (size_t i = kLayerPrefix.size(); i < hf_name.size() && layer < 1'000'000; ++i) {
    if (hf_name[i] == '.') return layer;
    if (hf_name[i] < '0' || hf_name[i] > '9') return -1;
    layer = std::max<int64_t>(layer, 0) * 10 + (hf_name[i] - '0');
  }
  return -1;
}

std::string layer_prefix(int64_t layer) {
  return cat(kLayerPrefix, layer, ".");
}

void add_tensors(std::vector<HfTensor>& out, const WeightSpec& spec, size_t index) {
  const auto [layer, rest] = split_layer(spec.name);
  if (layer < 0) {
    out.push_back({std::string(lookup(kTopNames, rest)), index, -1, spec.shape, spec.role});
    return;
  }
  const std::string name = layer_prefix(layer) + std::string(lookup(kLayerNames, rest));
  if (!spec.stacked()) {
    out.push_back({name, index, -1, spec.shape, spec.role});
    return;
  }
  const size_t hole = name.find("{e}");
  HADAL_CHECK(hole != std::string::npos) << name;
  for (int64_t e = 0; e < spec.shape[0]; ++e)
    out.push_back({name.substr(0, hole) + std::to_string(e) + name.substr(hole + 3),
                   index,
                   e,
                   {spec.shape[1], spec.shape[2]},
                   spec.role});
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// The packed tensor that would hold this expert, and the expert's first row in it.
struct PackedPlace {
  std::string name;
  std::vector<int64_t> shape_tail;  // [rows per expert, columns]
  int64_t first_row = 0;            // within the expert
};
std::optional<PackedPlace> packed_place(const HfTensor& tensor) {
  const size_t experts = tensor.hf_name.find(".mlp.experts.");
  if (tensor.expert < 0 || experts == std::string::npos) return std::nullopt;
  const std::string prefix = tensor.hf_name.substr(0, experts + 13);
  const int64_t rows = tensor.shape[0], cols = tensor.shape[1];
  if (ends_with(tensor.hf_name, ".down_proj.weight"))
    return PackedPlace{prefix + "down_proj", {rows, cols}, 0};
  const bool up = ends_with(tensor.hf_name, ".up_proj.weight");
  return PackedPlace{prefix + "gate_up_proj", {2 * rows, cols}, up ? rows : 0};
}

bool is_floating(ElementType type) {
  switch (type) {
    case ElementType::kF8E5M2:
    case ElementType::kF8E4M3:
    case ElementType::kF16:
    case ElementType::kBF16:
    case ElementType::kF32:
    case ElementType::kF64:
      return true;
    default:
      return false;
  }
}

}  // namespace

std::string scale_name(const std::string& weight) {
  return weight + std::string(kScaleSuffix);
}

std::string group_scale_name(const std::string& weight) {
  return weight + std::string(kGroupScaleSuffix);
}

bool is_scale_name(std::string_view name) {
  return ends_with(name, kScaleSuffix) || ends_with(name, ".weight_scale");
}

bool is_rotary_table(std::string_view name) {
  return ends_with(name, "rotary_emb.inv_freq");
}

std::vector<HfTensor> hf_tensors(const ModelConfig& config) {
  const std::vector<WeightSpec> specs = weight_specs(config);
  std::vector<HfTensor> out;
  size_t embedding = 0, head = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    add_tensors(out, specs[i], i);
    if (specs[i].role == WeightRole::kHead) head = i;
  }
  for (int64_t layer = config.num_layers; layer < config.num_layers + config.mtp_depth; ++layer) {
    const std::string prefix = layer_prefix(layer);
    HfTensor copy{prefix + std::string(kMtpEmbeddingCopy.hf),
                  embedding,
                  -1,
                  specs[embedding].shape,
                  WeightRole::kEmbedding,
                  true};
    out.push_back(copy);
    copy.hf_name = prefix + std::string(kMtpHeadCopy.hf);
    copy.spec = config.tied_head ? embedding : head;
    copy.role = WeightRole::kHead;
    out.push_back(copy);
  }
  return out;
}

std::optional<StoredTensor> find_weight(const Checkpoint& checkpoint, const HfTensor& tensor) {
  if (const StoredTensor* stored = checkpoint.find(tensor.hf_name)) return *stored;
  const auto place = packed_place(tensor);
  if (!place) return std::nullopt;
  const StoredTensor* packed = checkpoint.find(place->name);
  if (!packed || packed->shape.size() != 3 || packed->shape[0] <= tensor.expert ||
      packed->shape[1] != place->shape_tail[0] || packed->shape[2] != place->shape_tail[1])
    return std::nullopt;
  StoredTensor slice = *packed;
  slice.name = cat(packed->name, "[", tensor.expert, "]");
  slice.shape = tensor.shape;
  const int64_t row_bytes = tensor.shape[1] * size_bytes(packed->type);
  const int64_t begin = (tensor.expert * place->shape_tail[0] + place->first_row) * row_bytes;
  slice.bytes =
      packed->bytes.subspan(static_cast<size_t>(begin), static_cast<size_t>(tensor.shape[0] * row_bytes));
  slice.file_offset = packed->file_offset + static_cast<uint64_t>(begin);
  return slice;
}

const StoredTensor* find_scale(const Checkpoint& checkpoint, const StoredTensor& weight) {
  if (weight.type == ElementType::kU8) return checkpoint.find(group_scale_name(weight.name));
  return weight.type == ElementType::kF8E4M3 ? checkpoint.find(scale_name(weight.name)) : nullptr;
}

std::optional<WeightFormat> weight_format(const Checkpoint& checkpoint, const StoredTensor& weight) {
  if (weight.type == ElementType::kF32) return WeightFormat::kF32;
  if (weight.type == ElementType::kBF16) return WeightFormat::kBF16;
  const StoredTensor* scale = find_scale(checkpoint, weight);
  if (!scale) return std::nullopt;
  if (weight.type == ElementType::kF8E4M3) return WeightFormat::kFp8;
  if (scale->type != ElementType::kBF16 || weight.shape.size() != 2 || scale->shape.size() != 2 ||
      scale->shape[0] != weight.shape[0])
    return std::nullopt;
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4})
    if (scale->shape[1] > 0 && weight.shape[1] % row_bytes(format, 1) == 0 &&
        scale->shape[1] == row_groups(format, 1) * (weight.shape[1] / row_bytes(format, 1)))
      return format;
  return std::nullopt;
}

std::optional<WeightFormat> group_format(const ModelConfig& config, const HfTensor& tensor) {
  const bool int8 = config.stored_dtype == DType::kInt8, int4 = config.stored_dtype == DType::kInt4;
  if ((!int8 && !int4) || (tensor.role != WeightRole::kMatrix && tensor.role != WeightRole::kHead))
    return std::nullopt;
  const std::string_view module(tensor.hf_name.data(), tensor.hf_name.rfind('.'));  // without ".weight"
  const bool listed =
      std::any_of(config.int8_matrices.begin(), config.int8_matrices.end(),
                  [&](const std::string& name) { return module == name || ends_with(module, "." + name); });
  return int8 || listed ? WeightFormat::kInt8 : WeightFormat::kInt4;
}

// By loss of a trained 2.6 M model with one kind of matrix in INT4 at a time: +0.0025 for the head alone,
// +0.0029 for all others together, of which kv_a has the most per weight (+0.0003; beyond the trained length
// +0.022 of +0.030). kv_b reads the same latent and is small. The down projections (+0.0010) are a third of
// all weights and stay INT4. An indexer's are a part in a thousand and choose what is seen at all.
std::vector<std::string> default_int8_matrices(const ModelConfig& config) {
  std::vector<std::string> names = {"lm_head", "shared_head.head", "kv_a_proj_with_mqa", "kv_b_proj"};
  if (config.mla.indexer) names.insert(names.end(), {"indexer.wq_b", "indexer.wk"});
  return names;
}

namespace {

std::string group_scale_problem(const Checkpoint& checkpoint, const StoredTensor& weight) {
  const StoredTensor* scale = find_scale(checkpoint, weight);
  if (!scale) return cat(group_scale_name(weight.name), " is missing: U8 weights need their group scales");
  if (weight_format(checkpoint, weight)) return "";
  return cat(scale->name, " is ", name(scale->type), " ", shape_text(scale->shape),
             ", need BF16 with a row for each of ", shape_text(weight.shape),
             " and a column for 128 bytes (INT8) or 32 bytes (INT4) of it");
}

// Does this U8 weight have the shape and the scales that its format asks for? "" if so.
std::string group_problem(const Checkpoint& checkpoint, const HfTensor& tensor, const StoredTensor& stored,
                          WeightFormat format) {
  const int64_t N = tensor.shape[0], K = tensor.shape[1];
  const std::string says =
      cat(", quantization_config says ", format == WeightFormat::kInt8 ? "INT8" : "INT4");
  const std::vector<int64_t> need{N, row_bytes(format, K)}, need_scale{N, row_groups(format, K)};
  if (stored.type != ElementType::kU8 || stored.shape != need)
    return cat(stored.name, " is ", name(stored.type), " ", shape_text(stored.shape), says, ": need U8 ",
               shape_text(need), " for ", shape_text(tensor.shape));
  const StoredTensor* scale = find_scale(checkpoint, stored);
  if (scale && (scale->type != ElementType::kBF16 || scale->shape != need_scale))
    return cat(scale->name, " is ", name(scale->type), " ", shape_text(scale->shape), says, ": need BF16 ",
               shape_text(need_scale), " for ", shape_text(tensor.shape));
  return group_scale_problem(checkpoint, stored);
}

// "X.weight" of "X.weight_scale_inv" and "X.weight_scale"; "" of another name.
std::string scaled_weight(const std::string& name) {
  for (const std::string_view suffix : {kScaleSuffix, kGroupScaleSuffix})
    if (is_scale_name(name) && ends_with(name, suffix)) return name.substr(0, name.size() - suffix.size());
  return "";
}

// Values of a row: `columns` of an INT8 or INT4 weight, or with the padding if that is not known.
int64_t stored_columns(const Checkpoint& checkpoint, const StoredTensor& weight, int64_t columns) {
  const int64_t stored =
      weight.num_values() / std::max<int64_t>(1, weight.shape.empty() ? 1 : weight.shape[0]);
  if (weight.type != ElementType::kU8) return stored;
  if (columns >= 0) return columns;
  return weight_format(checkpoint, weight) == WeightFormat::kInt4 ? 2 * stored : stored;
}

void read_groups(WeightFormat format, const StoredTensor& weight, const StoredTensor& scale,
                 int64_t first_row, int64_t rows, int64_t columns, float* out) {
  const int64_t stored = weight.shape[1] * (format == WeightFormat::kInt4 ? 2 : 1);
  const int64_t K = columns < 0 ? stored : columns;
  HADAL_CHECK(padded_columns(K) == stored)
      << weight.name << " " << shape_text(weight.shape) << " for K " << K;
  const int64_t groups = scale.shape[1];
  std::vector<uint16_t> scales(static_cast<size_t>(rows * groups));  // a copy: the map may be misaligned
  if (!scales.empty())
    std::memcpy(scales.data(), scale.bytes.data() + 2 * first_row * groups, scales.size() * sizeof(uint16_t));
  dequantise_groups(format,
                    reinterpret_cast<const uint8_t*>(weight.bytes.data()) + first_row * weight.shape[1],
                    scales.data(), rows, K, out);
}

}  // namespace

std::string scale_problem(const Checkpoint& checkpoint, const StoredTensor& weight) {
  if (weight.type == ElementType::kU8) return group_scale_problem(checkpoint, weight);
  if (weight.type != ElementType::kF8E4M3) return "";
  const StoredTensor* scale = find_scale(checkpoint, weight);
  if (!scale) return cat(scale_name(weight.name), " is missing: F8_E4M3 weights need their block scales");
  const std::vector<int64_t> need =
      weight.shape.size() == 2 ? std::vector{fp8_blocks(weight.shape[0]), fp8_blocks(weight.shape[1])}
                               : std::vector<int64_t>{};
  if (need.empty() || scale->shape != need)
    return cat(scale->name, " is ", shape_text(scale->shape), ", need ", shape_text(need),
               " for 128x128 blocks of ", shape_text(weight.shape));
  if (!is_floating(scale->type) && scale->type != ElementType::kF8E8M0)
    return cat(scale->name, " is ", name(scale->type), ", need F32");
  return "";
}

void read_f32(const Checkpoint& checkpoint, const StoredTensor& weight, float* out, int64_t first_row,
              int64_t rows, int64_t columns) {
  const int64_t all_rows = weight.shape.empty() ? 1 : weight.shape[0];
  if (rows < 0) rows = all_rows - first_row;
  HADAL_CHECK(first_row >= 0 && first_row + rows <= all_rows)
      << weight.name << " rows " << first_row << "+" << rows;
  const int64_t cols = all_rows ? weight.num_values() / all_rows : 0;
  const std::byte* from = weight.bytes.data() + first_row * cols * size_bytes(weight.type);
  const bool groups = weight.type == ElementType::kU8;
  if (weight.type != ElementType::kF8E4M3 && !groups) return to_f32(weight.type, from, out, rows * cols);
  if (const std::string bad = scale_problem(checkpoint, weight); !bad.empty())
    throw Error(ErrorCode::kCorrupt, cat("[checkpoint.read] ", checkpoint.path().string(), ": ", bad,
                                         ". Use the checkpoint as it was published."));
  const StoredTensor& scale = *find_scale(checkpoint, weight);
  if (groups)
    return read_groups(*weight_format(checkpoint, weight), weight, scale, first_row, rows, columns, out);
  std::vector<float> scales(static_cast<size_t>(scale.num_values()));
  to_f32(scale.type, scale.bytes.data(), scales.data(), scale.num_values());
  dequantise_blocks(reinterpret_cast<const uint8_t*>(from), scales.data(), rows, cols, out, first_row);
}

void read_bf16(const Checkpoint& checkpoint, const StoredTensor& weight, uint16_t* out, int64_t columns) {
  if (weight.type == ElementType::kBF16) {
    if (!weight.bytes.empty()) std::memcpy(out, weight.bytes.data(), weight.bytes.size());
    return;
  }
  const int64_t rows = weight.shape.empty() ? 1 : weight.shape[0];
  if (rows == 0 || weight.bytes.empty()) return;
  const int64_t cols = stored_columns(checkpoint, weight, columns);
  const int64_t step = std::max<int64_t>(1, (int64_t{1} << 16) / cols);
  std::vector<float> stripe(static_cast<size_t>(std::min(step, rows) * cols));
  for (int64_t r = 0; r < rows; r += step) {
    const int64_t n = std::min(step, rows - r);
    read_f32(checkpoint, weight, stripe.data(), r, n, columns);
    from_f32(ElementType::kBF16, stripe.data(), reinterpret_cast<std::byte*>(out + r * cols), n * cols);
  }
}

int64_t stored_mtp_depth(const Checkpoint& checkpoint, int64_t num_layers) {
  int64_t depth = 0;
  while (checkpoint.find(layer_prefix(num_layers + depth) + std::string(lookup(kLayerNames, "mtp.project"))))
    ++depth;
  return depth;
}

std::vector<Difference> compare(const ModelConfig& config, const Checkpoint& checkpoint) {
  std::vector<Difference> differences;
  const auto add = [&](Difference::Kind kind, const auto&... parts) {
    differences.push_back({kind, cat(parts...)});
  };
  std::unordered_set<std::string> known;
  for (const HfTensor& tensor : hf_tensors(config)) {
    known.insert(tensor.hf_name);
    if (const auto place = packed_place(tensor)) known.insert(place->name);
    const auto stored = find_weight(checkpoint, tensor);
    if (!stored) {
      if (!tensor.copy)
        add(Difference::Kind::kMissing, tensor.hf_name, " is missing, config says ",
            shape_text(tensor.shape));
      continue;
    }
    if (const auto groups = group_format(config, tensor)) {
      if (const std::string bad = group_problem(checkpoint, tensor, *stored, *groups); !bad.empty())
        add(Difference::Kind::kScale, bad);
    } else if (stored->shape != tensor.shape) {
      add(Difference::Kind::kShape, stored->name, " is ", shape_text(stored->shape), ", config says ",
          shape_text(tensor.shape));
    } else if (!is_floating(stored->type)) {
      add(Difference::Kind::kShape, stored->name, " is ", name(stored->type), ", need a floating-point type");
    } else if (const std::string bad = scale_problem(checkpoint, *stored); !bad.empty()) {
      add(Difference::Kind::kScale, bad);
    }
  }
  const int64_t first_extra = config.num_layers + config.mtp_depth;
  const int64_t end_extra =
      config.num_layers + std::max(config.mtp_depth, stored_mtp_depth(checkpoint, config.num_layers));
  for (const StoredTensor* stored : checkpoint.tensors()) {
    const int64_t layer = layer_of(stored->name);
    const bool spare_mtp = layer >= first_extra && layer < end_extra;
    const bool scale = known.count(scaled_weight(stored->name)) > 0;
    const bool tied = config.tied_head && stored->name == lookup(kTopNames, "head");
    if (!known.count(stored->name) && !spare_mtp && !scale && !tied && !is_rotary_table(stored->name))
      add(Difference::Kind::kUnexpected, stored->name, " ", shape_text(stored->shape),
          " is no weight of the model that config describes");
  }
  return differences;
}

ModelConfig check_against(const ModelConfig& config, const Checkpoint& checkpoint) {
  ModelConfig stored = config;
  if (stored_mtp_depth(checkpoint, config.num_layers) == 0) stored.mtp_depth = 0;
  const std::vector<Difference> differences = compare(stored, checkpoint);
  if (differences.empty()) return stored;
  const std::string others = differences.size() == 1 ? "" : cat(" (and ", differences.size() - 1, " more)");
  throw Error(ErrorCode::kInvalidConfig,
              cat("[checkpoint.open] ", checkpoint.path().string(), ": ", differences.front().text, others,
                  ": these are not this config's weights. Use the config.json that came with them."));
}

}  // namespace hadal
