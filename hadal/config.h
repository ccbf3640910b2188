// What a DeepSeek-V2/V3 model is, as stated by its config.json or by one of our presets. PUBLIC, torch-free.
//
// Architecture facts are stated here and never inferred from sizes, names or layer numbers.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace hadal {

// kF8E4M3: the official 128x128 blocks. kInt8, kInt4: hadal's own groups of 128 and 64 values along a row
// (kernels/infer.h).
enum class DType { kF32, kF16, kBF16, kF8E4M3, kInt8, kInt4 };

// Which published family: decides names of the config dialect and defaults.
enum class Generation { kV2, kV3, kV32 };

enum class Scoring { kSoftmax, kSigmoid };

// How top_k experts are chosen. kGreedy: plain top-k. kGroupMax (V2 group_limited_greedy): a group scores its
// best expert. kGroupTopTwo (V3 noaux_tc): choice by score + balance bias, a group scores the sum of its two
// best.
enum class Choice { kGreedy, kGroupMax, kGroupTopTwo };

// YaRN (architecture spec, RoPE and YaRN). Absent: plain RoPE.
struct YarnConfig {
  double factor = 40;                 // context extension factor
  int64_t original_positions = 4096;  // positions the model was first trained on
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 1;          // cos/sin multiplier is m(factor, mscale) / m(factor, mscale_all_dim)
  double mscale_all_dim = 1;  // softmax scale gets m(factor, mscale_all_dim)^2; 0: no correction
  bool operator==(const YarnConfig&) const = default;
};

// DeepSeek-V3.2's sparse attention: a small second attention, the lightning indexer, chooses the keys that a
// token attends to (architecture spec, V3.2).
struct IndexerConfig {
  int64_t num_heads = 0;  // query heads; one shared key
  int64_t head_dim = 0;   // the first rope_dim channels are rotated
  int64_t top_k = 0;      // keys that a token attends to, itself included if chosen
  bool operator==(const IndexerConfig&) const = default;
};

struct MlaConfig {
  int64_t num_heads = 0;     // H
  int64_t query_latent = 0;  // Q; 0: no query compression, one projection from the width
  int64_t kv_latent = 0;     // C
  int64_t nope_dim = 0;      // N: per head, not rotated
  int64_t rope_dim = 0;      // R: per query head; one shared key
  int64_t value_dim = 0;     // V: per head
  double rope_theta = 10000;
  std::optional<YarnConfig> yarn;
  std::optional<IndexerConfig> indexer;                    // kV32 has one; absent: each token sees all keys
  int64_t key_dim() const { return nope_dim + rope_dim; }  // K
  int64_t cache_dim() const { return kv_latent + rope_dim; }  // of latent and key, cached per token and layer
  int64_t index_dim() const { return indexer ? indexer->head_dim : 0; }  // cached beside them
  bool operator==(const MlaConfig&) const = default;
};

struct MoeConfig {
  int64_t num_experts = 0;      // E, routed, per MoE layer; 0: a dense model
  int64_t num_shared = 0;       // shared expert = one MLP of num_shared * expert_dim
  int64_t top_k = 0;            // A
  int64_t expert_dim = 0;       // M
  int64_t num_groups = 1;       // G; 1: no group limit
  int64_t num_groups_kept = 1;  // groups a token may choose from
  int64_t first_layer = 0;      // layers below are dense
  int64_t layer_step = 1;       // MoE iff layer >= first_layer and layer % layer_step == 0
  Scoring scoring = Scoring::kSoftmax;
  Choice choice = Choice::kGreedy;
  bool normalize = false;  // chosen weights are divided by their sum (+1e-20)
  double scale = 1.0;      // on the routed sum, after normalising; not on the shared expert
  bool operator==(const MoeConfig&) const = default;
};

struct ModelConfig {
  Generation generation = Generation::kV3;
  int64_t vocab_size = 0;     // W: rows of embedding and head, padding included
  int64_t width = 0;          // D
  int64_t num_layers = 0;     // main layers, without MTP
  int64_t dense_dim = 0;      // F
  int64_t max_positions = 0;  // longest context in tokens
  double norm_eps = 1e-6;
  int64_t mtp_depth = 0;   // J: MTP modules stored after the main layers
  bool tied_head = false;  // the head is the embedding
  bool scores = false;     // a reward model: one score [1, D] of the last token instead of a head
  double init_std = 0.02;
  MlaConfig mla;
  MoeConfig moe;
  DType stored_dtype = DType::kBF16;       // of the checkpoint's matrices
  bool fp8_power_of_two_scales = false;    // scale_fmt "ue8m0"
  std::vector<std::string> int8_matrices;  // kInt4: ends of the checkpoint names that are INT8 ("lm_head")
  int64_t bos_id = -1;                     // -1: none
  std::vector<int64_t> eos_ids;            // empty: none

  // Is this layer's FFN a mixture of experts? MTP layers (index >= num_layers) always are, if there are
  // experts.
  bool is_moe(int64_t layer) const;
  // 1/sqrt(N + R) times YaRN's m^2 (architecture spec, the two mscale corrections).
  double softmax_scale() const;
  bool operator==(const ModelConfig&) const = default;
};

// Reads DIR/config.json or the file itself, in either dialect: as published, or as transformers 5 saves it.
// Unknown fields are ignored. Throws not_found, corrupt, invalid_config; the text names file and field.
ModelConfig load_config(const std::filesystem::path& path);

// "micro", "tiny", "v2-lite", "v2", "v3". Throws not_found with the nearest name.
ModelConfig preset(const std::string& name);
std::vector<std::string> preset_names();

// The config.json that transformers and hadal read back to the same model (published dialect).
std::string config_json(const ModelConfig& config);

// Throws unsupported, naming `source`, for a model with sparse attention: the engine runs it, the trainer and
// LibTorch's forward pass do not know it.
void require_dense_attention(const ModelConfig& config, const std::string& source);

// What a model is for. Throws unsupported, naming `source`, if this one is for the other.
enum class Purpose { kLanguage, kReward };
void require_purpose(const ModelConfig& config, Purpose purpose, const std::string& source);

// The reward model that begins with this model's layers: scores instead of a head, no MTP modules.
ModelConfig reward_config(const ModelConfig& config);

// Every cross-field rule (spec, sanity checks). `source` names the config in the error.
void check(const ModelConfig& config, const std::string& source);

}  // namespace hadal
