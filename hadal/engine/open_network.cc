#include "hadal/engine/open_network.h"

#include <cstring>
#include <memory>
#include <vector>

#include "hadal/base/text.h"
#include "hadal/checkpoint.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/numbers.h"
#include "hadal/error.h"

namespace hadal {
namespace {

// Copies that the views point into beside the file maps.
class OwnedFloats {
 public:
  float* make(int64_t n) {
    blocks_->emplace_back(static_cast<size_t>(n));
    return blocks_->back().data();
  }
  std::shared_ptr<const void> owner() const { return blocks_; }

 private:
  std::shared_ptr<std::vector<std::vector<float>>> blocks_ =
      std::make_shared<std::vector<std::vector<float>>>();
};

class Opener {
 public:
  Opener(const ModelConfig& config, const Checkpoint& checkpoint)
      : config_(config), checkpoint_(checkpoint), specs_(weight_specs(config)) {
    out_.config = config;
    out_.layers.resize(static_cast<size_t>(config.num_layers + config.mtp_depth));
    for (size_t i = 0; i < out_.layers.size(); ++i) {
      out_.layers[i].is_moe = config.is_moe(static_cast<int64_t>(i));
      if (out_.layers[i].is_moe)
        out_.layers[i].moe.experts.resize(static_cast<size_t>(config.moe.num_experts));
    }
  }

  NetworkWeights open() {
    for (const HfTensor& tensor : hf_tensors(config_))
      if (!tensor.copy) place(tensor);
    if (config_.tied_head) out_.head = out_.embedding;
    out_.owner = {std::make_shared<const Checkpoint>(checkpoint_), floats_.owner()};
    return std::move(out_);
  }

 private:
  StoredTensor stored(const HfTensor& tensor) const {
    std::optional<StoredTensor> found = find_weight(checkpoint_, tensor);
    if (!found)  // check_against has been asked: only a file that changes under us comes here
      throw Error(ErrorCode::kCorrupt, cat("[engine.open] ", checkpoint_.path().string(), ": ",
                                           tensor.hf_name, " is missing. Fetch the checkpoint again."));
    return *found;
  }

  const float* vector(const HfTensor& tensor) {
    const StoredTensor found = stored(tensor);
    float* values = floats_.make(found.num_values());
    to_f32(found.type, found.bytes.data(), values, found.num_values());
    return values;
  }

  const void* block_scales(const StoredTensor& weight) {
    const StoredTensor* scale = find_scale(checkpoint_, weight);
    if (!scale)
      throw Error(ErrorCode::kCorrupt,
                  cat("[engine.open] ", checkpoint_.path().string(), ": ", weight.name,
                      " has no block scales. Fetch the checkpoint again, or run hadal inspect on it."));
    float* values = floats_.make(scale->num_values());
    to_f32(scale->type, scale->bytes.data(), values, scale->num_values());
    return values;
  }

  WeightView matrix(const HfTensor& tensor) {
    const StoredTensor found = stored(tensor);
    WeightView view{WeightFormat::kF32, tensor.shape.at(0), tensor.shape.at(1), found.bytes.data()};
    if (found.type == ElementType::kF16) {
      float* values = floats_.make(found.num_values());
      to_f32(found.type, found.bytes.data(), values, found.num_values());
      view.data = values;
      return view;
    }
    const std::optional<WeightFormat> format = weight_format(checkpoint_, found);
    if (!format)
      throw Error(
          ErrorCode::kUnsupported,
          cat("[engine.open] ", found.name, " is ", name(found.type),
              ", need F32, F16, BF16, F8_E4M3, INT8 or INT4. Convert the checkpoint with hadal convert."));
    view.format = *format;
    if (view.format == WeightFormat::kFp8) view.scale = block_scales(found);
    if (view.format == WeightFormat::kInt8 || view.format == WeightFormat::kInt4)
      view.scale = find_scale(checkpoint_, found)->bytes.data();
    return view;
  }

  void place(const HfTensor& tensor) {
    const std::string& full = specs_[tensor.spec].name;
    if (full == "embedding") out_.embedding = matrix(tensor);
    if (full == "head") out_.head = matrix(tensor);
    if (full == "final_norm") out_.final_norm = vector(tensor);
    if (full == "score") out_.score = vector(tensor);
    if (full.rfind("layers.", 0) != 0) return;
    const size_t dot = full.find('.', 7);
    LayerView& layer = out_.layers.at(std::stoul(full.substr(7, dot - 7)));
    const std::string field = full.substr(dot + 1);
    if (WeightView* view = matrix_slot(layer, field, tensor.expert))
      *view = matrix(tensor);
    else
      *vector_slot(layer, field) = vector(tensor);
  }

  static WeightView* mlp_slot(MlpView& mlp, std::string_view field) {
    return field == "gate" ? &mlp.gate : field == "up" ? &mlp.up : field == "down" ? &mlp.down : nullptr;
  }

  // Where a weight of weight_specs() belongs; null: it is a vector.
  static WeightView* matrix_slot(LayerView& layer, const std::string& field, int64_t expert) {
    const auto under = [&](std::string_view prefix) { return field.rfind(prefix, 0) == 0; };
    const std::string last = field.substr(field.rfind('.') + 1);
    if (under("moe.experts.")) return mlp_slot(layer.moe.experts.at(static_cast<size_t>(expert)), last);
    if (under("moe.shared.")) return mlp_slot(layer.moe.shared, last);
    if (under("mlp.")) return mlp_slot(layer.mlp, last);
    if (field == "moe.router") return &layer.moe.router;
    if (field == "mtp.project") return &layer.mtp.project;
    if (field == "mla.query") return &layer.mla.query;
    if (field == "mla.q_down") return &layer.mla.q_down;
    if (field == "mla.q_up") return &layer.mla.q_up;
    if (field == "mla.kv_down") return &layer.mla.kv_down;
    if (field == "mla.kv_up") return &layer.mla.kv_up;
    if (field == "mla.out") return &layer.mla.out;
    if (field == "mla.indexer.query") return &layer.mla.indexer.query;
    if (field == "mla.indexer.key") return &layer.mla.indexer.key;
    if (field == "mla.indexer.weights") return &layer.mla.indexer.weights;
    return nullptr;
  }

  static const float** vector_slot(LayerView& layer, const std::string& field) {
    if (field == "attention_norm") return &layer.attention_norm;
    if (field == "ffn_norm") return &layer.ffn_norm;
    if (field == "mla.q_norm") return &layer.mla.q_norm;
    if (field == "mla.kv_norm") return &layer.mla.kv_norm;
    if (field == "mla.indexer.key_norm") return &layer.mla.indexer.key_norm;
    if (field == "mla.indexer.key_bias") return &layer.mla.indexer.key_bias;
    if (field == "moe.balance_bias") return &layer.moe.balance_bias;
    if (field == "mtp.embedding_norm") return &layer.mtp.embedding_norm;
    if (field == "mtp.hidden_norm") return &layer.mtp.hidden_norm;
    if (field == "mtp.final_norm") return &layer.mtp.final_norm;
    throw Error(ErrorCode::kInternal, cat("[engine.open] no place for ", field, "."));
  }

  const ModelConfig& config_;
  const Checkpoint& checkpoint_;
  std::vector<WeightSpec> specs_;
  OwnedFloats floats_;
  NetworkWeights out_;
};

}  // namespace

NetworkWeights open_network(const std::filesystem::path& folder, Purpose purpose) {
  const Checkpoint checkpoint = open_checkpoint(folder);
  const ModelConfig config = check_against(load_config(folder), checkpoint);
  require_purpose(config, purpose, folder.string());
  return Opener(config, checkpoint).open();
}

CacheFormat choose_cache_format(const std::string& wanted, const NetworkWeights& weights) {
  if (wanted != "auto") return cache_format(wanted);
  return weights.head.format == WeightFormat::kF32 ? CacheFormat::kF32 : CacheFormat::kBF16;
}

}  // namespace hadal
