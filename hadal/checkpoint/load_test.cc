#include "hadal/checkpoint/load.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/config/weight_specs.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

ModelConfig all_features() {
  ModelConfig c = preset("tiny");
  c.stored_dtype = DType::kF32;
  return c;
}

class LoadAndSave : public testing::Test {
 protected:
  LoadAndSave() { std::filesystem::create_directories(folder); }
  ~LoadAndSave() override { std::filesystem::remove_all(folder); }
  std::filesystem::path folder = std::filesystem::temp_directory_path() / cat("hadal_load_test_", ::getpid());

  void expect_same(ModelWeights a, ModelWeights b, const ModelConfig& config) {
    std::vector<Tensor> left;
    for_each_weight(config, a, [&](const WeightSpec&, Tensor& w) { left.push_back(w); });
    size_t i = 0;
    for_each_weight(config, b, [&](const WeightSpec& spec, Tensor& w) {
      EXPECT_EQ(w.scalar_type(), left[i].scalar_type()) << spec.name;
      EXPECT_TRUE(w.equal(left[i++])) << spec.name;
    });
  }
};

TEST_F(LoadAndSave, WhatIsSavedLoadsBitForBit) {
  const ModelConfig config = all_features();
  const ModelWeights weights = random_weights(config, 1);
  save_model(folder, config, weights);
  const Transformer loaded = load_model(folder);
  EXPECT_EQ(loaded.config(), config);
  expect_same(weights, loaded.weights(), config);
}

TEST_F(LoadAndSave, Bf16WeightsStayBf16AndTheBalanceBiasStaysF32) {
  ModelConfig config = all_features();
  ModelWeights weights = random_weights(config, 1);
  for_each_weight(config, weights, [](const WeightSpec& spec, Tensor& w) {
    w = spec.role == WeightRole::kBalanceBias ? full(spec.shape, 0.123456789) : w.to(at::kBFloat16);
  });
  save_model(folder, config, weights);
  const Transformer loaded = load_model(folder);
  EXPECT_EQ(loaded.config().stored_dtype, DType::kBF16);
  expect_same(weights, loaded.weights(), config);
}

TEST_F(LoadAndSave, ConfigOfAnotherModelIsRefusedNamingTensorAndShapes) {
  save_model(folder, all_features(), random_weights(all_features(), 1));
  ModelConfig other = all_features();
  other.moe.num_experts = 32;
  write_file(folder / "config.json", config_json(other));
  try {
    load_model(folder);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidConfig);
    EXPECT_NE(std::string(e.what()).find("mlp.gate.weight is [16, 128]"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("[32, 128]"), std::string::npos) << e.what();
  }
}

TEST_F(LoadAndSave, MainModelLoadsWithoutItsMtpModule) {
  ModelConfig main_only = all_features();
  main_only.mtp_depth = 0;
  save_model(folder, main_only, random_weights(main_only, 1));
  write_file(folder / "config.json",
             config_json(all_features()));  // speaks of a module the file does not hold
  EXPECT_EQ(load_model(folder).config().mtp_depth, 0);
}

TEST_F(LoadAndSave, SparseAttentionIsRefusedBeforeAnythingIsRead) {
  try {
    load_model(golden_dir("v32-tiny"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("can be run, but not trained"), std::string::npos) << e.what();
  }
}

TEST_F(LoadAndSave, ComputingInFp8IsRefused) {
  save_model(folder, all_features(), random_weights(all_features(), 1));
  try {
    load_model(folder, DType::kF8E4M3);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
  }
}

}  // namespace
}  // namespace hadal
