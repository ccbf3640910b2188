#include "hadal/checkpoint/convert.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/numbers.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/config/hf_config.h"
#include "hadal/error.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

std::vector<float> values(const Checkpoint& checkpoint, const std::string& name) {
  const StoredTensor& t = checkpoint.at(name);
  std::vector<float> out(static_cast<size_t>(t.num_values()));
  read_f32(checkpoint, t, out.data());
  return out;
}

// Largest |a - b| over all weights, relative to the largest |a| of each 128x128 block's bound: of the tensor.
double worst_relative(const Checkpoint& a, const Checkpoint& b, const ModelConfig& config) {
  double worst = 0;
  for (const HfTensor& tensor : hf_tensors(config)) {
    const std::vector<float> x = values(a, tensor.hf_name), y = values(b, tensor.hf_name);
    double largest = 1e-30, difference = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      largest = std::max(largest, std::fabs(static_cast<double>(x[i])));
      difference = std::max(difference, std::fabs(static_cast<double>(x[i]) - y[i]));
    }
    worst = std::max(worst, difference / largest);
  }
  return worst;
}

ConvertOptions to(DType dtype) {
  ConvertOptions options;
  options.dtype = dtype;
  return options;
}

std::string problem_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Convert, EveryDtypePairKeepsTheWeightsToItsPrecision) {
  for (const char* name :
       {"v3-tiny", "v2-tiny", "v2lite-tiny", "v3-noqlora", "v3-mtp", "v3-fp8", "v3-bf16"}) {
    TemporaryFolder folder;
    const Checkpoint source = open_checkpoint(golden_dir(name));
    const ModelConfig config = load_config(golden_dir(name));
    for (const auto& [dtype, tolerance] : std::vector<std::pair<DType, double>>{
             {DType::kF32, 0.0},
             {DType::kBF16, 1.0 / 256},                  // half a step of 8 bits
             {DType::kF16, 1.0 / 2048},                  // half a step of 11 bits
             {DType::kF8E4M3, 1.0 / 16 + 1.0 / 256}}) {  // half a step of 4 bits
      const fs::path first = folder / "first", back = folder / "back";
      convert(golden_dir(name), first, to(dtype));
      const ModelConfig stored = load_config(first);
      EXPECT_EQ(stored.stored_dtype, dtype) << name;
      const Checkpoint converted = open_checkpoint(first);
      EXPECT_NO_THROW(check_against(stored, converted));
      EXPECT_LE(worst_relative(source, converted, config), tolerance)
          << name << " " << static_cast<int>(dtype);
      convert(first, back, to(DType::kF32));
      EXPECT_EQ(worst_relative(converted, open_checkpoint(back), config), 0.0) << name;
      ModelConfig plain = load_config(back);
      plain.stored_dtype = config.stored_dtype;
      EXPECT_EQ(plain, config) << name;
      fs::remove_all(first);
      fs::remove_all(back);
    }
  }
}

TEST(Convert, OfficialFp8QuantisesMatricesOnly) {
  TemporaryFolder folder;
  convert(golden_dir("v3-mtp"), folder / "fp8", to(DType::kF8E4M3));
  const Checkpoint fp8 = open_checkpoint(folder / "fp8");
  const auto type = [&](const std::string& name) { return fp8.at(name).type; };
  EXPECT_EQ(type("model.embed_tokens.weight"), ElementType::kBF16);
  EXPECT_EQ(type("lm_head.weight"), ElementType::kBF16);
  EXPECT_EQ(type("model.norm.weight"), ElementType::kBF16);
  EXPECT_EQ(type("model.layers.1.mlp.gate.weight"), ElementType::kBF16);
  EXPECT_EQ(type("model.layers.3.eh_proj.weight"), ElementType::kBF16);
  EXPECT_EQ(type("model.layers.3.shared_head.head.weight"), ElementType::kBF16);
  EXPECT_EQ(type("model.layers.1.mlp.gate.e_score_correction_bias"), ElementType::kF32);
  EXPECT_EQ(type("model.layers.0.self_attn.kv_a_proj_with_mqa.weight"), ElementType::kF8E4M3);
  EXPECT_EQ(type("model.layers.3.mlp.experts.15.down_proj.weight"), ElementType::kF8E4M3);
  EXPECT_EQ(type("model.layers.3.mlp.experts.15.down_proj.weight_scale_inv"), ElementType::kF32);
  const Json config = parse_json(read_file(folder / "fp8" / "config.json"), "x");
  EXPECT_EQ(config["quantization_config"]["quant_method"], "fp8");
  EXPECT_EQ(config["torch_dtype"], "bfloat16");
}

TEST(Convert, Fp8ToFp8IsBitIdentical) {
  TemporaryFolder folder;
  convert(golden_dir("v3-fp8"), folder / "again", to(DType::kF8E4M3));
  const Checkpoint a = open_checkpoint(golden_dir("v3-fp8")), b = open_checkpoint(folder / "again");
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const StoredTensor* t : a.tensors()) {
    EXPECT_EQ(t->type, b.at(t->name).type);
    EXPECT_EQ(0, std::memcmp(t->bytes.data(), b.at(t->name).bytes.data(), t->bytes.size())) << t->name;
  }
  ConvertOptions power = to(DType::kF8E4M3);
  power.power_of_two_scales = true;
  convert(golden_dir("v3-fp8"), folder / "power", power);
  EXPECT_TRUE(load_config(folder / "power").fp8_power_of_two_scales);
  const Checkpoint rounded = open_checkpoint(folder / "power");
  for (const StoredTensor* t : rounded.tensors()) {
    if (!is_scale_name(t->name)) continue;
    int exponent = 0;
    float scale = 0;
    std::memcpy(&scale, t->bytes.data(), 4);
    EXPECT_EQ(std::frexp(scale, &exponent), 0.5f) << t->name;
  }
}

TEST(Convert, ShardedOutputHoldsTheSameAndKeepsCompanionsAndUnknownFields) {
  TemporaryFolder folder;
  fs::copy(golden_dir("v3-tiny"), folder / "in");
  Json json = parse_json(read_file(folder / "in" / "config.json"), "x");
  json["from_the_future"] = 7;
  write_file(folder / "in" / "config.json", dump_json(json));
  write_file(folder / "in" / "tokenizer_config.json", "{\"a\": 1}");
  ConvertOptions options = to(DType::kF32);
  options.max_shard_bytes = 100'000;
  convert(folder / "in", folder / "out", options);
  EXPECT_TRUE(fs::exists(folder / "out" / "model.safetensors.index.json"));
  EXPECT_GT(open_checkpoint(folder / "out").num_files(), 5u);
  EXPECT_EQ(worst_relative(open_checkpoint(folder / "in"), open_checkpoint(folder / "out"),
                           load_config(folder / "in")),
            0);
  EXPECT_EQ(read_file(folder / "out" / "tokenizer_config.json"), "{\"a\": 1}");
  EXPECT_EQ(parse_json(read_file(folder / "out" / "config.json"), "x"), json);
  EXPECT_FALSE(fs::exists(folder / "out" / "expected.json"));
}

TEST(Convert, UnknownTensorsAreCopiedWithANote) {
  TemporaryFolder folder;
  fs::create_directory(folder / "in");
  const Checkpoint source = open_checkpoint(golden_dir("v2-tiny"));
  std::vector<TensorHead> heads = {{"extra.table", ElementType::kI16, {2}}};
  for (const StoredTensor* t : source.tensors()) heads.push_back({t->name, t->type, t->shape});
  write_checkpoint(folder / "in", heads, 1 << 30, [&](const TensorHead& head, SafetensorsWriter& writer) {
    const StoredTensor* t = source.find(head.name);
    t ? writer.write(t->bytes.data(), t->bytes.size()) : writer.write("wxyz", 4);
  });
  fs::copy_file(golden_dir("v2-tiny") / "config.json", folder / "in" / "config.json");
  ::testing::internal::CaptureStderr();
  convert(folder / "in", folder / "out", to(DType::kBF16));
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("extra.table is no weight of this model"),
            std::string::npos);
  const Checkpoint out = open_checkpoint(folder / "out");
  EXPECT_EQ(out.at("extra.table").type, ElementType::kI16);
  EXPECT_EQ(0, std::memcmp(out.at("extra.table").bytes.data(), "wxyz", 4));
}

TEST(Convert, RefusesWhatItMayNotReplace) {
  TemporaryFolder folder;
  fs::create_directory(folder / "full");
  write_file(folder / "full" / "mine", "keep");
  write_file(folder / "file", "keep");
  const auto text = [&](const fs::path& destination, bool overwrite = false) {
    ConvertOptions options = to(DType::kF32);
    options.overwrite = overwrite;
    return problem_of([&] { convert(golden_dir("v2-tiny"), destination, options); });
  };
  EXPECT_NE(text(folder / "full").find("exists and is not empty"), std::string::npos);
  EXPECT_EQ(read_file(folder / "full" / "mine"), "keep");
  EXPECT_NE(text(folder / "file").find("is a file"), std::string::npos);
  EXPECT_NE(text(golden_dir("v2-tiny"), true).find("holds the source"), std::string::npos);
  EXPECT_NE(text(golden_dir("v2-tiny").parent_path(), true).find("holds the source"), std::string::npos);
  EXPECT_EQ(folder.entries().size(), 2u);
  EXPECT_EQ(text((folder / "full") / "", true), "no error");
  EXPECT_FALSE(fs::exists(folder / "full" / "mine"));
  EXPECT_EQ(text(folder / "deep" / "er"), "no error");
  EXPECT_EQ(folder.entries().size(), 3u);  // no partial or old folder stays
}

TEST(Convert, ABadSourceLeavesNothing) {
  TemporaryFolder folder;
  const fs::path in = folder / "in";
  fs::copy(golden_dir("v3-tiny"), in);
  const std::string config = read_file(in / "config.json");
  const auto refuse = [&](const std::string& part, DType dtype) {
    const std::string text = problem_of([&] { convert(in, folder / "out", to(dtype)); });
    EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_EQ(folder.entries(), std::vector<std::string>{"in"});
  };
  Json json = parse_json(config, "x");
  json["hidden_size"] = 32;
  write_file(in / "config.json", dump_json(json));
  refuse("these are not this config's weights", DType::kBF16);
  fs::remove(in / "config.json");
  refuse("config.json does not exist", DType::kBF16);
  write_file(in / "config.json", config);
  std::string weights = read_file(in / "model.safetensors");
  const SafetensorsFile file(in / "model.safetensors");
  const uint64_t at = file.at("model.layers.3.mlp.experts.2.up_proj.weight").file_offset;
  const float big = 1e6f, nan = NAN;
  std::memcpy(&weights[at + 8], &big, 4);
  write_file(in / "model.safetensors", weights);
  refuse("experts.2.up_proj.weight has the value 1e+06, beyond the largest F16", DType::kF16);
  std::memcpy(&weights[at + 8], &nan, 4);
  write_file(in / "model.safetensors", weights);
  refuse("experts.2.up_proj.weight has the value nan, which FP8 blocks cannot hold", DType::kF8E4M3);
  write_file(in / "model.safetensors", std::string_view(weights).substr(0, weights.size() - 1));
  refuse("but the file at byte", DType::kBF16);
}

TEST(Convert, AFullDiskIsFoundBeforehandWithBothNumbers) {
  TemporaryFolder folder;
  const std::string text = problem_of([&] { require_space(folder.path(), int64_t{1} << 60); });
  EXPECT_NE(text.find("free, the result needs 1024.0 PiB. Free some space"), std::string::npos) << text;
  EXPECT_EQ(problem_of([&] { require_space(folder.path(), 1); }), "no error");
}

// Runs `call` in a child after `prepare`; returns what it threw.
std::string in_child(const std::function<void()>& prepare, const std::function<void()>& call) {
  int ends[2];
  if (::pipe(ends) != 0) return "no pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    prepare();
    const std::string text = problem_of(call);
    (void)!::write(ends[1], text.data(), text.size());
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text(4096, '\0');
  const ssize_t got = ::read(ends[0], text.data(), text.size());
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}

TEST(Convert, AWriteThatFailsHalfwayLeavesNothing) {
  TemporaryFolder folder;
  for (const rlim_t limit : {100, 5'000, 100'000, 500'000}) {
    const std::string text = in_child(
        [&] {
          ::signal(SIGXFSZ, SIG_IGN);
          const rlimit file_size{limit, limit};
          ::setrlimit(RLIMIT_FSIZE, &file_size);
        },
        [&] { convert(golden_dir("v3-tiny"), folder / "out", to(DType::kF32)); });
    EXPECT_NE(text.find("[file.write]"), std::string::npos) << text;
    EXPECT_NE(text.find("File too large"), std::string::npos) << text;
    EXPECT_TRUE(folder.entries().empty()) << limit;
  }
}

TEST(Convert, NoPermissionIsAnErrorThatLeavesNothing) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become a user who may not write";
  TemporaryFolder folder;
  fs::copy(golden_dir("v2-tiny"), folder / "in");
  fs::create_directory(folder / "closed");
  fs::permissions(folder.path(), fs::perms(0755));
  fs::permissions(folder / "closed", fs::perms(0755));
  const auto become_nobody = [] {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(1);
  };
  const std::string text =
      in_child(become_nobody, [&] { convert(folder / "in", folder / "closed" / "out", to(DType::kF32)); });
  EXPECT_NE(text.find("Permission denied"), std::string::npos) << text;
  EXPECT_NE(text.find("Choose another destination"), std::string::npos) << text;
  EXPECT_TRUE(fs::is_empty(folder / "closed"));
  fs::permissions(folder / "in" / "model.safetensors", fs::perms(0600));
  const std::string unreadable = in_child(become_nobody, [&] { open_checkpoint(folder / "in"); });
  EXPECT_NE(unreadable.find("model.safetensors: Permission denied. Check the permissions."),
            std::string::npos)
      << unreadable;
}

}  // namespace
}  // namespace hadal
