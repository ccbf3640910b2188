#include "hadal/checkpoint/gguf_model.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr const char* kArchitecture = "deepseek2";
constexpr int64_t kSoftmax = 1, kSigmoid = 2;  // expert_gating_func

struct NameRow {
  std::string_view ours, gguf;
};
// Ours (weight_specs.h), without "layers.N." | GGUF, without "blk.N.". kv_up is split and has two names.
constexpr std::array kNames = {
    NameRow{"embedding", "token_embd.weight"},
    NameRow{"final_norm", "output_norm.weight"},
    NameRow{"head", "output.weight"},
    NameRow{"attention_norm", "attn_norm.weight"},
    NameRow{"mla.query", "attn_q.weight"},
    NameRow{"mla.q_down", "attn_q_a.weight"},
    NameRow{"mla.q_norm", "attn_q_a_norm.weight"},
    NameRow{"mla.q_up", "attn_q_b.weight"},
    NameRow{"mla.kv_down", "attn_kv_a_mqa.weight"},
    NameRow{"mla.kv_norm", "attn_kv_a_norm.weight"},
    NameRow{"mla.kv_up", "attn_kv_b.weight"},  // of old files
    NameRow{"mla.out", "attn_output.weight"},
    NameRow{"ffn_norm", "ffn_norm.weight"},
    NameRow{"mlp.gate", "ffn_gate.weight"},
    NameRow{"mlp.up", "ffn_up.weight"},
    NameRow{"mlp.down", "ffn_down.weight"},
    NameRow{"moe.router", "ffn_gate_inp.weight"},
    NameRow{"moe.balance_bias", "exp_probs_b.bias"},
    NameRow{"moe.experts.gate", "ffn_gate_exps.weight"},
    NameRow{"moe.experts.up", "ffn_up_exps.weight"},
    NameRow{"moe.experts.down", "ffn_down_exps.weight"},
    NameRow{"moe.shared.gate", "ffn_gate_shexp.weight"},
    NameRow{"moe.shared.up", "ffn_up_shexp.weight"},
    NameRow{"moe.shared.down", "ffn_down_shexp.weight"},
};
constexpr std::string_view kKeyUp = "attn_k_b.weight", kValueUp = "attn_v_b.weight";
constexpr std::string_view kKvUp = "mla.kv_up";

// "layers.3.mla.out" -> "blk.3." and "mla.out"; "" and the name outside the layers.
std::pair<std::string, std::string> split_layer(const std::string& ours) {
  if (ours.rfind("layers.", 0) != 0) return {"", ours};
  const size_t dot = ours.find('.', 7);
  return {"blk." + ours.substr(7, dot - 7) + ".", ours.substr(dot + 1)};
}

std::string gguf_name(const std::string& ours) {
  const auto [prefix, rest] = split_layer(ours);
  for (const NameRow& row : kNames)
    if (row.ours == rest) return prefix + std::string(row.gguf);
  HADAL_CHECK(false) << "no GGUF name for weight " << ours;
  return "";
}

std::string key(const char* rest) {
  return cat(kArchitecture, ".", rest);
}

GgufType stored_as(const WeightSpec& spec, int64_t row, GgufType type) {
  const bool plain = spec.shape.size() == 1 || spec.role == WeightRole::kRouter;
  if (plain) return GgufType::kF32;
  return type == GgufType::kQ8_0 && row % kQ8Block != 0 ? GgufType::kBF16 : type;
}

[[noreturn]] void cannot_write(const std::string& what) {
  throw Error(ErrorCode::kUnsupported,
              cat("[gguf.write] ", what, ": GGUF has no key for that. There is no way to write this model."));
}

void add_moe(GgufWriter& w, const ModelConfig& c) {
  const MoeConfig& moe = c.moe;
  const bool dense = moe.num_experts == 0;
  if (!dense && moe.layer_step != 1) cannot_write(cat("every ", moe.layer_step, "th layer is MoE"));
  w.add_u32(key("leading_dense_block_count"), dense ? c.num_layers : moe.first_layer);
  w.add_u32(key("expert_feed_forward_length"), dense ? c.dense_dim : moe.expert_dim);
  w.add_u32(key("expert_shared_count"), dense ? 0 : moe.num_shared);
  if (dense) return;
  w.add_u32(key("expert_count"), moe.num_experts);
  w.add_u32(key("expert_used_count"), moe.top_k);
  w.add_f32(key("expert_weights_scale"), moe.scale);
  w.add_bool(key("expert_weights_norm"), moe.normalize);
  w.add_u32(key("expert_gating_func"), moe.scoring == Scoring::kSigmoid ? kSigmoid : kSoftmax);
  if (moe.num_groups > 1 && moe.num_groups_kept < moe.num_groups) {  // keeping all groups is no limit
    w.add_u32(key("expert_group_count"), moe.num_groups);
    w.add_u32(key("expert_group_used_count"), moe.num_groups_kept);
  }
}

void add_yarn(GgufWriter& w, const YarnConfig& yarn) {
  if (yarn.mscale != yarn.mscale_all_dim)
    cannot_write(cat("mscale is ", yarn.mscale, " and mscale_all_dim ", yarn.mscale_all_dim));
  w.add_text(key("rope.scaling.type"), "yarn");
  w.add_f32(key("rope.scaling.factor"), yarn.factor);
  w.add_u32(key("rope.scaling.original_context_length"), yarn.original_positions);
  w.add_f32(key("rope.scaling.yarn_beta_fast"), yarn.beta_fast);
  w.add_f32(key("rope.scaling.yarn_beta_slow"), yarn.beta_slow);
  w.add_f32(key("rope.scaling.yarn_log_multiplier"), 0.1 * yarn.mscale_all_dim);
}

void read_moe(const GgufFile& f, ModelConfig& c) {
  MoeConfig& moe = c.moe;
  moe.num_experts = f.integer(key("expert_count"), 0);
  if (moe.num_experts == 0) return;
  moe.first_layer = f.integer(key("leading_dense_block_count"), 0);
  moe.expert_dim = f.integer(key("expert_feed_forward_length"));
  moe.num_shared = f.integer(key("expert_shared_count"), 0);
  moe.top_k = f.integer(key("expert_used_count"));
  moe.scale = shortest_double(f.real(key("expert_weights_scale"), 1.0));
  moe.normalize = f.boolean(key("expert_weights_norm"), false);
  const bool bias = f.find(cat("blk.", moe.first_layer, ".exp_probs_b.bias"));
  // Absent in files made from a config.json that leaves scoring_func to its default; only V3's sigmoid has a
  // bias.
  const int64_t gating = f.integer(key("expert_gating_func"), bias ? kSigmoid : kSoftmax);
  if (gating != kSoftmax && gating != kSigmoid)
    throw Error(ErrorCode::kUnsupported,
                cat("[gguf.read] ", f.path().string(), ": expert_gating_func is ", gating,
                    ", hadal supports 1 and 2. There is no way to run this model."));
  moe.scoring = gating == kSigmoid ? Scoring::kSigmoid : Scoring::kSoftmax;
  moe.num_groups = std::max<int64_t>(1, f.integer(key("expert_group_count"), 1));
  moe.num_groups_kept = std::max<int64_t>(1, f.integer(key("expert_group_used_count"), 1));
  moe.choice = bias ? Choice::kGroupTopTwo : moe.num_groups > 1 ? Choice::kGroupMax : Choice::kGreedy;
  if (bias || gating == kSigmoid) c.generation = Generation::kV3;
}

YarnConfig read_yarn(const GgufFile& f) {
  const auto real = [&](const char* name, std::optional<double> absent) {
    return shortest_double(f.real(key(name), absent));
  };
  YarnConfig yarn;
  yarn.factor = real("rope.scaling.factor", std::nullopt);
  yarn.original_positions = f.integer(key("rope.scaling.original_context_length"));
  yarn.beta_fast = real("rope.scaling.yarn_beta_fast", 32);
  yarn.beta_slow = real("rope.scaling.yarn_beta_slow", 1);
  yarn.mscale = yarn.mscale_all_dim =
      shortest_double(10 * real("rope.scaling.yarn_log_multiplier", std::nullopt));
  return yarn;
}

const GgufTensor& required(const GgufFile& file, const std::string& name, const std::vector<int64_t>& shape) {
  const GgufTensor* found = file.find(name);
  const auto fail = [&](ErrorCode code, const std::string& what) {
    throw Error(code, cat("[gguf.read] ", file.path().string(), ": ", name, " ", what));
  };
  if (!found) fail(ErrorCode::kInvalidConfig, "is missing. Convert the model again.");
  if (!found->known_type())
    fail(ErrorCode::kUnsupported,
         cat("has the tensor type ", found->type,
             ", hadal reads F32, F16, BF16 and Q8_0. Convert to one of them first."));
  if (found->shape != shape)
    fail(ErrorCode::kInvalidConfig, cat("is ", shape_text(found->shape), ", the metadata says ",
                                        shape_text(shape), ". Convert the model again."));
  return *found;
}

void read_all(const GgufTensor& tensor, float* out) {
  gguf_to_f32(*tensor.known_type(), tensor.bytes.data(), out, tensor.num_values());
}

// kv_up [H*(N+V), C] from keys [H, C, N] and values [H, V, C].
void join_kv(const MlaConfig& mla, const float* keys, const float* values, float* out) {
  const int64_t H = mla.num_heads, N = mla.nope_dim, V = mla.value_dim, C = mla.kv_latent;
  for (int64_t h = 0; h < H; ++h) {
    float* head = out + h * (N + V) * C;
    for (int64_t c = 0; c < C; ++c)
      for (int64_t n = 0; n < N; ++n) head[n * C + c] = keys[(h * C + c) * N + n];
    std::copy_n(values + h * V * C, V * C, head + N * C);
  }
}

}  // namespace

double shortest_double(double x) {
  char text[32];
  for (int digits = 6; digits <= 9; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, x);
    if (std::strtof(text, nullptr) == static_cast<float>(x)) break;
  }
  return std::strtod(text, nullptr);
}

void add_gguf_config(GgufWriter& w, const ModelConfig& c, GgufType type) {
  w.add_text("general.architecture", kArchitecture);
  w.add_text("general.type", "model");
  const int64_t file_type = type == GgufType::kF32    ? 0
                            : type == GgufType::kF16  ? 1
                            : type == GgufType::kQ8_0 ? 7
                                                      : 32;
  w.add_u32("general.file_type", file_type);
  w.add_u32("general.quantization_version", 2);
  w.add_u32(key("vocab_size"), c.vocab_size);
  w.add_u32(key("block_count"), c.num_layers);
  w.add_u32(key("context_length"), c.max_positions);
  w.add_u32(key("embedding_length"), c.width);
  w.add_u32(key("feed_forward_length"), c.dense_dim);
  w.add_f32(key("attention.layer_norm_rms_epsilon"), c.norm_eps);
  const MlaConfig& mla = c.mla;
  w.add_u32(key("attention.head_count"), mla.num_heads);
  w.add_u32(key("attention.head_count_kv"), 1);  // the latent
  w.add_u32(key("attention.q_lora_rank"), mla.query_latent);
  w.add_u32(key("attention.kv_lora_rank"), mla.kv_latent);
  w.add_u32(key("attention.key_length"), mla.cache_dim());
  w.add_u32(key("attention.value_length"), mla.kv_latent);
  w.add_u32(key("attention.key_length_mla"), mla.key_dim());
  w.add_u32(key("attention.value_length_mla"), mla.value_dim);
  w.add_u32(key("rope.dimension_count"), mla.rope_dim);
  w.add_f32(key("rope.freq_base"), mla.rope_theta);
  if (mla.yarn) add_yarn(w, *mla.yarn);
  add_moe(w, c);
}

ModelConfig gguf_config(const GgufFile& f) {
  if (const std::string found = f.text("general.architecture"); found != kArchitecture)
    throw Error(ErrorCode::kUnsupported,
                cat("[gguf.read] ", f.path().string(), ": the architecture is \"", found,
                    "\", hadal reads \"deepseek2\". Give a DeepSeek-V2 or V3 model."));
  ModelConfig c;
  c.generation = Generation::kV2;
  const GgufTensor* embedding = f.find("token_embd.weight");
  c.vocab_size =
      embedding && embedding->shape.size() == 2 ? embedding->shape[0] : f.integer(key("vocab_size"));
  c.num_layers = f.integer(key("block_count"));
  c.max_positions = f.integer(key("context_length"));
  c.width = f.integer(key("embedding_length"));
  c.dense_dim = f.integer(key("feed_forward_length"));
  c.norm_eps = shortest_double(f.real(key("attention.layer_norm_rms_epsilon")));
  c.tied_head = !f.find("output.weight");
  MlaConfig& mla = c.mla;
  mla.num_heads = f.integer(key("attention.head_count"));
  mla.query_latent = f.integer(key("attention.q_lora_rank"), 0);
  mla.kv_latent = f.integer(key("attention.kv_lora_rank"));
  mla.rope_dim = f.integer(key("rope.dimension_count"));
  // Old files, with attn_kv_b whole, state the sizes of a head under the other names.
  const bool whole = f.find("blk.0.attn_kv_b.weight");
  mla.nope_dim = f.integer(key(whole ? "attention.key_length" : "attention.key_length_mla")) - mla.rope_dim;
  mla.value_dim = f.integer(key(whole ? "attention.value_length" : "attention.value_length_mla"));
  mla.rope_theta = shortest_double(f.real(key("rope.freq_base"), 10000.0));
  const std::string scaling = f.text(key("rope.scaling.type"), "none");
  if (scaling == "yarn")
    mla.yarn = read_yarn(f);
  else if (scaling != "none")
    throw Error(ErrorCode::kUnsupported,
                cat("[gguf.read] ", f.path().string(), ": rope.scaling.type is \"", scaling,
                    "\", hadal supports \"yarn\" and \"none\". Give another model."));
  read_moe(f, c);
  c.bos_id = f.integer("tokenizer.ggml.bos_token_id", -1);
  if (const int64_t eos = f.integer("tokenizer.ggml.eos_token_id", -1); eos >= 0) c.eos_ids = {eos};
  return c;
}

std::vector<GgufPart> gguf_parts(const ModelConfig& config, GgufType type) {
  ModelConfig main = config;
  main.mtp_depth = 0;
  const std::vector<WeightSpec> specs = weight_specs(main);
  std::vector<std::vector<HfTensor>> from(specs.size());
  for (const HfTensor& tensor : hf_tensors(main)) from[tensor.spec].push_back(tensor);
  std::vector<GgufPart> parts;
  const MlaConfig& mla = config.mla;
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto [prefix, rest] = split_layer(specs[i].name);
    if (rest == kKvUp) {
      using Half = GgufPart::Half;
      const std::vector<int64_t> keys{mla.num_heads, mla.kv_latent, mla.nope_dim};
      const std::vector<int64_t> values{mla.num_heads, mla.value_dim, mla.kv_latent};
      parts.push_back(
          {prefix + std::string(kKeyUp), stored_as(specs[i], keys[2], type), keys, Half::kKeys, from[i]});
      parts.push_back({prefix + std::string(kValueUp), stored_as(specs[i], values[2], type), values,
                       Half::kValues, from[i]});
      continue;
    }
    parts.push_back({gguf_name(specs[i].name), stored_as(specs[i], specs[i].shape.back(), type),
                     specs[i].shape, GgufPart::Half::kNone, from[i]});
  }
  return parts;
}

void read_gguf_tensor(const GgufFile& file, const ModelConfig& config, const std::string& spec_name,
                      const HfTensor& tensor, float* out) {
  const auto [prefix, rest] = split_layer(spec_name);
  const std::string name = gguf_name(spec_name);
  if (rest == kKvUp && !file.find(name)) {
    const MlaConfig& mla = config.mla;
    const int64_t H = mla.num_heads, C = mla.kv_latent;
    const GgufTensor& keys = required(file, prefix + std::string(kKeyUp), {H, C, mla.nope_dim});
    const GgufTensor& values = required(file, prefix + std::string(kValueUp), {H, mla.value_dim, C});
    std::vector<float> k(static_cast<size_t>(keys.num_values())), v(static_cast<size_t>(values.num_values()));
    read_all(keys, k.data());
    read_all(values, v.data());
    return join_kv(mla, k.data(), v.data(), out);
  }
  std::vector<int64_t> shape = tensor.shape;
  if (tensor.expert >= 0) shape.insert(shape.begin(), config.moe.num_experts);
  const GgufTensor& found = required(file, name, shape);
  if (tensor.expert < 0) return read_all(found, out);
  const int64_t values = tensor.shape[0] * tensor.shape[1];
  const GgufType type = *found.known_type();
  gguf_to_f32(type, found.bytes.data() + tensor.expert * gguf_row_bytes(type, values), out, values);
}

}  // namespace hadal
