#include "hadal/checkpoint/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint.h"
#include "hadal/checkpoint/gguf_model.h"
#include "hadal/checkpoint/names.h"
#include "hadal/error.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

// A tokenizer of the given pre-tokenizer with 256 base tokens' room; ids 0 and 1 are BOS and EOS.
void write_tokenizer(const fs::path& folder) {
  const Json root = parse_json(R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
      {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
       "special": true},
      {"id": 9, "content": "<think>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
       "special": false}],
      "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
      "use_regex": true}, "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": true,
      "trim_offsets": true, "use_regex": true}, "model": {"type": "BPE", "dropout": null, "unk_token": null,
      "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
      "ignore_merges": false, "vocab": {"a": 1, "b": 2, "c": 3, "ab": 4, "abc": 5},
      "merges": [["a", "b"], ["ab", "c"]]}})",
                               "test");
  write_file(folder / "tokenizer.json", dump_json(root, 1));
  write_file(folder / "tokenizer_config.json",
             R"({"bos_token": "<s>", "add_bos_token": true, "chat_template": "{{ messages }}"})");
}

// The golden model without its MTP module, in `dtype`.
ModelConfig plain_model(const char* name, const fs::path& folder, DType dtype) {
  ConvertOptions options;
  options.dtype = dtype;
  convert(golden_dir(name), folder, options);
  write_tokenizer(folder);
  ModelConfig config = load_config(folder);
  config.mtp_depth = 0;
  return config;
}

const char* const kModels[] = {"v3-tiny", "v2-tiny", "v2lite-tiny", "v3-noqlora", "v3-mtp", "v3-yarn"};

TEST(Gguf, RoundTripKeepsConfigAndEveryBit) {
  for (const char* name : kModels)
    for (const auto& [dtype, gguf] :
         {std::pair{DType::kF32, GgufDType::kF32}, std::pair{DType::kBF16, GgufDType::kBF16}}) {
      TemporaryFolder folder;
      const ModelConfig config = plain_model(name, folder / "in", dtype);
      write_gguf(folder / "in", folder / "x.gguf", gguf);
      ConvertOptions options;
      options.dtype = dtype;
      read_gguf(folder / "x.gguf", folder / "back", options);
      ModelConfig back = load_config(folder / "back");
      back.init_std = config.init_std;  // the two things GGUF has no key for
      ModelConfig expected = config;
      expected.eos_ids.resize(std::min<size_t>(1, config.eos_ids.size()));
      EXPECT_EQ(config_json(back), config_json(expected)) << name;
      const Checkpoint a = open_checkpoint(folder / "in"), b = open_checkpoint(folder / "back");
      EXPECT_EQ(check_against(load_config(folder / "back"), b).num_layers, config.num_layers);
      for (const HfTensor& tensor : hf_tensors(config)) {
        const StoredTensor &x = a.at(tensor.hf_name), &y = b.at(tensor.hf_name);
        ASSERT_EQ(x.type, y.type) << name << " " << tensor.hf_name;
        EXPECT_TRUE(std::equal(x.bytes.begin(), x.bytes.end(), y.bytes.begin(), y.bytes.end()))
            << name << " " << tensor.hf_name;
      }
      EXPECT_EQ(read_file(folder / "in" / "tokenizer.json"), read_file(folder / "back" / "tokenizer.json"));
    }
}

TEST(Gguf, Q8IsWithinHalfAStepAndStillAModel) {
  TemporaryFolder folder;
  const ModelConfig config = plain_model("v3-tiny", folder / "in", DType::kF32);
  write_gguf(folder / "in", folder / "x.gguf", GgufDType::kQ8_0);
  ConvertOptions options;
  options.dtype = DType::kF32;
  read_gguf(folder / "x.gguf", folder / "back", options);
  const Checkpoint a = open_checkpoint(folder / "in"), b = open_checkpoint(folder / "back");
  for (const HfTensor& tensor : hf_tensors(config)) {
    std::vector<float> x(static_cast<size_t>(a.at(tensor.hf_name).num_values())), y(x.size());
    read_f32(a, a.at(tensor.hf_name), x.data());
    read_f32(b, b.at(tensor.hf_name), y.data());
    float amax = 0, worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      amax = std::max(amax, std::fabs(x[i]));
      worst = std::max(worst, std::fabs(x[i] - y[i]));
    }
    // Half a step of 127, the F16 scale's rounding times 127 codes, and BF16 where rows are no whole blocks.
    EXPECT_LE(worst, amax * (1.0f / 254 + 1.0f / 2048 + 1.0f / 256)) << tensor.hf_name;
  }
  EXPECT_EQ(GgufFile(folder / "x.gguf").find("blk.0.attn_q_a.weight")->known_type(), GgufType::kQ8_0);
  EXPECT_EQ(GgufFile(folder / "x.gguf").find("blk.1.ffn_gate_inp.weight")->known_type(), GgufType::kF32);
}

TEST(Gguf, MetadataHasTheKeysThatLlamaCppReads) {
  TemporaryFolder folder;
  const ModelConfig config = plain_model("v3-yarn", folder / "in", DType::kBF16);
  write_gguf(folder / "in", folder / "x.gguf", GgufDType::kBF16);
  const GgufFile file(folder / "x.gguf");
  EXPECT_EQ(file.text("general.architecture"), "deepseek2");
  EXPECT_EQ(file.integer("general.file_type"), 32);
  EXPECT_EQ(file.integer("deepseek2.attention.head_count_kv"), 1);
  EXPECT_EQ(file.integer("deepseek2.attention.key_length"), config.mla.cache_dim());
  EXPECT_EQ(file.integer("deepseek2.attention.key_length_mla"), config.mla.key_dim());
  EXPECT_EQ(file.integer("deepseek2.expert_gating_func"), 2);
  EXPECT_EQ(file.text("deepseek2.rope.scaling.type"), "yarn");
  EXPECT_FLOAT_EQ(static_cast<float>(file.real("deepseek2.rope.scaling.yarn_log_multiplier")),
                  static_cast<float>(0.1 * config.mla.yarn->mscale_all_dim));
  const GgufTensor& keys = *file.find("blk.0.attn_k_b.weight");
  EXPECT_EQ(keys.shape,
            (std::vector<int64_t>{config.mla.num_heads, config.mla.kv_latent, config.mla.nope_dim}));
  for (const GgufTensor& tensor : file.tensors())
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % 32, 0u) << tensor.name;
}

TEST(Gguf, TokensAreWrittenWithTypesAndReadBackWithoutTheWholeJson) {
  TemporaryFolder folder;
  fs::create_directory(folder / "in");
  write_tokenizer(folder / "in");
  ModelConfig config = load_config(golden_dir("v3-tiny"));
  config.vocab_size = 12;
  config.bos_id = 0;
  GgufWriter with;
  add_gguf_tokenizer(with, folder / "in", config);
  with.write(folder / "x.gguf", [](size_t, const GgufWriter::Sink&) {});
  // The same without tokenizer.huggingface.json, as other converters write it.
  const GgufFile whole(folder / "x.gguf");
  EXPECT_EQ(std::get<std::vector<std::string>>(*whole.value("tokenizer.ggml.tokens")),
            (std::vector<std::string>{"<s>", "a", "b", "c", "ab", "abc", "[PAD6]", "[PAD7]", "[PAD8]",
                                      "<think>", "[PAD10]", "[PAD11]"}));
  EXPECT_EQ(std::get<std::vector<int64_t>>(*whole.value("tokenizer.ggml.token_type")),
            (std::vector<int64_t>{3, 1, 1, 1, 1, 1, 5, 5, 5, 4, 5, 5}));
  GgufWriter without;
  without.add_text("tokenizer.ggml.model", whole.text("tokenizer.ggml.model"));
  without.add_text("tokenizer.ggml.pre", whole.text("tokenizer.ggml.pre"));
  without.add_texts("tokenizer.ggml.tokens",
                    std::get<std::vector<std::string>>(*whole.value("tokenizer.ggml.tokens")));
  without.add_i32s("tokenizer.ggml.token_type",
                   std::get<std::vector<int64_t>>(*whole.value("tokenizer.ggml.token_type")));
  without.add_texts("tokenizer.ggml.merges",
                    std::get<std::vector<std::string>>(*whole.value("tokenizer.ggml.merges")));
  without.add_u32("tokenizer.ggml.bos_token_id", 0);
  without.add_bool("tokenizer.ggml.add_bos_token", true);
  without.write(folder / "y.gguf", [](size_t, const GgufWriter::Sink&) {});
  fs::create_directory(folder / "out");
  write_gguf_tokenizer(GgufFile(folder / "y.gguf"), folder / "out");
  const Json a = parse_json(read_file(folder / "in" / "tokenizer.json"), "a");
  const Json b = parse_json(read_file(folder / "out" / "tokenizer.json"), "b");
  EXPECT_EQ(a, b);
  const Json settings = parse_json(read_file(folder / "out" / "tokenizer_config.json"), "b");
  EXPECT_EQ(settings["bos_token"], "<s>");
  EXPECT_EQ(settings["add_bos_token"], true);
}

TEST(Gguf, TheV3PreTokenizerIsRecognisedAndAnotherIsRefused) {
  TemporaryFolder folder;
  fs::copy_file(golden_tokenizer_file(), folder / "tokenizer.json");
  ModelConfig config = load_config(golden_dir("v3-tiny"));
  config.vocab_size = 129280;
  GgufWriter writer;
  add_gguf_tokenizer(writer, folder.path(), config);
  writer.write(folder / "x.gguf", [](size_t, const GgufWriter::Sink&) {});
  EXPECT_EQ(GgufFile(folder / "x.gguf").text("tokenizer.ggml.pre"), "deepseek-v3");
  Json root = parse_json(read_file(folder / "tokenizer.json"), "x");
  root["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\p{N}";
  write_file(folder / "tokenizer.json", dump_json(root));
  EXPECT_NE(
      error_of([&] { add_gguf_tokenizer(writer, folder.path(), config); }).find("knows no GGUF name for"),
      std::string::npos);
  root["model"]["merges"] = Json::array();  // bytes: no split can matter
  write_file(folder / "tokenizer.json", dump_json(root));
  EXPECT_EQ(error_of([&] { add_gguf_tokenizer(writer, folder.path(), config); }), "no error");
  config.vocab_size = 1000;
  fs::copy_file(golden_tokenizer_file(), folder / "tokenizer.json", fs::copy_options::overwrite_existing);
  EXPECT_NE(
      error_of([&] { add_gguf_tokenizer(writer, folder.path(), config); }).find("outside the 1000 rows"),
      std::string::npos);
}

TEST(Gguf, WhatTheFormatCannotSayIsRefusedAndLeavesNothing) {
  TemporaryFolder folder;
  plain_model("v3-yarn", folder / "in", DType::kF32);
  const Json sound = parse_json(read_file(folder / "in" / "config.json"), "x");
  Json json = sound;
  json[json.contains("rope_parameters") ? "rope_parameters" : "rope_scaling"]["mscale"] = 0.5;
  write_file(folder / "in" / "config.json", dump_json(json));
  EXPECT_NE(
      error_of([&] { write_gguf(folder / "in", folder / "x.gguf", GgufDType::kF32); }).find("mscale is 0.5"),
      std::string::npos);
  write_file(folder / "in" / "config.json", dump_json(sound));
  EXPECT_NE(error_of([&] {
              write_gguf(golden_dir("v32-tiny"), folder / "x.gguf", GgufDType::kF32);
            }).find("its sparse attention has no place"),
            std::string::npos);
  write_file(folder / "there.gguf", "mine");
  EXPECT_NE(
      error_of([&] { write_gguf(folder / "in", folder / "there.gguf", GgufDType::kF32); }).find("exists"),
      std::string::npos);
  EXPECT_EQ(read_file(folder / "there.gguf"), "mine");
  EXPECT_EQ(folder.entries().size(), 2u);
}

class MalformedGguf : public ::testing::Test {
 protected:
  // A small sound file: two keys and two tensors.
  std::string sound() {
    GgufWriter writer;
    writer.add_text("general.architecture", "deepseek2");
    writer.add_texts("list", {"a", "bc"});
    writer.add_u32("n", 7);
    writer.add_tensor("t", GgufType::kF32, {2, 3});
    writer.add_tensor("u", GgufType::kQ8_0, {64});
    writer.write(folder_ / "sound", [](size_t i, const GgufWriter::Sink& sink) {
      const std::string zeros(i == 0 ? 24 : 68, '\0');
      sink(zeros.data(), zeros.size());
    });
    return read_file(folder_ / "sound");
  }
  std::string problem(const std::string& bytes) {
    put(bytes);
    return error_of([&] { GgufFile file(folder_ / "bad"); });
  }
  // Without the fsync of write_file: there are hundreds.
  void put(const std::string& bytes) { std::ofstream(folder_ / "bad", std::ios::binary) << bytes; }
  // Puts `value` over the bytes `shift` after the first occurrence of `mark`.
  template <class T>
  static std::string with(std::string bytes, const std::string& mark, size_t shift, T value) {
    std::memcpy(&bytes[bytes.find(mark) + mark.size() + shift], &value, sizeof value);
    return bytes;
  }
  TemporaryFolder folder_;
};

TEST_F(MalformedGguf, EveryBadLengthTypeAndNameIsNamedWithItsByte) {
  const std::string bytes = sound();
  EXPECT_EQ(problem(bytes), "no error");
  const auto expect = [&](const std::string& bad, const char* part) {
    const std::string text = problem(bad);
    EXPECT_NE(text.find(part), std::string::npos) << part << " | " << text;
    EXPECT_NE(text.find("[gguf.read]"), std::string::npos);
  };
  expect("", "this is no GGUF file");
  expect("GGUX" + bytes.substr(4), "this is no GGUF file");
  expect(with(bytes, "GGUF", 0, uint32_t{9}), "version 9, need 2 or 3");
  expect(with(bytes, "GGUF", 4, ~uint64_t{0}), "18446744073709551615 tensors cannot fit");
  expect(with(bytes, "GGUF", 12, uint64_t{1} << 60), "keys cannot fit");
  expect(with(bytes, "GGUF", 20, uint64_t{1} << 62), "a key is 4611686018427387904 bytes long");
  expect(with(bytes, "general.architecture", 0, uint32_t{13}), "value type 13 is unknown");
  expect(with(bytes, "general.architecture", 4, ~uint64_t{0}), "a text takes 18446744073709551615 bytes");
  expect(with(bytes, "list", 4, uint32_t{9}), "a list of lists");
  expect(with(bytes, "list", 4, uint32_t{99}), "list type 99 is unknown");
  expect(with(bytes, "list", 8, uint64_t{1} << 61), "list entries cannot fit");
  const std::string t_entry("\1\0\0\0\0\0\0\0t", 9), u_entry("\1\0\0\0\0\0\0\0u", 9);
  expect(with(bytes, t_entry, 0, uint32_t{5}), "t has 5 dimensions, need at most 4");
  expect(with(bytes, t_entry, 4, uint64_t{1} << 63), "too many values");
  expect(with(bytes, t_entry, 4, uint64_t{1} << 56), "too many values");
  expect(with(bytes, t_entry, 4, uint64_t{1} << 40), "t takes ");
  expect(with(bytes, t_entry, 24, uint64_t{4}), "t starts at 4 of the data, need a multiple of 32");
  expect(with(bytes, t_entry, 24, ~uint64_t{31}), "t takes 24 bytes from 18446744073709551584");
  expect(with(bytes, u_entry, 4, uint64_t{33}), "u is Q8_0 with rows of 33 values");
  std::string same = bytes;
  same[same.find(u_entry) + 8] = 't';
  expect(same, "the tensor t comes twice");
  EXPECT_EQ(problem(with(bytes, t_entry, 20, uint32_t{77})),
            "no error");  // listed, but its bytes are not understood
}

TEST_F(MalformedGguf, NoCutAndNoChangedByteReadsOutsideTheFile) {
  const std::string bytes = sound();
  for (size_t size = 0; size + 28 < bytes.size(); ++size)  // the last 28 are padding
    EXPECT_NE(problem(bytes.substr(0, size)), "no error") << size;
  const size_t header = bytes.size() - 32 - 96;
  int refused = 0;
  for (size_t at = 0; at < header; ++at)
    for (const int bit : {0, 3, 7}) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(changed[at] ^ (1 << bit));
      put(changed);
      try {
        const GgufFile file(folder_ / "bad");
        for (const GgufTensor& tensor : file.tensors()) {
          if (!tensor.known_type()) continue;
          std::vector<float> out(static_cast<size_t>(tensor.num_values()));
          gguf_to_f32(*tensor.known_type(), tensor.bytes.data(), out.data(), tensor.num_values());
        }
        error_of([&] { gguf_config(file); });
      } catch (const Error&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, 100);
}

TEST_F(MalformedGguf, AModelWithMissingOrOddTensorsIsRefusedByName) {
  TemporaryFolder folder;
  const ModelConfig config = plain_model("v3-tiny", folder / "in", DType::kF32);
  ModelConfig wide = config;
  wide.dense_dim *= 2;
  const auto problem_with = [&](const ModelConfig& written, size_t parts_left_out, uint32_t type) {
    GgufWriter writer;
    add_gguf_config(writer, written, GgufType::kF32);
    std::vector<GgufPart> parts = gguf_parts(config, GgufType::kF32);
    parts.resize(parts.size() - parts_left_out);
    for (const GgufPart& part : parts)
      writer.add_tensor(
          part.name, part.name == "output_norm.weight" ? static_cast<GgufType>(type) : part.type, part.shape);
    writer.write(folder / "x.gguf", [&](size_t i, const GgufWriter::Sink& sink) {
      int64_t n = 4;
      for (const int64_t size : parts[i].shape) n *= size;
      if (parts[i].name == "output_norm.weight" && type != 0) n /= 2;
      const std::string zeros(static_cast<size_t>(n), '\0');
      sink(zeros.data(), zeros.size());
    });
    ConvertOptions options;
    return error_of([&] { read_gguf(folder / "x.gguf", folder / "out", options); });
  };
  EXPECT_EQ(problem_with(config, 0, 0), "no error");
  fs::remove_all(folder / "out");
  EXPECT_NE(problem_with(config, 2, 0).find("output_norm.weight is missing"), std::string::npos);
  EXPECT_NE(problem_with(config, 0, 2).find("output_norm.weight has the tensor type 2"), std::string::npos);
  EXPECT_NE(problem_with(wide, 0, 0).find("blk.0.ffn_gate.weight is ["), std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "out"));
}

}  // namespace
}  // namespace hadal
