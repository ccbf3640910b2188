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
#include "hadal/checkpoint/partial_folder.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/config/hf_config.h"
#include "hadal/error.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

std::vector<float> values(const Checkpoint& checkpoint, const HfTensor& tensor) {
  int64_t n = 1;
  for (const int64_t size : tensor.shape) n *= size;
  std::vector<float> out(static_cast<size_t>(n));
  read_f32(checkpoint, checkpoint.at(tensor.hf_name), out.data(), 0, -1, tensor.shape.back());
  return out;
}

// Largest |a - b| over all weights, relative to the largest |a| of each 128x128 block's bound: of the tensor.
double worst_relative(const Checkpoint& a, const Checkpoint& b, const ModelConfig& config) {
  double worst = 0;
  for (const HfTensor& tensor : hf_tensors(config)) {
    const std::vector<float> x = values(a, tensor), y = values(b, tensor);
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

TEST(Convert, EveryDtypePairKeepsTheWeightsToItsPrecision) {
  for (const char* name :
       {"v3-tiny", "v2-tiny", "v2lite-tiny", "v3-noqlora", "v3-mtp", "v3-fp8", "v3-bf16", "v32-tiny"}) {
    TemporaryFolder folder;
    const Checkpoint source = open_checkpoint(golden_dir(name));
    const ModelConfig config = load_config(golden_dir(name));
    for (const auto& [dtype, tolerance] : std::vector<std::pair<DType, double>>{
             {DType::kF32, 0.0},
             {DType::kBF16, 1.0 / 256},               // half a step of 8 bits
             {DType::kF16, 1.0 / 2048},               // half a step of 11 bits
             {DType::kF8E4M3, 1.0 / 16 + 1.0 / 256},  // half a step of 4 bits
             {DType::kInt8, 1.0 / 254 + 1.0 / 256},   // half a step of 127, and BF16 of the rest
             {DType::kInt4,
              3.0 / 13.5}}) {  // the extreme may be cut: 8.5 becomes 7 at worst, or 5 steps are all
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

TEST(Convert, EachQuantisedFormatBecomesEachOther) {
  const std::vector<DType> formats = {DType::kF8E4M3, DType::kInt8, DType::kInt4};
  for (const DType from : formats)
    for (const DType into : formats) {
      TemporaryFolder folder;
      convert(golden_dir("v3-mtp"), folder / "first", to(from));
      convert(folder / "first", folder / "second", to(into));
      const Checkpoint first = open_checkpoint(folder / "first"), second = open_checkpoint(folder / "second");
      EXPECT_NO_THROW(check_against(load_config(folder / "second"), second));
      const double limit = into == DType::kInt4 ? 0.25 : 0.07;  // half a step of INT4, of FP8
      EXPECT_LE(worst_relative(first, second, load_config(golden_dir("v3-mtp"))), limit);
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

TEST(Convert, AnIndexersWeightsStayAndItsMatricesAreQuantised) {
  TemporaryFolder folder;
  convert(golden_dir("v32-tiny"), folder / "fp8", to(DType::kF8E4M3));
  convert(golden_dir("v32-tiny"), folder / "int4", to(DType::kInt4));
  const Checkpoint fp8 = open_checkpoint(folder / "fp8"), int4 = open_checkpoint(folder / "int4");
  for (const int layer : {0, 1, 2}) {  // 2: MTP
    const std::string indexer = cat("model.layers.", layer, ".self_attn.indexer.");
    for (const char* name : {"wq_b.weight", "wk.weight"}) {
      EXPECT_EQ(fp8.at(indexer + name).type, ElementType::kF8E4M3);
      EXPECT_EQ(fp8.at(indexer + name + "_scale_inv").type, ElementType::kF32);
      EXPECT_EQ(weight_format(int4, int4.at(indexer + name)), WeightFormat::kInt8);
    }
    for (const char* name : {"weights_proj.weight", "k_norm.weight", "k_norm.bias"}) {
      EXPECT_EQ(fp8.at(indexer + name).type, ElementType::kBF16);
      EXPECT_EQ(int4.at(indexer + name).type, ElementType::kF32);
    }
  }
}

TEST(Convert, GroupFormatsQuantiseMatricesAndTheHead) {
  TemporaryFolder folder;
  convert(golden_dir("v3-mtp"), folder / "int4", to(DType::kInt4));
  const Checkpoint int4 = open_checkpoint(folder / "int4");
  const auto format = [&](const std::string& name) { return weight_format(int4, int4.at(name)); };
  EXPECT_EQ(format("lm_head.weight"), WeightFormat::kInt8);
  EXPECT_EQ(format("model.layers.3.shared_head.head.weight"), WeightFormat::kInt8);
  EXPECT_EQ(format("model.layers.0.self_attn.kv_b_proj.weight"), WeightFormat::kInt8);
  EXPECT_EQ(format("model.layers.0.self_attn.o_proj.weight"), WeightFormat::kInt4);
  EXPECT_EQ(format("model.layers.3.mlp.experts.15.up_proj.weight"), WeightFormat::kInt4);
  for (const char* name :
       {"model.embed_tokens.weight", "model.norm.weight", "model.layers.1.mlp.gate.weight",
        "model.layers.3.eh_proj.weight", "model.layers.1.mlp.gate.e_score_correction_bias"})
    EXPECT_EQ(int4.at(name).type, open_checkpoint(golden_dir("v3-mtp")).at(name).type) << name;
  const ModelConfig config = load_config(folder / "int4");
  const Checkpoint source = open_checkpoint(golden_dir("v3-mtp"));
  convert(folder / "int4", folder / "again", to(DType::kInt4));
  const Checkpoint again = open_checkpoint(folder / "again");
  for (const StoredTensor* t : again.tensors()) {
    const StoredTensor& first = int4.at(t->name);
    EXPECT_TRUE(std::equal(t->bytes.begin(), t->bytes.end(), first.bytes.begin(), first.bytes.end()))
        << t->name;
    EXPECT_TRUE(t->bytes.size() % 64 != 0 || t->file_offset % 64 == 0) << t->name;
  }
  EXPECT_EQ(load_config(folder / "again"), config);
}

TEST(Convert, ThreadsDoNotChangeTheCodes) {
  TemporaryFolder folder;
  for (const DType dtype : {DType::kInt8, DType::kInt4}) {
    ConvertOptions options = to(dtype);
    options.overwrite = true;
    options.num_threads = 1;
    convert(golden_dir("v2-tiny"), folder / "one", options);
    options.num_threads = 3;
    convert(golden_dir("v2-tiny"), folder / "three", options);
    EXPECT_EQ(read_file(folder / "one" / "model.safetensors"),
              read_file(folder / "three" / "model.safetensors"));
  }
}

// A model whose widths are no multiple of 128 (96, 10944, 1408), with values that know their place.
TEST(Convert, OddWidthsArePaddedRowByRow) {
  TemporaryFolder folder;
  ModelConfig config = load_config(golden_dir("v2-tiny"));
  config.width = 96;
  config.dense_dim = 10944;
  config.moe.expert_dim = 1408;
  config.moe.num_experts = 4;
  config.moe.num_groups = config.moe.num_groups_kept = 1;
  config.moe.choice = Choice::kGreedy;
  config.moe.top_k = 2;
  config.num_layers = config.moe.first_layer + 1;
  config.vocab_size = 64;
  config.bos_id = -1;
  config.eos_ids = {};
  config.stored_dtype = DType::kF32;
  fs::create_directory(folder / "in");
  write_file(folder / "in" / "config.json", config_json(config));
  std::vector<TensorHead> heads;
  for (const HfTensor& t : hf_tensors(config)) heads.push_back({t.hf_name, ElementType::kF32, t.shape});
  write_checkpoint(folder / "in", heads, 1 << 30, [](const TensorHead& head, SafetensorsWriter& writer) {
    std::vector<float> x(static_cast<size_t>(head.num_bytes() / 4));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 37 % 253) - 126);
    writer.write(x.data(), x.size() * sizeof(float));
  });
  const Checkpoint source = open_checkpoint(folder / "in");
  for (const auto& [dtype, step] :
       std::vector<std::pair<DType, double>>{{DType::kInt8, 0.004}, {DType::kInt4, 0.12}}) {
    ConvertOptions options = to(dtype);
    options.overwrite = true;
    convert(folder / "in", folder / "out", options);
    EXPECT_LE(worst_relative(source, open_checkpoint(folder / "out"), config), step);
    const CheckpointReport report = inspect(folder / "out");
    EXPECT_TRUE(report.problems.empty()) << report.problems.front();
    EXPECT_EQ(report.num_parameters, inspect(folder / "in").num_parameters);
  }
}

TEST(Convert, AKilledConversionIsClearedAwayByTheNextOne) {
  TemporaryFolder folder;
  const fs::path stale = folder / ".out.partial-1", other = folder / ".other.partial-1";
  for (const fs::path& path : {stale, other}) {
    fs::create_directory(path);
    write_file(path / "model.safetensors", "half");
  }
  convert(golden_dir("v2-tiny"), folder / "out", to(DType::kInt8));
  EXPECT_FALSE(fs::exists(stale));
  EXPECT_TRUE(fs::exists(other));  // of another destination
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
    return error_of([&] { convert(golden_dir("v2-tiny"), destination, options); });
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
    const std::string text = error_of([&] { convert(in, folder / "out", to(dtype)); });
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
  refuse("experts.2.up_proj.weight has the value nan, which integer codes cannot hold", DType::kInt4);
  write_file(in / "model.safetensors", std::string_view(weights).substr(0, weights.size() - 1));
  refuse("but the file at byte", DType::kBF16);
}

TEST(Convert, AFullDiskIsFoundBeforehandWithBothNumbers) {
  TemporaryFolder folder;
  const std::string text = error_of([&] { require_space(folder.path(), int64_t{1} << 60); });
  EXPECT_NE(text.find("free, the result needs 1024.0 PiB. Free some space"), std::string::npos) << text;
  EXPECT_EQ(error_of([&] { require_space(folder.path(), 1); }), "no error");
}

// Runs `call` in a child after `prepare`; returns what it threw.
std::string in_child(const std::function<void()>& prepare, const std::function<void()>& call) {
  int ends[2];
  if (::pipe(ends) != 0) return "no pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    prepare();
    const std::string text = error_of(call);
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
