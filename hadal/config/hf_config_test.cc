#include "hadal/config/hf_config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/config/weight_specs.h"
#include "hadal/error.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

Json v3_json() {
  return parse_json(config_json(preset("tiny")), "tiny");
}

Json v2_yarn_json() {
  Json json = parse_json(config_json(preset("v2-lite")), "v2-lite");
  json["num_hidden_layers"] = 2;
  return json;
}

// The config after setting (or, with nullopt, removing) one field of the tiny V3 config.
ModelConfig with(const std::string& key, const std::optional<Json>& value) {
  Json json = v3_json();
  json.erase(key);
  if (value) json[key] = *value;
  return parse_config(json, "x/config.json");
}

std::string problem(const Json& json) {
  return error_of([&] { parse_config(json, "x/config.json"); });
}

TEST(Config, BothDialectsOfAGoldenPairGiveTheSameModel) {
  const ModelConfig hf5 = load_config(golden_dir("v3-tiny"));
  EXPECT_EQ(hf5.generation, Generation::kV3);
  EXPECT_EQ(hf5.moe.scoring, Scoring::kSigmoid);    // hf5 has no scoring_func
  EXPECT_EQ(hf5.moe.choice, Choice::kGroupTopTwo);  // nor topk_method
  EXPECT_EQ(hf5.mla.query_latent, 32);
  EXPECT_EQ(hf5.stored_dtype, DType::kF32);
  EXPECT_FALSE(hf5.mla.yarn.has_value());
  Json published = parse_json(config_json(hf5), "x");
  EXPECT_EQ(published["scoring_func"], "sigmoid");
  EXPECT_FALSE(published.contains("rope_parameters"));
  EXPECT_EQ(parse_config(published, "x"), hf5);
}

TEST(Config, GoldenCasesReadAsTheirReadmeSays) {
  const ModelConfig v2 = load_config(golden_dir("v2-tiny"));
  EXPECT_EQ(v2.moe.choice, Choice::kGroupMax);
  EXPECT_EQ(v2.moe.scale, 16.0);
  EXPECT_FALSE(v2.moe.normalize);
  const ModelConfig lite = load_config(golden_dir("v2lite-tiny"));
  EXPECT_EQ(lite.mla.query_latent, 0);
  EXPECT_EQ(lite.moe.choice, Choice::kGreedy);
  ASSERT_TRUE(lite.mla.yarn.has_value());
  EXPECT_EQ(lite.mla.yarn->mscale, 0.707);
  EXPECT_EQ(lite.mla.yarn->original_positions, 32);
  EXPECT_EQ(load_config(golden_dir("v3-noqlora")).mla.query_latent, 0);
  EXPECT_EQ(load_config(golden_dir("v3-mtp")).mtp_depth, 1);
  EXPECT_EQ(load_config(golden_dir("v3-bf16")).stored_dtype, DType::kBF16);
  EXPECT_EQ(load_config(golden_dir("v3-fp8")).stored_dtype, DType::kF8E4M3);
  const ModelConfig yarn = load_config(golden_dir("v3-yarn"));
  EXPECT_EQ(yarn.mla.yarn->factor, 40);
}

TEST(Config, EveryGoldenConfigSurvivesWritingAndReading) {
  for (const char* name : {"v3-tiny", "v3-yarn", "v3-noqlora", "v2-tiny", "v2lite-tiny", "v3-bf16", "v3-fp8",
                           "v3-mtp", "train-trajectory"}) {
    const ModelConfig config = load_config(golden_dir(name));
    EXPECT_EQ(parse_config(parse_json(config_json(config), name), name), config) << name;
  }
}

Json v32_json() {
  Json json = v3_json();
  json["model_type"] = "deepseek_v32";
  json.erase("architectures");
  json.erase("mlp_layer_types");
  return json;
}

TEST(Config, AV32ModelHasAnIndexerWhoseSizesDefaultToThePublishedOnes) {
  Json json = v32_json();
  json["qk_rope_head_dim"] = 64;
  const ModelConfig published = parse_config(json, "x");
  EXPECT_EQ(published.generation, Generation::kV32);
  EXPECT_EQ(published.mla.indexer, (IndexerConfig{.num_heads = 64, .head_dim = 128, .top_k = 2048}));
  EXPECT_EQ(published.moe.scoring, Scoring::kSigmoid);
  for (const char* golden : {"v32-tiny", "v32-yarn"}) {
    const ModelConfig config = load_config(golden_dir(golden));
    EXPECT_EQ(config.generation, Generation::kV32);
    EXPECT_EQ(config.mla.yarn.has_value(), std::string(golden) == "v32-yarn");
    const Json written = parse_json(config_json(config), golden);
    EXPECT_EQ(written["model_type"], "deepseek_v32");
    EXPECT_EQ(written["architectures"], Json::array({"DeepseekV32ForCausalLM"}));
    EXPECT_EQ(written["index_topk"], config.mla.indexer->top_k);
    EXPECT_EQ(parse_config(written, golden), config);
  }
  EXPECT_EQ(load_config(golden_dir("v32-tiny")).mla.indexer,
            (IndexerConfig{.num_heads = 7, .head_dim = 14, .top_k = 9}));
  EXPECT_EQ(load_config(golden_dir("v32-tiny")).mtp_depth, 1);
}

TEST(Config, AnIndexerThatCannotWorkIsRefused) {
  const auto problem_with = [](const char* key, const Json& value) {
    Json json = v32_json();
    json[key] = value;
    return problem(json);
  };
  EXPECT_NE(problem_with("index_topk", 0).find("index_topk is 0, need a positive integer"),
            std::string::npos);
  EXPECT_NE(problem_with("index_n_heads", -1).find("index_n_heads is -1"), std::string::npos);
  EXPECT_NE(problem_with("index_head_dim", 2).find("index_head_dim 2 is below qk_rope_head_dim"),
            std::string::npos);
  EXPECT_NE(problem_with("q_lora_rank", nullptr).find("q_lora_rank is null, but the indexer"),
            std::string::npos);
  ModelConfig v3 = preset("tiny");
  v3.mla.indexer = IndexerConfig{.num_heads = 1, .head_dim = 64, .top_k = 1};
  EXPECT_NE(error_of([&] { check(v3, "x"); }).find("deepseek_v32 model, and no other, has an indexer"),
            std::string::npos);
}

TEST(Config, SparseAttentionIsNotForTraining) {
  require_dense_attention(preset("tiny"), "tiny");
  const std::string text =
      error_of([] { require_dense_attention(load_config(golden_dir("v32-tiny")), "the folder"); });
  EXPECT_NE(text.find("[config.attention] the folder is a deepseek_v32 model"), std::string::npos) << text;
  EXPECT_NE(text.find("hadal run, serve or eval"), std::string::npos) << text;
}

TEST(Config, PresetsHaveThePublishedSizesAndCounts) {
  const auto parameters = [](const ModelConfig& c, bool mtp) {
    int64_t n = 0;
    for (const WeightSpec& s : weight_specs(c)) {
      const bool in_mtp = s.name.rfind(cat("layers.", c.num_layers, "."), 0) == 0;
      if (s.role != WeightRole::kBalanceBias && in_mtp == mtp) n += s.num_values();
    }
    return n;
  };
  EXPECT_NEAR(static_cast<double>(parameters(preset("v2-lite"), false)), 15.706e9, 0.5e6);
  EXPECT_NEAR(static_cast<double>(parameters(preset("v2"), false)), 235.741e9, 0.5e6);
  EXPECT_NEAR(static_cast<double>(parameters(preset("v3"), false)), 671.026e9, 0.5e6);
  EXPECT_NEAR(static_cast<double>(parameters(preset("v3"), true)), 11.610e9, 0.5e6);
  EXPECT_NEAR(preset("v2-lite").softmax_scale(), 0.1147213868, 1e-10);
  EXPECT_NEAR(preset("v3").softmax_scale(), 0.1352337788, 1e-10);
  EXPECT_EQ(preset("v3").mla.cache_dim() * preset("v3").num_layers * 2, 70272);
}

TEST(Config, TinyPresetHasAllFeaturesOn) {
  const ModelConfig tiny = preset("tiny");
  EXPECT_EQ(tiny.generation, Generation::kV3);
  EXPECT_GT(tiny.mla.query_latent, 0);
  EXPECT_GT(tiny.moe.num_groups, tiny.moe.num_groups_kept);
  EXPECT_EQ(tiny.moe.first_layer, 2);
  EXPECT_EQ(tiny.num_layers, 4);
  EXPECT_EQ(tiny.mtp_depth, 1);
  EXPECT_FALSE(tiny.mla.yarn.has_value());
  for (const std::string& name : preset_names())
    EXPECT_EQ(parse_config(parse_json(config_json(preset(name)), name), name), preset(name));
}

TEST(Config, WhatIsWrittenAgreesWithTheCommittedPresets) {
  // transformers reads those files to the same values (tools/check_transformers.py).
  for (const std::string& name : preset_names()) {
    Json committed = parse_json(read_file("configs/" + name + ".json"), name);
    EXPECT_EQ(committed.erase("attention_dropout"), 1u);  // no effect here, so not written
    Json written = parse_json(config_json(preset(name)), name);
    if (!committed.contains("num_nextn_predict_layers")) {
      EXPECT_EQ(written["num_nextn_predict_layers"], 0);
      written.erase("num_nextn_predict_layers");
    }
    EXPECT_EQ(written.size(), committed.size()) << name;
    for (const auto& [key, value] : committed.items()) EXPECT_EQ(written[key], value) << name << " " << key;
  }
}

TEST(Config, UnknownPresetGetsTheNearestName) {
  try {
    preset("v2-lit");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(e.what()).find("did you mean \"v2-lite\""), std::string::npos) << e.what();
  }
}

TEST(Config, MissingMscaleFieldsGiveTheMultiplierOfThePlainFactor) {
  // Spec 5.3: if mscale or mscale_all_dim is 0 or absent, the cos/sin multiplier is m(factor, 1).
  const auto m = [](double factor, double a) { return 0.1 * a * std::log(factor) + 1; };
  for (const auto& [mscale, all_dim] : {std::pair(0.0, 0.0), {0.7, 0.0}, {0.0, 0.7}}) {
    Json json = v2_yarn_json();
    json["rope_scaling"]["mscale"] = mscale;
    json["rope_scaling"].erase("mscale_all_dim");
    if (all_dim != 0) json["rope_scaling"]["mscale_all_dim"] = all_dim;
    const ModelConfig config = parse_config(json, "x");
    const YarnConfig& yarn = *config.mla.yarn;
    EXPECT_NEAR(m(40, yarn.mscale) / m(40, yarn.mscale_all_dim), m(40, 1), 1e-12);
    EXPECT_EQ(yarn.mscale_all_dim, all_dim);
    EXPECT_EQ(parse_config(parse_json(config_json(config), "x"), "x"), config);
  }
}

TEST(Config, SpellingsOfTheWildAreAccepted) {
  Json json = v2_yarn_json();
  json["topk_method"] = "gready";
  json["n_group"] = nullptr;
  json["topk_group"] = nullptr;
  EXPECT_EQ(parse_config(json, "x").moe.choice, Choice::kGreedy);
  EXPECT_EQ(parse_config(json, "x").moe.num_groups, 1);
  EXPECT_EQ(with("eos_token_id", Json::array({1, 2})).eos_ids, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(with("eos_token_id", Json(nullptr)).eos_ids, std::vector<int64_t>{});
  EXPECT_EQ(with("head_dim", 8), with("head_dim", 192));  // ignored
  EXPECT_EQ(with("scoring_func", std::nullopt).moe.scoring, Scoring::kSigmoid);
  EXPECT_EQ(with("topk_method", std::nullopt).moe.choice, Choice::kGroupTopTwo);
  EXPECT_EQ(with("n_group", Json(nullptr)).moe.num_groups, 1);
  EXPECT_EQ(with("model_type", "kimi_k2").generation, Generation::kV3);
  EXPECT_EQ(with("model_type", std::nullopt).generation, Generation::kV3);  // from architectures
  EXPECT_EQ(with("quantization_config", Json(nullptr)).stored_dtype, DType::kF32);
  json = v3_json();
  json.erase("num_nextn_predict_layers");
  EXPECT_EQ(parse_config(json, "x").mtp_depth, 0);
  json["num_mtp_layers"] = 2;
  EXPECT_EQ(parse_config(json, "x").mtp_depth, 2);
  json["n_routed_experts"] = nullptr;
  EXPECT_FALSE(parse_config(json, "x").is_moe(3));
}

TEST(Config, StoredDtypeEditKeepsEveryOtherField) {
  Json json = parse_json(read_file(golden_dir("v3-fp8") / "config.json"), "x");
  json["from_the_future"] = {{"a", 1}};
  ModelConfig storage;
  storage.stored_dtype = DType::kF32;
  const Json edited = with_storage(json, storage);
  EXPECT_FALSE(edited.contains("quantization_config"));
  EXPECT_EQ(edited["torch_dtype"], "float32");
  EXPECT_EQ(edited["from_the_future"]["a"], 1);
  EXPECT_EQ(edited.size(), json.size() - 1);
  storage.stored_dtype = DType::kF8E4M3;
  EXPECT_EQ(parse_config(with_storage(edited, storage), "x"), parse_config(json, "x"));
  const Json hf5 = parse_json(read_file(golden_dir("v3-bf16") / "config.json"), "x");
  storage.stored_dtype = DType::kF16;
  EXPECT_EQ(with_storage(hf5, storage)["dtype"], "float16");
  EXPECT_FALSE(with_storage(hf5, storage).contains("torch_dtype"));
}

TEST(Config, GroupFormatsAreDeclaredWithTheMatricesThatStayInt8) {
  ModelConfig config = parse_config(v3_json(), "x");
  config.stored_dtype = DType::kInt8;
  Json json = parse_json(config_json(config), "x");
  EXPECT_EQ(json["quantization_config"], Json({{"quant_method", "hadal-int8"}, {"group_size", 128}}));
  EXPECT_EQ(json["torch_dtype"], "bfloat16");
  EXPECT_EQ(parse_config(json, "x"), config);
  config.stored_dtype = DType::kInt4;
  config.int8_matrices = {"lm_head", "kv_b_proj"};
  json = parse_json(config_json(config), "x");
  EXPECT_EQ(parse_config(json, "x"), config);
  EXPECT_EQ(with_storage(v3_json(), config)["quantization_config"], json["quantization_config"]);
  const auto problem = [&](const char* key, const Json& value) {
    Json changed = json;
    changed["quantization_config"][key] = value;
    try {
      parse_config(changed, "x");
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(problem("group_size", 32).find("quantization_config.group_size is 32, hadal supports 64"),
            std::string::npos);
  EXPECT_NE(problem("int8_matrices", {1}).find("int8_matrices is [1], need a list of matrix names"),
            std::string::npos);
  EXPECT_NE(problem("quant_method", "gptq").find("is \"gptq\", hadal supports \"fp8\", \"hadal-int8\""),
            std::string::npos);
}

struct BadField {
  const char* key;
  const char* value;  // JSON; nullptr removes the field
  const char* expected;
};

TEST(Config, EveryBadFieldIsNamedWithFileValueAndNeed) {
  const BadField cases[] = {
      {"hidden_size", "\"abc\"",
       "[config.read] x/config.json: hidden_size is \"abc\", need a positive integer."},
      {"hidden_size", nullptr, "hidden_size is missing, need a positive integer"},
      {"hidden_size", "null", "hidden_size is null, need a positive integer"},
      {"hidden_size", "0", "hidden_size is 0, need a positive integer"},
      {"hidden_size", "-5", "hidden_size is -5, need a positive integer"},
      {"hidden_size", "1.5", "hidden_size is 1.5, need a positive integer"},
      {"hidden_size", "[128]", "hidden_size is [128], need a positive integer"},
      {"hidden_size", "{}", "hidden_size is {}, need"},
      {"hidden_size", "true", "hidden_size is true, need"},
      {"hidden_size", "1e300", "hidden_size is 1e+300, need at most 1048576"},
      {"vocab_size", "99999999999", "vocab_size is 99999999999, need at most 16777216"},
      {"num_hidden_layers", nullptr, "num_hidden_layers is missing"},
      {"num_hidden_layers", "5000", "num_hidden_layers is 5000, need at most 4096"},
      {"num_attention_heads", "0", "num_attention_heads is 0"},
      {"num_attention_heads", nullptr, "num_attention_heads is missing"},
      {"num_key_value_heads", "1", "num_key_value_heads is 1, need 4"},
      {"intermediate_size", nullptr, "intermediate_size is missing"},
      {"q_lora_rank", "-1", "q_lora_rank is -1, need a non-negative integer"},
      {"q_lora_rank", "\"none\"", "q_lora_rank is \"none\""},
      {"kv_lora_rank", "0", "kv_lora_rank is 0"},
      {"qk_rope_head_dim", "7", "qk_rope_head_dim 7 is odd"},
      {"qk_rope_head_dim", "0", "qk_rope_head_dim is 0, need an integer of at least 2"},
      {"qk_nope_head_dim", "0", "qk_nope_head_dim is 0"},
      {"v_head_dim", "false", "v_head_dim is false"},
      {"rope_theta", "\"big\"", "rope_theta is \"big\", need a number"},
      {"rope_theta", "-1", "rope_theta is -1, need a positive number"},
      {"rope_scaling", "5", "rope_scaling is 5, need an object or null"},
      {"rope_scaling", "{\"factor\":2}", "rope_scaling is {\"factor\":2}, need a type"},
      {"rope_scaling", "{\"type\":\"linear\"}", "rope_scaling.type is \"linear\", hadal supports \"yarn\""},
      {"rope_scaling", "{\"type\":\"yarn\",\"factor\":0.5}", "rope_scaling.factor is 0.5, need at least 1"},
      {"rope_scaling", "{\"type\":\"yarn\",\"factor\":\"4\"}", "rope_scaling.factor is \"4\", need a number"},
      {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4,\"beta_fast\":1}",
       "beta_fast 1 is not above beta_slow 1"},
      {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4,\"beta_slow\":0}", "beta_slow is 0"},
      {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":1.2}",
       "attention_factor is 1.2"},
      {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4,\"mscale\":1,\"mscale_all_dim\":-1}",
       "mscale_all_dim is -1"},
      {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":0}",
       "original_max_position_embeddings is 0"},
      {"n_routed_experts", "15", "n_routed_experts 15 is not a multiple of n_group 4"},
      {"n_routed_experts", "4", "leaves one"},
      {"n_routed_experts", "\"many\"", "n_routed_experts is \"many\""},
      {"n_routed_experts", "100000", "n_routed_experts is 100000, need at most 65536"},
      {"n_shared_experts", "-1", "n_shared_experts is -1"},
      {"num_experts_per_tok", "9",
       "num_experts_per_tok 9 is above the 8 experts of topk_group 2 groups of 4"},
      {"num_experts_per_tok", nullptr, "num_experts_per_tok is missing"},
      {"moe_intermediate_size", nullptr, "moe_intermediate_size is missing"},
      {"n_group", "3", "n_routed_experts 16 is not a multiple of n_group 3"},
      {"topk_group", "5", "topk_group 5 is above n_group 4"},
      {"topk_group", "null", "topk_group is 0, need a positive integer"},
      {"first_k_dense_replace", "-1", "first_k_dense_replace is -1"},
      {"moe_layer_freq", "0", "moe_layer_freq is 0"},
      {"norm_topk_prob", "1", "norm_topk_prob is 1, need true or false"},
      {"routed_scaling_factor", "0", "routed_scaling_factor is 0, need a positive number"},
      {"routed_scaling_factor", "\"x\"", "routed_scaling_factor is \"x\""},
      {"scoring_func", "\"sigmoidd\"", "need one of softmax, sigmoid (did you mean \"sigmoid\"?)"},
      {"scoring_func", "\"softmax\"", "a deepseek_v3 model uses sigmoid"},
      {"topk_method", "\"greedy\"", "a deepseek_v3 model is noaux_tc"},
      {"topk_method", "7", "topk_method is 7, need one of greedy"},
      {"num_nextn_predict_layers", "-1", "num_nextn_predict_layers is -1"},
      {"num_nextn_predict_layers", "65", "need at most 64"},
      {"rms_norm_eps", "0", "rms_norm_eps is 0"},
      {"rms_norm_eps", "\"1e-6\"", "rms_norm_eps is \"1e-6\", need a number"},
      {"initializer_range", "-0.1", "initializer_range is -0.1"},
      {"tie_word_embeddings", "\"no\"", "tie_word_embeddings is \"no\""},
      {"hidden_act", "\"gelu\"", "hidden_act is \"gelu\", hadal supports \"silu\" only"},
      {"attention_bias", "true", "attention_bias is true"},
      {"mlp_bias", "true", "mlp_bias is true"},
      {"rope_interleave", "false", "rotary pairs side by side"},
      {"bos_token_id", "512", "bos_token_id 512 is not below vocab_size 512"},
      {"bos_token_id", "-2", "bos_token_id is -2"},
      {"eos_token_id", "[1,600]", "eos_token_id 600 is not below vocab_size 512"},
      {"eos_token_id", "[\"x\"]", "eos_token_id is \"x\""},
      {"max_position_embeddings", "0", "max_position_embeddings is 0"},
      {"torch_dtype", "\"int8\"", "torch_dtype is \"int8\", need one of bfloat16"},
      {"quantization_config", "1", "quantization_config is 1, need an object or null"},
      {"quantization_config", "{\"quant_method\":\"gptq\"}", "quantization_config.quant_method is \"gptq\""},
      {"quantization_config", "{}", "quantization_config.quant_method is missing"},
      {"quantization_config", "{\"quant_method\":\"fp8\"}", "weight_block_size is missing"},
      {"quantization_config", "{\"quant_method\":\"fp8\",\"weight_block_size\":[64,64]}",
       "weight_block_size is [64,64]"},
      {"quantization_config", "{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\",\"weight_block_size\":[128,128]}",
       "fmt is \"e5m2\""},
      {"model_type", "\"deepseek_v33\"",
       "model_type is \"deepseek_v33\", need one of deepseek_v3, deepseek_v2"},
      {"model_type", "\"deepseek_v33\"", "did you mean \"deepseek_v3\"?"},
      {"model_type", "\"llama\"", "model_type is \"llama\", need one of deepseek_v3"},
      {"model_type", "3", "model_type is 3"},
  };
  for (const BadField& bad : cases) {
    Json json = v3_json();
    json.erase(bad.key);
    if (bad.value) json[bad.key] = parse_json(bad.value, "x");
    const std::string text = problem(json);
    EXPECT_NE(text.find(bad.expected), std::string::npos)
        << bad.key << " = " << (bad.value ? bad.value : "-") << "\n"
        << text;
    EXPECT_NE(text.find("x/config.json"), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
  RecordProperty("malformed_configs", static_cast<int>(std::size(cases)));
}

TEST(Config, V2RefusesV3RoutingAndContradictions) {
  Json json = v2_yarn_json();
  json["topk_method"] = "noaux_tc";
  EXPECT_NE(problem(json).find("a deepseek_v2 model is greedy or group_limited_greedy"), std::string::npos);
  json["topk_method"] = "greedy";
  json["scoring_func"] = "sigmoid";
  EXPECT_NE(problem(json).find("a deepseek_v2 model uses softmax"), std::string::npos);
  EXPECT_NE(problem(Json::array()).find("not a JSON object"), std::string::npos);
  EXPECT_NE(problem(Json::object()).find("model_type is missing"), std::string::npos);
  EXPECT_NE(
      problem({{"architectures", {"LlamaForCausalLM"}}}).find("architectures is [\"LlamaForCausalLM\"]"),
      std::string::npos);
}

TEST(Config, SizesThatMultiplyBeyondReasonAreRefusedWithoutOverflow) {
  Json json = v3_json();
  json["hidden_size"] = 1 << 20;
  json["moe_intermediate_size"] = 1 << 20;
  json["n_routed_experts"] = 65536;
  json["num_hidden_layers"] = 4096;
  EXPECT_NE(problem(json).find("need less than 1e15"), std::string::npos) << problem(json);
}

TEST(Config, AFileThatIsMissingOrNoJsonIsNamed) {
  const auto folder = std::filesystem::temp_directory_path() / cat("hadal-config-test-", ::getpid());
  std::filesystem::create_directories(folder);
  const auto text_of = [&](const std::filesystem::path& path) {
    return error_of([&] { load_config(path); });
  };
  EXPECT_NE(text_of(folder).find((folder / "config.json").string() + " does not exist"), std::string::npos);
  write_file(folder / "config.json", "{\"hidden_size\": 12,");
  EXPECT_NE(text_of(folder).find((folder / "config.json").string() + ": byte "), std::string::npos)
      << text_of(folder);
  write_file(folder / "config.json", "{\"hidden_size\": 1, \"hidden_size\": 2}");
  EXPECT_NE(text_of(folder).find("duplicate key \"hidden_size\""), std::string::npos);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace hadal
