#include "hadal/checkpoint.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/error.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

template <class Call>
std::string problem_of(Call call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  return "no error";
}

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "want: " << part << "\ngot:  " << text;
}

// Tensors a, b and c of 4 F32 each in two shards with an index.
void write_two_shards(const std::filesystem::path& folder) {
  const std::vector<TensorHead> heads = {
      {"a", ElementType::kF32, {4}}, {"b", ElementType::kF32, {4}}, {"c", ElementType::kF32, {4}}};
  write_checkpoint(folder, heads, 32, [](const TensorHead& head, SafetensorsWriter& writer) {
    const std::string bytes(16, head.name[0]);
    writer.write(bytes.data(), bytes.size());
  });
}

TEST(Checkpoint, ShardedWriteReadsBackThroughFolderIndexAndSingleFile) {
  TemporaryFolder folder;
  write_two_shards(folder.path());
  EXPECT_EQ(folder.entries().size(), 3u);
  for (const auto& path : {folder.path(), folder / "model.safetensors.index.json"}) {
    const Checkpoint checkpoint = open_checkpoint(path);
    EXPECT_EQ(checkpoint.tensors().size(), 3u);
    EXPECT_EQ(checkpoint.num_files(), 2u);
    EXPECT_EQ(checkpoint.file(checkpoint.at("c").shard).filename(), "model-00002-of-00002.safetensors");
    EXPECT_EQ(std::to_integer<char>(checkpoint.at("c").bytes[15]), 'c');
    EXPECT_EQ(checkpoint.folder(), folder.path());
  }
  const Checkpoint one = open_checkpoint(folder / "model-00001-of-00002.safetensors");
  EXPECT_EQ(one.tensors().size(), 2u);
  expect_part(problem_of([&] { one.at("aa"); }), "no tensor aa (did you mean \"a\"?)");
}

TEST(Checkpoint, AnIndexThatContradictsTheShardsIsRefused) {
  TemporaryFolder folder;
  write_two_shards(folder.path());
  const auto index = folder / "model.safetensors.index.json";
  const Json sound = parse_json(read_file(index), "index");
  const std::string shard1 = "model-00001-of-00002.safetensors", shard2 = "model-00002-of-00002.safetensors";
  struct Case {
    std::string pointer, value, part;  // JSON pointer; "" removes
  };
  const Case cases[] = {
      {"/weight_map", "", "weight_map is missing"},
      {"/weight_map", "[]", "weight_map is not an object"},
      {"/weight_map", "{}", "weight_map is empty"},
      {"/weight_map/a", "1", "weight_map field a is 1, need a file name"},
      {"/weight_map/a", "null", "weight_map field a is null"},
      {"/weight_map/a", "\"../x.safetensors\"", "names the file \"../x.safetensors\", need a plain name"},
      {"/weight_map/a", "\"/etc/passwd\"", "need a plain name"},
      {"/weight_map/a", "\"sub/x.safetensors\"", "need a plain name"},
      {"/weight_map/a", "\"..\"", "need a plain name"},
      {"/weight_map/a", "\"\"", "need a plain name"},
      {"/weight_map/a", "\"a\\u0000b\"", "need a plain name"},
      {"/weight_map/a", "\"sub\\\\x\"", "need a plain name"},
      {"/weight_map/a", "\"model-00009-of-00002.safetensors\"",
       "shard model-00009-of-00002.safetensors is missing"},
      {"/weight_map/a", "\"" + shard2 + "\"", "into " + shard2},
      {"/weight_map/a", "", "weight_map lacks a"},
      {"/weight_map/d", "\"" + shard1 + "\"", "puts d into " + shard1 + ", which does not hold it"},
      {"/metadata/total_size", "47", "metadata.total_size is 47, but the shards hold 48 bytes"},
      {"/metadata/total_size", "-1", "metadata.total_size is -1, need a number of bytes"},
      {"/metadata/total_size", "\"48\"", "metadata.total_size is \"48\""},
      {"/metadata/total_size", "1e300", "metadata.total_size is 1e+300"},
  };
  for (const Case& c : cases) {
    Json changed = sound;
    const size_t slash = c.pointer.rfind('/');
    Json& parent = slash == 0 ? changed : changed[Json::json_pointer(c.pointer.substr(0, slash))];
    const std::string key = c.pointer.substr(slash + 1);
    parent.erase(key);
    if (!c.value.empty()) parent[key] = parse_json(c.value, "x");
    write_file(index, dump_json(changed));
    const std::string text = problem_of([&] { open_checkpoint(folder.path()); });
    expect_part(text, c.part);
    expect_part(text, index.string());
    EXPECT_FALSE(inspect(folder.path()).problems.empty()) << c.part;
  }
  for (const auto& [content, part] : std::vector<std::pair<std::string, std::string>>{
           {"", "byte 0"},
           {"{", "byte 1"},
           {"[1,2", "byte 4"},
           {"{}", "weight_map is missing"},
           {"3", "weight_map is missing"},
           {"\xFF", "invalid UTF-8"},
           {R"({"weight_map":{"a":"x","a":"y"}})", "duplicate key \"a\""}}) {
    write_file(index, content);
    expect_part(problem_of([&] { open_checkpoint(folder.path()); }), part);
    EXPECT_EQ(inspect(folder.path()).tensors.size(), 3u) << content;  // the shards are still listed
  }
  Json no_metadata = sound;
  no_metadata.erase("metadata");
  write_file(index, dump_json(no_metadata));
  EXPECT_EQ(open_checkpoint(folder.path()).tensors().size(), 3u);
}

TEST(Checkpoint, ATensorInTwoShardsIsRefused) {
  TemporaryFolder folder;
  write_two_shards(folder.path());
  std::filesystem::copy_file(folder / "model-00001-of-00002.safetensors",
                             folder / "model-00002-of-00002.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  expect_part(problem_of([&] { open_checkpoint(folder.path()); }), "tensor a is also in");
}

TEST(Checkpoint, WhatIsNotThereIsNamed) {
  TemporaryFolder folder;
  expect_part(problem_of([&] { open_checkpoint(folder.path()); }), "neither model.safetensors nor");
  expect_part(problem_of([&] { open_checkpoint(folder / "x.safetensors"); }), "x.safetensors: No such file");
  expect_part(problem_of([&] { open_checkpoint(folder / "x.json"); }), "x.json: No such file");
  EXPECT_THROW(inspect(folder / "x.safetensors"), Error);
  EXPECT_THROW(inspect(folder.path()), Error);
}

TEST(Names, EveryGoldenTensorHasExactlyOneNameInTheTable) {
  for (const char* name : {"v3-tiny", "v3-yarn", "v3-noqlora", "v2-tiny", "v2lite-tiny", "v3-bf16", "v3-fp8",
                           "v3-mtp", "train-trajectory"}) {
    const ModelConfig config = load_config(golden_dir(name));
    const Checkpoint checkpoint = open_checkpoint(golden_dir(name));
    EXPECT_EQ(check_against(config, checkpoint), config) << name;
    size_t found = 0;
    for (const HfTensor& tensor : hf_tensors(config)) {
      const auto stored = find_weight(checkpoint, tensor);
      ASSERT_TRUE(stored.has_value()) << name << " " << tensor.hf_name;
      found += 1 + (find_scale(checkpoint, *stored) ? 1 : 0);
    }
    EXPECT_EQ(found, checkpoint.tensors().size()) << name;
  }
}

TEST(Names, PublishedV3HasItsPublishedNumberOfTensors) {
  // 91,991 tensors with scales (architecture spec, "Sizes"): every FP8 matrix has one more.
  size_t count = 0;
  for (const HfTensor& tensor : hf_tensors(preset("v3"))) count += tensor.role == WeightRole::kMatrix ? 2 : 1;
  EXPECT_EQ(count, 91'991u);
}

TEST(Names, MtpCopiesEqualTheSharedWeights) {
  const ModelConfig config = load_config(golden_dir("v3-mtp"));
  const Checkpoint checkpoint = open_checkpoint(golden_dir("v3-mtp"));
  const auto specs = weight_specs(config);
  int copies = 0;
  for (const HfTensor& tensor : hf_tensors(config)) {
    if (!tensor.copy) continue;
    ++copies;
    const std::string shared =
        specs[tensor.spec].name == "head" ? "lm_head.weight" : "model.embed_tokens.weight";
    const auto a = checkpoint.at(tensor.hf_name).bytes, b = checkpoint.at(shared).bytes;
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << tensor.hf_name;
  }
  EXPECT_EQ(copies, 2);
}

TEST(Names, AConfigOfAnotherModelIsRefusedInOneLine) {
  const auto folder = golden_dir("v3-tiny");
  const Checkpoint checkpoint = open_checkpoint(folder);
  const ModelConfig good = load_config(folder);
  const auto text_with = [&](auto change) {
    ModelConfig config = good;
    change(config);
    return problem_of([&] { check_against(config, checkpoint); });
  };
  expect_part(text_with([](ModelConfig& c) { c.moe.num_experts = 32; }),
              "model.layers.1.mlp.gate.weight is [16, 64], config says [32, 64]");
  expect_part(text_with([](ModelConfig& c) { c.width = 128; }),
              "model.embed_tokens.weight is [256, 64], config says [256, 128]");
  expect_part(text_with([](ModelConfig& c) { c.width = 128; }),
              "these are not this config's weights. Use the config.json");
  expect_part(text_with([](ModelConfig& c) { c.width = 128; }), "(and ");
  expect_part(text_with([](ModelConfig& c) { c.num_layers = 5; }),
              "model.layers.4.input_layernorm.weight is missing");
  expect_part(text_with([](ModelConfig& c) { c.num_layers = 3; }),
              "is no weight of the model that config describes");
  expect_part(text_with([](ModelConfig& c) { c.mla.query_latent = 0; }),
              "self_attn.q_proj.weight is missing");
  expect_part(text_with([](ModelConfig& c) { c.moe.num_experts = 8; }), "[16, 64], config says [8, 64]");
  expect_part(text_with([](ModelConfig& c) { c.moe.first_layer = 2; }),
              "model.layers.1.mlp.gate_proj.weight is missing");
}

TEST(Names, MtpLayersMayBeUnknownToTheConfigOrAbsentFromTheFile) {
  ModelConfig main_only = load_config(golden_dir("v3-mtp"));
  const Checkpoint with_mtp = open_checkpoint(golden_dir("v3-mtp"));
  main_only.mtp_depth = 0;
  EXPECT_EQ(check_against(main_only, with_mtp).mtp_depth, 0);
  ModelConfig announced = load_config(golden_dir("v3-tiny"));
  announced.mtp_depth = 1;
  EXPECT_EQ(check_against(announced, open_checkpoint(golden_dir("v3-tiny"))).mtp_depth, 0);
}

TEST(Names, PackedExpertsReadAsTheSameWeights) {
  TemporaryFolder folder;
  const ModelConfig config = load_config(golden_dir("v3-tiny"));
  const Checkpoint plain = open_checkpoint(golden_dir("v3-tiny"));
  const int64_t E = config.moe.num_experts, M = config.moe.expert_dim, D = config.width;
  std::vector<TensorHead> heads;
  for (const StoredTensor* t : plain.tensors())
    if (t->name.find(".experts.") == std::string::npos) heads.push_back({t->name, t->type, t->shape});
  heads.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", ElementType::kF32, {4}});
  for (int64_t layer = config.moe.first_layer; layer < config.num_layers; ++layer) {
    heads.push_back(
        {cat("model.layers.", layer, ".mlp.experts.gate_up_proj"), ElementType::kF32, {E, 2 * M, D}});
    heads.push_back({cat("model.layers.", layer, ".mlp.experts.down_proj"), ElementType::kF32, {E, D, M}});
  }
  write_checkpoint(folder.path(), heads, 1 << 30, [&](const TensorHead& head, SafetensorsWriter& writer) {
    const size_t at = head.name.find("experts.");
    if (head.name.find("inv_freq") != std::string::npos) return writer.write("0123456789abcdef", 16);
    if (at == std::string::npos || head.name.find("shared") != std::string::npos) {
      const auto bytes = plain.at(head.name).bytes;
      return writer.write(bytes.data(), bytes.size());
    }
    for (int64_t e = 0; e < E; ++e)
      for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
        if ((std::strcmp(part, "down_proj") == 0) != (head.name.find("down_proj") != std::string::npos))
          continue;
        const auto bytes = plain.at(head.name.substr(0, at + 8) + cat(e, ".", part, ".weight")).bytes;
        writer.write(bytes.data(), bytes.size());
      }
  });
  const Checkpoint packed = open_checkpoint(folder.path());
  EXPECT_NO_THROW(check_against(config, packed));
  for (const HfTensor& tensor : hf_tensors(config)) {
    const auto a = find_weight(plain, tensor), b = find_weight(packed, tensor);
    ASSERT_TRUE(a && b) << tensor.hf_name;
    EXPECT_EQ(a->shape, b->shape);
    EXPECT_TRUE(std::equal(a->bytes.begin(), a->bytes.end(), b->bytes.begin(), b->bytes.end()))
        << tensor.hf_name;
  }
}

TEST(Names, Fp8WeightsReadWithTheirBlockScales) {
  const Checkpoint checkpoint = open_checkpoint(golden_dir("v3-fp8"));
  const StoredTensor& w = checkpoint.at("model.layers.0.self_attn.kv_a_proj_with_mqa.weight");
  ASSERT_EQ(w.shape, (std::vector<int64_t>{160, 256}));  // the second row of blocks is partial
  const StoredTensor& s = checkpoint.at(scale_name(w.name));
  std::vector<float> all(160 * 256), part(2 * 256), scale(4);
  read_f32(checkpoint, w, all.data());
  read_f32(checkpoint, w, part.data(), 127, 2);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + 127 * 256));
  std::memcpy(scale.data(), s.bytes.data(), 16);
  const SafetensorsFile golden(golden_file("v3-fp8", "expected.safetensors"));
  std::vector<float> decode(256);
  std::memcpy(decode.data(), golden.at("op.e4m3_decode").bytes.data(), 1024);
  for (size_t r : {0u, 127u, 128u, 159u})
    for (size_t c : {0u, 127u, 128u, 255u})
      EXPECT_EQ(all[r * 256 + c],
                decode[std::to_integer<size_t>(w.bytes[r * 256 + c])] * scale[r / 128 * 2 + c / 128]);
  std::vector<uint16_t> bf16(160 * 256);
  read_bf16(checkpoint, w, bf16.data());
  EXPECT_NEAR(static_cast<double>(bf16[5]) * 65536, static_cast<double>(std::bit_cast<uint32_t>(all[5])),
              32768);
}

}  // namespace
}  // namespace hadal
