#include "hadal/config/hf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

// Upper limits keep every product of sizes inside int64; the largest published model is far below them.
constexpr int64_t kMaxSize = int64_t{1} << 20, kMaxVocab = int64_t{1} << 24, kMaxExperts = int64_t{1} << 16;
constexpr int64_t kMaxLayers = 4096, kMaxPositions = int64_t{1} << 30, kMaxId = (int64_t{1} << 31) - 1;
constexpr const char* kRemedy = " Correct the field or use the config.json published with the weights.";

template <class Value>
struct Word {
  const char* text;
  Value value;
};
constexpr std::array kModelTypes = {Word<Generation>{"deepseek_v3", Generation::kV3},
                                    Word<Generation>{"deepseek_v2", Generation::kV2},
                                    Word<Generation>{"deepseek_v32", Generation::kV32},
                                    Word<Generation>{"kimi_k2", Generation::kV3}};  // same graph, other sizes
constexpr std::array kArchitectures = {Word<Generation>{"DeepseekV3ForCausalLM", Generation::kV3},
                                       Word<Generation>{"DeepseekV2ForCausalLM", Generation::kV2},
                                       Word<Generation>{"DeepseekV32ForCausalLM", Generation::kV32}};
constexpr std::array kScoringArchitectures = {
    Word<Generation>{"DeepseekV3ForSequenceClassification", Generation::kV3},
    Word<Generation>{"DeepseekV2ForSequenceClassification", Generation::kV2}};
constexpr std::array kScorings = {Word<Scoring>{"softmax", Scoring::kSoftmax},
                                  Word<Scoring>{"sigmoid", Scoring::kSigmoid}};
constexpr std::array kChoices = {
    Word<Choice>{"greedy", Choice::kGreedy}, Word<Choice>{"group_limited_greedy", Choice::kGroupMax},
    Word<Choice>{"noaux_tc", Choice::kGroupTopTwo},
    Word<Choice>{"gready", Choice::kGreedy}};  // sic: default of the published V2 code
constexpr std::array kDTypes = {Word<DType>{"bfloat16", DType::kBF16}, Word<DType>{"float32", DType::kF32},
                                Word<DType>{"float16", DType::kF16}};

struct GroupMethod {
  const char* name;  // quant_method
  DType dtype;
  int64_t size;  // group_size
};
constexpr std::array kGroupMethods = {GroupMethod{"hadal-int8", DType::kInt8, 128},
                                      GroupMethod{"hadal-int4", DType::kInt4, 64}};

template <class Words, class Value>
const char* word(const Words& words, Value value) {
  for (const auto& w : words)
    if (w.value == value) return w.text;
  return "";
}

// How a number may be absent: nullopt means the field is required. JSON null counts as absent.
using Default = std::optional<int64_t>;

// The config.json fields, each listed once; a visitor reads or writes them. Defaults are those of the
// transformers 5 classes, except where the comment says otherwise. Both classes disagree in several.
template <class Config, class Visitor>
void visit_fields(Config& c, Visitor& f) {
  f.model_type(c);
  f.purpose(c);
  const bool v3 = c.generation != Generation::kV2, sparse = c.generation == Generation::kV32;
  f.integer("vocab_size", c.vocab_size, 1, kMaxVocab, Default(v3 ? 129280 : 102400));
  f.integer("hidden_size", c.width, 1, kMaxSize, Default());
  f.integer("num_hidden_layers", c.num_layers, 1, kMaxLayers, Default());
  f.integer("intermediate_size", c.dense_dim, 1, kMaxSize, Default());
  f.integer("max_position_embeddings", c.max_positions, 1, kMaxPositions,
            Default(sparse ? 163840
                    : v3   ? 4096
                           : 2048));
  f.integer("num_attention_heads", c.mla.num_heads, 1, kMaxExperts, Default());
  f.same("num_key_value_heads", c.mla.num_heads, "latent attention has one key and value per query head");
  f.or_null("q_lora_rank", c.mla.query_latent, kMaxSize, 1536);
  f.integer("kv_lora_rank", c.mla.kv_latent, 1, kMaxSize, Default(512));
  f.integer("qk_nope_head_dim", c.mla.nope_dim, 1, kMaxSize, Default(128));
  f.integer("qk_rope_head_dim", c.mla.rope_dim, 2, kMaxSize, Default(64));
  f.integer("v_head_dim", c.mla.value_dim, 1, kMaxSize, Default(128));
  if (sparse) f.indexer(c);
  f.rope(c);
  f.or_null("n_routed_experts", c.moe.num_experts, kMaxExperts, 0);  // absent: a dense model, as published
  if (c.moe.num_experts > 0) {
    f.or_null("n_shared_experts", c.moe.num_shared, kMaxExperts, 0);
    f.integer("num_experts_per_tok", c.moe.top_k, 1, kMaxExperts, Default());
    f.integer("moe_intermediate_size", c.moe.expert_dim, 1, kMaxSize, Default());
    f.word("scoring_func", c.moe.scoring, kScorings, v3 ? Scoring::kSigmoid : Scoring::kSoftmax);
    f.word("topk_method", c.moe.choice, kChoices, v3 ? Choice::kGroupTopTwo : Choice::kGreedy);
    f.groups(c.moe, v3 ? 8 : 1, v3 ? 4 : 1);
    f.integer("first_k_dense_replace", c.moe.first_layer, 0, kMaxLayers, Default(v3 ? 3 : 0));
    f.integer("moe_layer_freq", c.moe.layer_step, 1, kMaxLayers, Default(1));
    f.boolean("norm_topk_prob", c.moe.normalize, v3);
    f.real("routed_scaling_factor", c.moe.scale, v3 ? 2.5 : 1.0);
  }
  f.mtp(c.mtp_depth);
  f.real("rms_norm_eps", c.norm_eps, 1e-6);
  f.real("initializer_range", c.init_std, 0.02);
  f.boolean("tie_word_embeddings", c.tied_head, false);
  f.fixed("hidden_act", "silu", true);
  f.fixed("attention_bias", false, true);
  f.fixed("mlp_bias", false, false);
  f.fixed("rope_interleave", true, false);
  f.token_ids(c);
  f.storage(c);
}

class Reader {
 public:
  Reader(const Json& root, const std::string& source) : root_(root), source_(source) {}

  template <class... Parts>
  [[noreturn]] void fail(ErrorCode code, const Parts&... parts) const {
    throw Error(code, cat("[config.read] ", source_, ": ", parts...));
  }
  [[noreturn]] void wrong(const std::string& key, const Json& got, const std::string& need) const {
    fail(ErrorCode::kInvalidConfig, key, " is ", brief(got), ", need ", need, ".", kRemedy);
  }

  // The value of `key`, or nullptr if it is absent or null.
  static const Json* get(const Json& object, const std::string& key) {
    const auto it = object.find(key);
    return it == object.end() || it->is_null() ? nullptr : &*it;
  }

  int64_t read_integer(const std::string& key, const Json& value, int64_t min, int64_t max) const {
    const std::string need = min == 1   ? "a positive integer"
                             : min == 0 ? "a non-negative integer"
                                        : cat("an integer of at least ", min);
    if (!value.is_number()) wrong(key, value, need);
    const double number = value.get<double>();
    if (number != std::floor(number) || number < static_cast<double>(min)) wrong(key, value, need);
    if (number > static_cast<double>(max)) wrong(key, value, cat("at most ", max));
    return value.is_number_integer() ? value.get<int64_t>() : static_cast<int64_t>(number);
  }
  double read_real(const std::string& key, const Json& value) const {
    if (!value.is_number()) wrong(key, value, "a number");
    return value.get<double>();
  }

  void integer(const char* key, int64_t& out, int64_t min, int64_t max, Default absent) const {
    if (const Json* value = get(root_, key)) {
      out = read_integer(key, *value, min, max);
    } else if (absent) {
      out = *absent;
    } else if (root_.contains(key)) {
      wrong(key, Json(nullptr), "a positive integer");
    } else {
      fail(ErrorCode::kInvalidConfig, key, " is missing, need a positive integer.", kRemedy);
    }
  }
  // null, and 0, mean "none", which is not the same as absent.
  void or_null(const char* key, int64_t& out, int64_t max, int64_t absent) const {
    const auto it = root_.find(key);
    out = it == root_.end() ? absent : it->is_null() ? 0 : read_integer(key, *it, 0, max);
  }
  void same(const char* key, int64_t as, const char* why) const {
    const Json* value = get(root_, key);
    if (value && read_integer(key, *value, 0, kMaxId) != as)
      fail(ErrorCode::kUnsupported, key, " is ", brief(*value), ", need ", as, ": ", why, ".", kRemedy);
  }
  void real(const char* key, double& out, double absent) const {
    const Json* value = get(root_, key);
    out = value ? read_real(key, *value) : absent;
  }
  void boolean(const char* key, bool& out, bool absent) const {
    const Json* value = get(root_, key);
    if (value && !value->is_boolean()) wrong(key, *value, "true or false");
    out = value ? value->get<bool>() : absent;
  }
  template <class Words, class Value>
  void word(const char* key, Value& out, const Words& words, Value absent) const {
    out = absent;
    const Json* value = get(root_, key);
    if (!value) return;
    const Value* found = match(*value, words);
    if (!found) wrong(key, *value, one_of(*value, words));
    out = *found;
  }
  void fixed(const char* key, const Json& only, bool /*written*/) const {
    const Json* value = get(root_, key);
    if (!value || *value == only) return;
    const bool interleave = std::string_view(key) == "rope_interleave";
    fail(ErrorCode::kUnsupported, key, " is ", brief(*value), ", hadal supports ", dump_json(only), " only",
         interleave ? ": DeepSeek weights store rotary pairs side by side, the other layout would give wrong "
                      "attention. Permute the weights first."
                    : ", as in every published DeepSeek model. There is no way to run this model.");
  }

  void purpose(ModelConfig& c) const {
    const Json* names = get(root_, "architectures");
    c.scores = names && names->is_array() && !names->empty() && match((*names)[0], kScoringArchitectures);
    const Json* labels = c.scores ? get(root_, "num_labels") : nullptr;
    if (labels && read_integer("num_labels", *labels, 1, kMaxId) != 1)
      fail(ErrorCode::kUnsupported, "num_labels is ", brief(*labels),
           ", need 1: a reward model gives one score.");
  }

  void model_type(ModelConfig& c) const {
    if (const Json* type = get(root_, "model_type")) {
      const Generation* found = match(*type, kModelTypes);
      if (!found) wrong("model_type", *type, one_of(*type, kModelTypes));
      c.generation = *found;
      return;
    }
    const Json* names = get(root_, "architectures");
    if (!names || !names->is_array() || names->empty())
      fail(ErrorCode::kInvalidConfig, "model_type is missing, need ", one_of(Json(), kModelTypes), ".",
           kRemedy);
    const Generation* scoring = match((*names)[0], kScoringArchitectures);
    const Generation* found = scoring ? scoring : match((*names)[0], kArchitectures);
    if (!found) wrong("architectures", *names, one_of((*names)[0], kArchitectures));
    c.generation = *found;
  }

  void indexer(ModelConfig& c) const {
    IndexerConfig& indexer = c.mla.indexer.emplace();
    integer("index_n_heads", indexer.num_heads, 1, kMaxExperts, Default(64));
    integer("index_head_dim", indexer.head_dim, 1, kMaxSize, Default(128));
    integer("index_topk", indexer.top_k, 1, kMaxPositions, Default(2048));
  }

  void mtp(int64_t& depth) const {
    const char* key =
        root_.contains("num_nextn_predict_layers") ? "num_nextn_predict_layers" : "num_mtp_layers";
    integer(key, depth, 0, 64, Default(0));  // the transformers class says 1, but saves the value it has
  }

  void groups(MoeConfig& moe, int64_t absent_groups, int64_t absent_kept) const {
    or_null("n_group", moe.num_groups, kMaxExperts, absent_groups);
    or_null("topk_group", moe.num_groups_kept, kMaxExperts, absent_kept);
    if (moe.num_groups <= 1 || moe.choice == Choice::kGreedy) moe.num_groups = moe.num_groups_kept = 1;
  }

  void rope(ModelConfig& c) const {
    MlaConfig& mla = c.mla;
    const Json* scaling = get(root_, "rope_parameters");
    const std::string where = scaling ? "rope_parameters" : "rope_scaling";
    if (!scaling) scaling = get(root_, "rope_scaling");
    real("rope_theta", mla.rope_theta, 10000);
    mla.yarn.reset();
    if (!scaling) return;
    if (!scaling->is_object()) wrong(where, *scaling, "an object or null");
    if (const Json* theta = get(*scaling, "rope_theta"))
      mla.rope_theta = read_real(where + ".rope_theta", *theta);
    const Json* type = get(*scaling, "rope_type");
    if (!type) type = get(*scaling, "type");
    if (!type || *type == "default") {
      if (!type && where == "rope_scaling") wrong(where, *scaling, "a type");
      return;
    }
    if (*type != "yarn")
      fail(ErrorCode::kUnsupported, where, ".type is ", brief(*type),
           ", hadal supports \"yarn\" and \"default\".", kRemedy);
    mla.yarn = read_yarn(*scaling, where, c.max_positions);
  }

  YarnConfig read_yarn(const Json& scaling, const std::string& where, int64_t max_positions) const {
    YarnConfig yarn;
    const auto real_or = [&](const char* key, double absent) {
      const Json* value = get(scaling, key);
      return value ? read_real(where + "." + key, *value) : absent;
    };
    for (const char* key : {"attention_factor", "truncate"}) {
      const Json* value = get(scaling, key);
      if (value && *value != true)
        fail(ErrorCode::kUnsupported, where, ".", key, " is ", brief(*value),
             ": hadal computes it from mscale and mscale_all_dim as DeepSeek does. Remove the field.");
    }
    const Json* original = get(scaling, "original_max_position_embeddings");
    yarn.original_positions =
        original ? read_integer(where + ".original_max_position_embeddings", *original, 1, kMaxPositions)
                 : max_positions;
    yarn.factor =
        real_or("factor", static_cast<double>(max_positions) / static_cast<double>(yarn.original_positions));
    yarn.beta_fast = real_or("beta_fast", 32);
    yarn.beta_slow = real_or("beta_slow", 1);
    yarn.mscale = real_or("mscale", 0);
    yarn.mscale_all_dim = real_or("mscale_all_dim", 0);
    if (yarn.mscale == 0 || yarn.mscale_all_dim == 0) {
      // Then the cos/sin multiplier is m(factor, 1) (spec 5.3). Our formula m(factor, mscale) / m(factor,
      // mscale_all_dim) gives that for this mscale, whatever mscale_all_dim is.
      const double log_factor = yarn.factor > 1 ? std::log(yarn.factor) : 0.0;
      yarn.mscale = 1 + yarn.mscale_all_dim + 0.1 * yarn.mscale_all_dim * log_factor;
    }
    return yarn;
  }

  void token_ids(ModelConfig& c) const {
    const bool v3 = c.generation != Generation::kV2;
    const int64_t bos = v3 ? 0 : 100000;  // of the published tokenizers
    c.bos_id = -1;
    c.eos_ids.clear();
    if (const Json* value = get(root_, "bos_token_id")) {
      c.bos_id = read_integer("bos_token_id", *value, 0, kMaxId);
    } else if (!root_.contains("bos_token_id") && bos < c.vocab_size) {
      c.bos_id = bos;
    }
    const Json* eos = get(root_, "eos_token_id");
    if (eos && eos->is_array()) {
      for (const Json& id : *eos) c.eos_ids.push_back(read_integer("eos_token_id", id, 0, kMaxId));
    } else if (eos) {
      c.eos_ids.push_back(read_integer("eos_token_id", *eos, 0, kMaxId));
    } else if (!root_.contains("eos_token_id") && bos + 1 < c.vocab_size) {
      c.eos_ids.push_back(bos + 1);
    }
  }

  void storage(ModelConfig& c) const {
    word(root_.contains("torch_dtype") ? "torch_dtype" : "dtype", c.stored_dtype, kDTypes, DType::kBF16);
    c.fp8_power_of_two_scales = false;
    const Json* quantization = get(root_, "quantization_config");
    if (!quantization) return;
    const std::string where = "quantization_config";
    if (!quantization->is_object()) wrong(where, *quantization, "an object or null");
    const auto only = [&](const char* key, const Json& value, bool required) {
      const Json* got = get(*quantization, key);
      if (!got && !required) return;
      if (!got || *got != value)
        fail(ErrorCode::kUnsupported, where, ".", key, " is ", got ? brief(*got) : "missing",
             ", hadal supports ", dump_json(value), known_methods(key),
             ". Use the published FP8 checkpoint or one in bfloat16.");
    };
    const Json* method = get(*quantization, "quant_method");
    c.int8_matrices.clear();
    for (const GroupMethod& group : kGroupMethods)
      if (method && *method == group.name) {
        only("group_size", group.size, true);
        c.stored_dtype = group.dtype;
        if (group.dtype == DType::kInt4) int8_matrices(c, *quantization);
        return;
      }
    only("quant_method", "fp8", true);
    only("fmt", "e4m3", false);
    only("weight_block_size", Json::array({128, 128}), true);
    const Json* format = get(*quantization, "scale_fmt");
    if (format && *format != "ue8m0" && *format != "float")
      wrong(where + ".scale_fmt", *format, "\"ue8m0\" or nothing");
    c.fp8_power_of_two_scales = format && *format == "ue8m0";
    c.stored_dtype = DType::kF8E4M3;
  }

  void int8_matrices(ModelConfig& c, const Json& quantization) const {
    const Json* names = get(quantization, "int8_matrices");
    if (!names) return;
    const bool strings = names->is_array() && std::all_of(names->begin(), names->end(), [](const Json& name) {
                           return name.is_string() && !name.get_ref<const std::string&>().empty();
                         });
    if (!strings) wrong("quantization_config.int8_matrices", *names, "a list of matrix names");
    c.int8_matrices = names->get<std::vector<std::string>>();
  }

 private:
  static std::string known_methods(std::string_view key) {
    std::string text;
    if (key == "quant_method")
      for (const GroupMethod& group : kGroupMethods) text += cat(", \"", group.name, "\"");
    return text;
  }
  static std::string brief(const Json& value) {
    const std::string text = dump_json(value);
    return text.size() <= 100 ? text : text.substr(0, 97) + "...";
  }
  template <class Value, size_t n>
  static const Value* match(const Json& value, const std::array<Word<Value>, n>& words) {
    for (const auto& w : words)
      if (value == w.text) return &w.value;
    return nullptr;
  }
  template <class Words>
  static std::string one_of(const Json& got, const Words& words) {
    std::vector<std::string> names;
    std::string list;
    for (const auto& w : words) {
      names.emplace_back(w.text);
      list += cat(list.empty() ? "one of " : ", ", w.text);
    }
    return list + (got.is_string() ? did_you_mean(got.get<std::string>(), names) : "");
  }

  const Json& root_;
  const std::string& source_;
};

// quantization_config; null for plain numbers.
Json quantization(const ModelConfig& c) {
  for (const GroupMethod& group : kGroupMethods) {
    if (group.dtype != c.stored_dtype) continue;
    Json out = {{"quant_method", group.name}, {"group_size", group.size}};
    if (group.dtype == DType::kInt4) out["int8_matrices"] = c.int8_matrices;
    return out;
  }
  if (c.stored_dtype != DType::kF8E4M3) return nullptr;
  Json out = {{"activation_scheme", "dynamic"}, {"fmt", "e4m3"}, {"quant_method", "fp8"}};
  if (c.fp8_power_of_two_scales) out["scale_fmt"] = "ue8m0";
  out["weight_block_size"] = {128, 128};
  return out;
}

// Of what is not quantised, and of computing.
const char* torch_dtype(const ModelConfig& c) {
  return hadal::word(kDTypes, quantization(c).is_null() ? c.stored_dtype : DType::kBF16);
}

// Writes the published dialect.
class Writer {
 public:
  Json out = Json::object();

  void integer(const char* key, int64_t value, int64_t, int64_t, Default) { out[key] = value; }
  void or_null(const char* key, int64_t value, int64_t, int64_t) {
    out[key] = value ? Json(value) : Json(nullptr);
  }
  void same(const char* key, int64_t as, const char*) { out[key] = as; }
  void real(const char* key, double value, double) { out[key] = value; }
  void boolean(const char* key, bool value, bool) { out[key] = value; }
  template <class Words, class Value>
  void word(const char* key, Value value, const Words& words, Value) {
    out[key] = hadal::word(words, value);
  }
  void fixed(const char* key, const Json& only, bool written) {
    if (written) out[key] = only;
  }
  void model_type(const ModelConfig& c) {
    out["architectures"] = Json::array({c.scores ? hadal::word(kScoringArchitectures, c.generation)
                                                 : hadal::word(kArchitectures, c.generation)});
    if (c.scores) out["num_labels"] = 1;
    out["model_type"] = hadal::word(kModelTypes, c.generation);
  }
  void purpose(const ModelConfig&) {}  // with model_type
  void indexer(const ModelConfig& c) {
    out["index_n_heads"] = c.mla.indexer->num_heads;
    out["index_head_dim"] = c.mla.indexer->head_dim;
    out["index_topk"] = c.mla.indexer->top_k;
  }
  void mtp(int64_t depth) { out["num_nextn_predict_layers"] = depth; }
  void groups(const MoeConfig& moe, int64_t, int64_t) {
    out["n_group"] = moe.num_groups;
    out["topk_group"] = moe.num_groups_kept;
  }
  void rope(const ModelConfig& c) {
    out["rope_theta"] = c.mla.rope_theta;
    out["rope_scaling"] = nullptr;
    if (!c.mla.yarn) return;
    const YarnConfig& yarn = *c.mla.yarn;
    out["rope_scaling"] = {{"type", "yarn"},
                           {"factor", yarn.factor},
                           {"original_max_position_embeddings", yarn.original_positions},
                           {"beta_fast", yarn.beta_fast},
                           {"beta_slow", yarn.beta_slow},
                           {"mscale", yarn.mscale},
                           {"mscale_all_dim", yarn.mscale_all_dim}};
  }
  void token_ids(const ModelConfig& c) {
    out["bos_token_id"] = c.bos_id < 0 ? Json(nullptr) : Json(c.bos_id);
    out["eos_token_id"] = c.eos_ids.empty()       ? Json(nullptr)
                          : c.eos_ids.size() == 1 ? Json(c.eos_ids[0])
                                                  : Json(c.eos_ids);
  }
  void storage(const ModelConfig& c) {
    out["torch_dtype"] = torch_dtype(c);
    if (Json quantized = quantization(c); !quantized.is_null()) out["quantization_config"] = quantized;
  }
};

}  // namespace

ModelConfig parse_config(const Json& root, const std::string& source) {
  Reader reader(root, source);
  if (!root.is_object())
    reader.fail(ErrorCode::kInvalidConfig, "not a JSON object. Give the config.json of a model.");
  ModelConfig config;
  visit_fields(config, reader);
  if (config.scores)
    config = reward_config(config);  // what transformers saves keeps the language model's fields
  check(config, source);
  return config;
}

ModelConfig load_config(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::path file =
      std::filesystem::is_directory(path, ignored) ? path / "config.json" : path;
  if (!std::filesystem::exists(file, ignored) && !ignored)
    throw Error(ErrorCode::kNotFound, cat("[config.read] ", file.string(),
                                          " does not exist. Give the folder of a model or its config.json."));
  return parse_config(parse_json(read_file(file, size_t{1} << 26), file.string()), file.string());
}

std::string config_json(const ModelConfig& config) {
  Writer writer;
  visit_fields(config, writer);
  return dump_json(writer.out, 2) + "\n";
}

Json with_storage(Json root, const ModelConfig& stored) {
  const bool old_key = root.contains("torch_dtype"), new_key = root.contains("dtype");
  if (old_key || !new_key) root["torch_dtype"] = torch_dtype(stored);
  if (new_key) root["dtype"] = torch_dtype(stored);
  root.erase("quantization_config");
  if (Json quantized = quantization(stored); !quantized.is_null()) root["quantization_config"] = quantized;
  return root;
}

}  // namespace hadal
