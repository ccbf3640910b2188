#include "hadal/config/weight_specs.h"

namespace hadal {
namespace {

using Specs = std::vector<WeightSpec>;

void add_mlp(Specs& specs, const std::string& prefix, int64_t D, int64_t F) {
  specs.push_back({prefix + "gate", {F, D}, WeightRole::kMatrix, WeightSplit::kOutputs});
  specs.push_back({prefix + "up", {F, D}, WeightRole::kMatrix, WeightSplit::kOutputs});
  specs.push_back({prefix + "down", {D, F}, WeightRole::kMatrix, WeightSplit::kInputs});
}

void add_indexer(Specs& specs, const std::string& prefix, int64_t D, const MlaConfig& mla) {
  const int64_t X = mla.indexer->num_heads, Y = mla.indexer->head_dim;
  specs.push_back({prefix + "query", {X * Y, mla.query_latent}});
  specs.push_back({prefix + "key", {Y, D}});
  specs.push_back({prefix + "key_norm", {Y}, WeightRole::kNorm});
  specs.push_back({prefix + "key_bias", {Y}, WeightRole::kNorm});
  specs.push_back({prefix + "weights", {X, D}, WeightRole::kIndexWeights});
}

void add_mla(Specs& specs, const std::string& prefix, int64_t D, const MlaConfig& mla) {
  const int64_t H = mla.num_heads, K = mla.key_dim(), Q = mla.query_latent, C = mla.kv_latent;
  if (Q == 0) {
    specs.push_back({prefix + "query", {H * K, D}, WeightRole::kMatrix, WeightSplit::kOutputs});
  } else {
    specs.push_back({prefix + "q_down", {Q, D}});
    specs.push_back({prefix + "q_norm", {Q}, WeightRole::kNorm});
    specs.push_back({prefix + "q_up", {H * K, Q}, WeightRole::kMatrix, WeightSplit::kOutputs});
  }
  specs.push_back({prefix + "kv_down", {C + mla.rope_dim, D}});
  specs.push_back({prefix + "kv_norm", {C}, WeightRole::kNorm});
  const int64_t X = mla.nope_dim + mla.value_dim;  // per head: k_up, then v_up
  specs.push_back({prefix + "kv_up", {H * X, C}, WeightRole::kMatrix, WeightSplit::kOutputs});
  specs.push_back({prefix + "out", {D, H * mla.value_dim}, WeightRole::kMatrix, WeightSplit::kInputs});
  if (mla.indexer) add_indexer(specs, prefix + "indexer.", D, mla);
}

void add_moe(Specs& specs, const std::string& prefix, int64_t D, const MoeConfig& moe) {
  const int64_t E = moe.num_experts, M = moe.expert_dim;
  specs.push_back({prefix + "router", {E, D}, WeightRole::kRouter});
  if (moe.choice == Choice::kGroupTopTwo)
    specs.push_back({prefix + "balance_bias", {E}, WeightRole::kBalanceBias});
  specs.push_back({prefix + "experts.gate", {E, M, D}, WeightRole::kMatrix, WeightSplit::kExperts});
  specs.push_back({prefix + "experts.up", {E, M, D}, WeightRole::kMatrix, WeightSplit::kExperts});
  specs.push_back({prefix + "experts.down", {E, D, M}, WeightRole::kMatrix, WeightSplit::kExperts});
  if (moe.num_shared > 0) add_mlp(specs, prefix + "shared.", D, moe.num_shared * M);
}

}  // namespace

int64_t WeightSpec::num_values() const {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

std::vector<WeightSpec> weight_specs(const ModelConfig& config) {
  const int64_t D = config.width, W = config.vocab_size;
  Specs specs;
  specs.push_back({"embedding", {W, D}, WeightRole::kEmbedding});
  for (int64_t layer = 0; layer < config.num_layers + config.mtp_depth; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const size_t first = specs.size();
    if (layer >= config.num_layers) {
      specs.push_back({prefix + "mtp.embedding_norm", {D}, WeightRole::kNorm});
      specs.push_back({prefix + "mtp.hidden_norm", {D}, WeightRole::kNorm});
      specs.push_back({prefix + "mtp.project", {D, 2 * D}, WeightRole::kMtpProject});
    }
    specs.push_back({prefix + "attention_norm", {D}, WeightRole::kNorm});
    add_mla(specs, prefix + "mla.", D, config.mla);
    specs.push_back({prefix + "ffn_norm", {D}, WeightRole::kNorm});
    if (config.is_moe(layer)) {
      add_moe(specs, prefix + "moe.", D, config.moe);
    } else {
      add_mlp(specs, prefix + "mlp.", D, config.dense_dim);
    }
    if (layer >= config.num_layers) specs.push_back({prefix + "mtp.final_norm", {D}, WeightRole::kNorm});
    for (size_t i = first; i < specs.size(); ++i) specs[i].layer = layer;
  }
  specs.push_back({"final_norm", {D}, WeightRole::kNorm});
  if (config.scores) {
    specs.push_back({"score", {1, D}, WeightRole::kHead});
  } else if (!config.tied_head) {
    specs.push_back({"head", {W, D}, WeightRole::kHead});
  }
  return specs;
}

}  // namespace hadal
