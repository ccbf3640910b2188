#include <cmath>

#include "hadal/base/text.h"
#include "hadal/config.h"
#include "hadal/config/weight_specs.h"
#include "hadal/error.h"

namespace hadal {
namespace {

// The rules of one config. Fields are named as in config.json, where the user can change them.
class Rules {
 public:
  explicit Rules(const std::string& source) : source_(source) {}

  template <class... Parts>
  void need(bool holds, const Parts&... parts) const {
    if (!holds) throw Error(ErrorCode::kInvalidConfig, cat("[config.check] ", source_, ": ", parts..., "."));
  }
  void positive(const char* key, int64_t value) const {
    need(value > 0, key, " is ", value, ", need a positive integer");
  }
  void finite_positive(const char* key, double value) const {
    need(std::isfinite(value) && value > 0, key, " is ", value, ", need a positive number");
  }

 private:
  const std::string& source_;
};

void check_indexer(const MlaConfig& mla, const Rules& rules) {
  const IndexerConfig& indexer = *mla.indexer;
  rules.positive("index_n_heads", indexer.num_heads);
  rules.positive("index_head_dim", indexer.head_dim);
  rules.positive("index_topk", indexer.top_k);
  rules.need(indexer.head_dim >= mla.rope_dim, "index_head_dim ", indexer.head_dim,
             " is below qk_rope_head_dim ", mla.rope_dim, ": the indexer rotates that many channels");
  rules.need(mla.query_latent > 0,
             "q_lora_rank is null, but the indexer of a deepseek_v32 model reads the query latent: need a "
             "positive integer");
}

void check_mla(const MlaConfig& mla, const Rules& rules) {
  rules.positive("num_attention_heads", mla.num_heads);
  rules.positive("kv_lora_rank", mla.kv_latent);
  rules.positive("qk_nope_head_dim", mla.nope_dim);
  rules.positive("qk_rope_head_dim", mla.rope_dim);
  rules.positive("v_head_dim", mla.value_dim);
  rules.need(mla.query_latent >= 0, "q_lora_rank is ", mla.query_latent, ", need a positive integer or null");
  rules.need(mla.rope_dim % 2 == 0, "qk_rope_head_dim ", mla.rope_dim,
             " is odd: rotary dimensions come in pairs");
  rules.finite_positive("rope_theta", mla.rope_theta);
  if (mla.indexer) check_indexer(mla, rules);
  if (!mla.yarn) return;
  const YarnConfig& yarn = *mla.yarn;
  rules.need(std::isfinite(yarn.factor) && yarn.factor >= 1, "rope_scaling.factor is ", yarn.factor,
             ", need at least 1");
  rules.positive("rope_scaling.original_max_position_embeddings", yarn.original_positions);
  rules.finite_positive("rope_scaling.beta_slow", yarn.beta_slow);
  rules.need(std::isfinite(yarn.beta_fast) && yarn.beta_fast > yarn.beta_slow, "rope_scaling.beta_fast ",
             yarn.beta_fast, " is not above beta_slow ", yarn.beta_slow);
  rules.finite_positive("rope_scaling.mscale", yarn.mscale);
  rules.need(std::isfinite(yarn.mscale_all_dim) && yarn.mscale_all_dim >= 0,
             "rope_scaling.mscale_all_dim is ", yarn.mscale_all_dim, ", need a number of at least 0");
  rules.need(mla.rope_theta > 1, "rope_theta is ", mla.rope_theta, ", need more than 1 for YaRN");
}

void check_moe(const ModelConfig& c, const Rules& rules) {
  const MoeConfig& moe = c.moe;
  const int64_t E = moe.num_experts, G = moe.num_groups;
  rules.positive("num_experts_per_tok", moe.top_k);
  rules.positive("moe_intermediate_size", moe.expert_dim);
  rules.positive("n_group", G);
  rules.positive("topk_group", moe.num_groups_kept);
  rules.positive("moe_layer_freq", moe.layer_step);
  rules.need(moe.num_shared >= 0, "n_shared_experts is ", moe.num_shared, ", need a non-negative integer");
  rules.need(moe.first_layer >= 0, "first_k_dense_replace is ", moe.first_layer,
             ", need a non-negative integer");
  rules.need(E % G == 0, "n_routed_experts ", E, " is not a multiple of n_group ", G);
  rules.need(moe.num_groups_kept <= G, "topk_group ", moe.num_groups_kept, " is above n_group ", G);
  rules.need(moe.choice != Choice::kGroupTopTwo || E / G >= 2,
             "topk_method noaux_tc scores a group by its two best "
             "experts, but n_routed_experts ",
             E, " / n_group ", G, " leaves one");
  rules.need(moe.top_k <= moe.num_groups_kept * (E / G), "num_experts_per_tok ", moe.top_k, " is above the ",
             moe.num_groups_kept * (E / G), " experts of topk_group ", moe.num_groups_kept, " groups of ",
             E / G);
  rules.finite_positive("routed_scaling_factor", moe.scale);
  const bool v3 = c.generation != Generation::kV2;
  rules.need((moe.scoring == Scoring::kSigmoid) == v3, "scoring_func is ", v3 ? "softmax" : "sigmoid",
             ", but a ", v3 ? "deepseek_v3 model uses sigmoid" : "deepseek_v2 model uses softmax");
  rules.need((moe.choice == Choice::kGroupTopTwo) == v3, "topk_method of a ",
             v3 ? "deepseek_v3 model is noaux_tc" : "deepseek_v2 model is greedy or group_limited_greedy");
}

}  // namespace

void check(const ModelConfig& c, const std::string& source) {
  const Rules rules(source);
  rules.positive("vocab_size", c.vocab_size);
  rules.positive("hidden_size", c.width);
  rules.positive("num_hidden_layers", c.num_layers);
  rules.positive("intermediate_size", c.dense_dim);
  rules.positive("max_position_embeddings", c.max_positions);
  rules.need(c.mtp_depth >= 0, "num_nextn_predict_layers is ", c.mtp_depth, ", need a non-negative integer");
  rules.finite_positive("rms_norm_eps", c.norm_eps);
  rules.need(std::isfinite(c.init_std) && c.init_std >= 0, "initializer_range is ", c.init_std,
             ", need a number of at least 0");
  check_mla(c.mla, rules);
  rules.need(c.mla.indexer.has_value() == (c.generation == Generation::kV32),
             "a deepseek_v32 model, and no other, has an indexer (index_topk)");
  rules.need(c.moe.num_experts >= 0, "n_routed_experts is ", c.moe.num_experts,
             ", need a positive integer or null");
  if (c.moe.num_experts > 0) check_moe(c, rules);
  rules.need(c.bos_id < c.vocab_size, "bos_token_id ", c.bos_id, " is not below vocab_size ", c.vocab_size);
  for (const int64_t id : c.eos_ids)
    rules.need(id >= 0 && id < c.vocab_size, "eos_token_id ", id, " is not below vocab_size ", c.vocab_size);
  double values = 0;
  for (const WeightSpec& spec : weight_specs(c)) values += static_cast<double>(spec.num_values());
  rules.need(values < 1e15, "the sizes make a model of ", values, " parameters, need less than 1e15");
}

}  // namespace hadal
