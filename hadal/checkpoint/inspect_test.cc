#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/checkpoint.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/config/weight_specs.h"
#include "hadal/error.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

TEST(Inspect, ASoundModelFolderIsListedAndAgreesWithItsConfig) {
  const CheckpointReport report = inspect(golden_dir("v3-tiny"));
  EXPECT_TRUE(report.problems.empty()) << report.problems.front();
  EXPECT_TRUE(report.has_config);
  int64_t values = 0;
  for (const WeightSpec& spec : weight_specs(load_config(golden_dir("v3-tiny")))) values += spec.num_values();
  EXPECT_EQ(report.num_parameters, values);
  EXPECT_EQ(report.by_type.at("F32").bytes, 4 * values);
  const std::string text = report_text(report);
  EXPECT_NE(text.find("model.norm.weight  F32 [64]  256 bytes"), std::string::npos);
  EXPECT_NE(text.find("sound; names and shapes agree with config.json"), std::string::npos);
  const Json json = parse_json(report_json(report), "report");
  EXPECT_EQ(json["tensors"].size(), report.tensors.size());
  EXPECT_EQ(json["num_parameters"], values);
}

TEST(Inspect, BlockScalesAreNoParameters) {
  const CheckpointReport report = inspect(golden_dir("v3-fp8"));
  int64_t values = 0;
  for (const WeightSpec& spec : weight_specs(load_config(golden_dir("v3-fp8")))) values += spec.num_values();
  EXPECT_EQ(report.num_parameters, values);
  EXPECT_GT(report.by_type.at("F8_E4M3").tensors, 50);
}

TEST(Inspect, GroupScalesAndPaddingAreNoParameters) {
  const int64_t values = inspect(golden_dir("v3-tiny")).num_parameters;
  for (const auto& [dtype, format] : {std::pair{DType::kInt8, "INT8"}, std::pair{DType::kInt4, "INT4"}}) {
    TemporaryFolder folder;
    ConvertOptions options;
    options.dtype = dtype;
    convert(golden_dir("v3-tiny"), folder / "out", options);
    const CheckpointReport report = inspect(folder / "out");
    EXPECT_TRUE(report.problems.empty()) << report.problems.front();
    EXPECT_EQ(report.num_parameters, values) << format;
    EXPECT_GT(report.by_type.at(format).tensors, 50);
    EXPECT_NE(report_text(report).find(std::string("] ") + format + "  "), std::string::npos);
    EXPECT_NE(report_json(report).find(std::string("\"format\":\"") + format), std::string::npos);
  }
}

TEST(Inspect, GroupFormatsThatContradictTheConfigAreNamed) {
  TemporaryFolder folder;
  ConvertOptions options;
  options.dtype = DType::kInt4;
  convert(golden_dir("v3-tiny"), folder / "out", options);
  const auto path = folder / "out" / "config.json";
  const Json sound = parse_json(read_file(path), "x");
  Json json = sound;
  json["quantization_config"]["int8_matrices"] = Json::array({"kv_b_proj", "kv_a_proj_with_mqa"});
  write_file(path, dump_json(json));
  std::vector<std::string> problems = inspect(folder / "out").problems;
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].find("quantization_config says INT4: need U8 ["), std::string::npos) << problems[0];
  json = sound;
  json.erase("quantization_config");
  write_file(path, dump_json(json));
  problems = inspect(folder / "out").problems;
  EXPECT_GT(problems.size(), 50u);
  write_file(path, dump_json(sound));
  // A file whose scales went missing, and one whose scales have another shape.
  const Checkpoint out = open_checkpoint(folder / "out");
  for (const bool missing : {true, false}) {
    TemporaryFolder broken;
    write_file(broken / "config.json", dump_json(sound));
    std::vector<TensorHead> heads;
    for (const StoredTensor* t : out.tensors())
      if (t->name != "lm_head.weight_scale") heads.push_back({t->name, t->type, t->shape});
    if (!missing) heads.push_back({"lm_head.weight_scale", ElementType::kBF16, {3, 5}});
    write_checkpoint(broken.path(), heads, 1 << 30, [&](const TensorHead& head, SafetensorsWriter& writer) {
      const std::vector<std::byte> zeros(static_cast<size_t>(head.num_bytes()));
      writer.write(zeros.data(), zeros.size());
    });
    problems = inspect(broken.path()).problems;
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_NE(problems[0].find(
                  missing ? "lm_head.weight_scale is missing: U8 weights need their group scales"
                          : "lm_head.weight_scale is BF16 [3, 5], quantization_config says INT8: need "),
              std::string::npos)
        << problems[0];
  }
}

TEST(Inspect, ATruncatedFileIsStillListedWithTheByteWhereItEnds) {
  TemporaryFolder folder;
  const std::string weights = read_file(golden_dir("v3-tiny") / "model.safetensors");
  write_file(folder / "model.safetensors", std::string_view(weights).substr(0, weights.size() - 1000));
  const CheckpointReport report = inspect(folder.path());
  EXPECT_EQ(report.tensors.size(), inspect(golden_dir("v3-tiny")).tensors.size());
  ASSERT_FALSE(report.problems.empty());
  EXPECT_NE(report.problems[0].find("but the file at byte " + std::to_string(weights.size() - 1000)),
            std::string::npos)
      << report.problems[0];
  EXPECT_NE(report_text(report).find("problem"), std::string::npos);
}

TEST(Inspect, DisagreementWithTheConfigIsReportedTensorByTensor) {
  TemporaryFolder folder;
  std::filesystem::copy_file(golden_dir("v3-tiny") / "model.safetensors", folder / "model.safetensors");
  Json json = parse_json(read_file(golden_dir("v3-tiny") / "config.json"), "x");
  json["n_shared_experts"] = 2;
  write_file(folder / "config.json", dump_json(json));
  const CheckpointReport report = inspect(folder.path());
  ASSERT_EQ(report.problems.size(), 9u);  // three MoE layers of three shared matrices
  EXPECT_NE(report.problems[0].find("mlp.shared_experts.gate_proj.weight is [16, 64], config says [32, 64]"),
            std::string::npos)
      << report.problems[0];
  json["model_type"] = "llama";
  write_file(folder / "config.json", dump_json(json));
  ASSERT_EQ(inspect(folder.path()).problems.size(), 1u);
  EXPECT_NE(inspect(folder.path()).problems[0].find("model_type is \"llama\""), std::string::npos);
}

TEST(Inspect, AMissingShardIsNamedAndTheOthersAreListed) {
  TemporaryFolder folder;
  const std::vector<TensorHead> heads = {{"a", ElementType::kU8, {4}}, {"b", ElementType::kU8, {4}}};
  write_checkpoint(folder.path(), heads, 4,
                   [](const TensorHead&, SafetensorsWriter& writer) { writer.write("1234", 4); });
  std::filesystem::remove(folder / "model-00001-of-00002.safetensors");
  const CheckpointReport report = inspect(folder.path());
  ASSERT_EQ(report.tensors.size(), 1u);
  EXPECT_EQ(report.tensors[0].name, "b");
  EXPECT_NE(report.problems[0].find("shard model-00001-of-00002.safetensors is missing"), std::string::npos);
}

}  // namespace
}  // namespace hadal
