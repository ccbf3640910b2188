#include <algorithm>
#include <string_view>

#include "hadal/base/check.h"
#include "hadal/config/attention_cost.h"
#include "hadal/config/weight_specs.h"
#include "hadal/planner.h"

namespace hadal {
namespace {

bool contains(const std::string& name, std::string_view part) {
  return name.find(part) != std::string::npos;
}

int64_t& purpose_of(const WeightSpec& spec, WeightCounts& counts) {
  switch (spec.role) {
    case WeightRole::kEmbedding:
      return counts.embedding;
    case WeightRole::kHead:
      return counts.head;
    case WeightRole::kRouter:
      return counts.router;
    case WeightRole::kNorm:
      return counts.norms;
    case WeightRole::kMtpProject:
      return counts.mtp_project;
    case WeightRole::kIndexWeights:
      return counts.indexer;
    case WeightRole::kMatrix:
      if (contains(spec.name, ".mla.indexer.")) return counts.indexer;
      if (contains(spec.name, ".mla.")) return counts.attention;
      if (contains(spec.name, ".moe.experts.")) return counts.routed_experts;
      if (contains(spec.name, ".moe.shared.")) return counts.shared_experts;
      if (contains(spec.name, ".mlp.")) return counts.dense_mlp;
      break;
    case WeightRole::kBalanceBias:
      break;
  }
  HADAL_CHECK(false) << "no purpose known for weight " << spec.name;
  return counts.norms;
}

// Values one token uses: of stacked experts top_k, of anything else all.
int64_t active_values(const WeightSpec& spec, const MoeConfig& moe) {
  return spec.stacked() ? spec.num_values() / spec.shape[0] * moe.top_k : spec.num_values();
}

int64_t num_blocks(int64_t size) {
  return (size + 127) / 128;
}  // an edge block may be partial

void add_to_checkpoint(const WeightSpec& spec, ModelSize& size) {
  const int64_t values = spec.num_values(), tensors = spec.stacked() ? spec.shape[0] : 1;
  const int64_t plain_bytes = values * (spec.role == WeightRole::kBalanceBias ? 4 : 2);
  size.bf16_bytes += plain_bytes;
  size.bf16_tensors += tensors;
  if (spec.role != WeightRole::kMatrix) {
    size.fp8_bytes += plain_bytes;
    size.fp8_tensors += tensors;
    return;
  }
  const size_t last = spec.shape.size() - 1;
  const int64_t scales = tensors * num_blocks(spec.shape[last - 1]) * num_blocks(spec.shape[last]);
  size.fp8_bytes += values + 4 * scales;
  size.fp8_tensors += 2 * tensors;
}

TokenFlops linear_flops(const ModelConfig& config) {
  const WeightCounts active = model_size(config).active;
  TokenFlops flops;
  flops.layers = 2 * (active.total() - active.embedding - active.norms - active.head);
  flops.head = 2 * config.vocab_size * config.width;  // also if the head is the embedding
  return flops;
}

}  // namespace

int64_t WeightCounts::total() const {
  return embedding + attention + indexer + dense_mlp + routed_experts + shared_experts + router + norms +
         mtp_project + head;
}

ModelSize model_size(const ModelConfig& config) {
  ModelSize size;
  for (const WeightSpec& spec : weight_specs(config)) {
    add_to_checkpoint(spec, size);
    if (spec.role == WeightRole::kBalanceBias) {
      size.balance_bias += spec.num_values();
      continue;
    }
    const bool mtp = spec.layer >= config.num_layers;
    purpose_of(spec, mtp ? size.mtp : size.main) += spec.num_values();
    purpose_of(spec, mtp ? size.mtp_active : size.active) += active_values(spec, config.moe);
  }
  size.mtp_copies = config.mtp_depth * 2 * config.vocab_size * config.width;
  for (int64_t* bytes : {&size.bf16_bytes, &size.fp8_bytes}) *bytes += 2 * size.mtp_copies;
  for (int64_t* tensors : {&size.bf16_tensors, &size.fp8_tensors}) *tensors += 2 * config.mtp_depth;

  const MlaConfig& mla = config.mla;
  size.cache_bytes = 2 * config.num_layers * (mla.cache_dim() + mla.index_dim());
  size.expanded_cache_bytes = 2 * config.num_layers * mla.num_heads * (mla.key_dim() + mla.value_dim);
  return size;
}

TokenFlops decode_flops(const ModelConfig& config, int64_t context) {
  TokenFlops flops =
      linear_flops(config);  // kv_up costs the same absorbed: W^UK on the query, W^UV on the sum
  flops.attention = 2 * config.num_layers *
                    static_cast<int64_t>(attention_products(config.mla, static_cast<double>(context)));
  return flops;
}

TokenFlops prefill_flops(const ModelConfig& config, int64_t context) {
  TokenFlops flops = linear_flops(config);
  const MlaConfig& mla = config.mla;
  const IndexerConfig indexer = mla.indexer.value_or(IndexerConfig{0, 0, context});
  const int64_t k = std::min(context, indexer.top_k);
  // Twice the mean over the tokens t = 1 .. context of t, of min(t, k), and of t where it is above k.
  const int64_t visible = context + 1, chosen = 2 * k - k * (k - 1) / context,
                scored = visible - k * (k + 1) / context;
  flops.attention = config.num_layers * (mla.num_heads * (mla.key_dim() + mla.value_dim) * chosen +
                                         indexer.num_heads * indexer.head_dim * scored);
  return flops;
}

}  // namespace hadal
