// FP8 as a precision of training: what it changes in a pass, and what is exported.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "hadal/checkpoint/load.h"
#include "hadal/checkpoint/names.h"
#include "hadal/config/weight_specs.h"
#include "hadal/ops/fp8_matrix.h"
#include "hadal/tensor/make.h"
#include "hadal/train/loss.h"
#include "tests/support/small_model.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

// Wide enough for whole and partial blocks.
ModelConfig wide_model() {
  ModelConfig c = small_model();
  c.width = 160, c.dense_dim = 140, c.moe.expert_dim = 130;
  return c;
}

Fp8Matrix weight_of(const Tensor& w) {
  return fp8_weight({}, static_cast<const float*>(w.data_ptr()), w.size(0), w.size(1));
}

bool same_bytes(const Tensor& x, const StoredTensor& stored) {
  return x.nbytes() == stored.bytes.size() && std::memcmp(x.data_ptr(), stored.bytes.data(), x.nbytes()) == 0;
}

TEST(Fp8Training, ExportedWeightsAreThoseThatTrainingMultipliesBitForBit) {
  const ModelConfig config = wide_model();
  ModelWeights weights = random_weights(config, 1);
  const TemporaryFolder folder;
  save_model(folder.path() / "f32", config, weights);
  convert(folder.path() / "f32", folder.path() / "fp8", {.dtype = DType::kF8E4M3});
  const Checkpoint exported = open_checkpoint(folder.path() / "fp8");
  std::unordered_map<std::string, Tensor> tensors;
  for_each_weight(config, weights, [&](const WeightSpec& spec, Tensor& w) { tensors[spec.name] = w; });
  const std::vector<WeightSpec> specs = weight_specs(config);
  int matrices = 0;
  for (const HfTensor& part : hf_tensors(config)) {
    if (part.role != WeightRole::kMatrix) continue;
    const Tensor& whole = tensors.at(specs[part.spec].name);
    const Fp8Matrix used = weight_of(part.expert < 0 ? whole : whole.select(0, part.expert));
    EXPECT_TRUE(same_bytes(used.code, exported.at(part.hf_name))) << part.hf_name;
    EXPECT_TRUE(same_bytes(used.scale, exported.at(scale_name(part.hf_name)))) << part.hf_name;
    ++matrices;
  }
  EXPECT_GT(matrices, 20);
}

struct Pass {
  double total = 0;
  std::vector<std::string> names;
  std::vector<Tensor> gradients;
  const Tensor& gradient(const std::string& name) const {
    return gradients.at(static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin()));
  }
};

// Rows of 40 tokens; `change` may alter the weights first.
Pass run(const LossConfig& loss_config, const std::function<void(const WeightSpec&, Tensor&)>& change = {}) {
  ModelConfig config = wide_model();
  // All are chosen: near a tie, rounding would change the choice and with it everything.
  config.moe.num_experts = 4, config.moe.top_k = 4, config.moe.num_groups_kept = config.moe.num_groups;
  const TrainBatch batch(arange(0, 4 * 42).mul(37).remainder(101).view({4, 42}));
  Transformer model(config, random_weights(config, 1));
  for_each_weight(config, model.weights(), [&](const WeightSpec& spec, Tensor& w) {
    if (change) change(spec, w);
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
  });
  const BatchLoss loss = batch_loss(model, batch, loss_config);
  loss.total.backward();
  Pass pass{.total = loss.total.item<double>()};
  for_each_weight(config, model.weights(), [&](const WeightSpec& spec, Tensor& w) {
    if (w.grad().defined()) pass.names.push_back(spec.name), pass.gradients.push_back(w.grad());
  });
  return pass;
}

const LossConfig kFp8{.products = Products::kBf16, .fp8 = Fp8Recipe{}};

TEST(Fp8Training, LossAndGradientsStayWithinTheFormatsRoundingsOfF32) {
  const Pass f32 = run({}), fp8 = run(kFp8);
  EXPECT_NE(fp8.total, f32.total);
  EXPECT_NEAR(fp8.total, f32.total, 5e-3 * f32.total);
  ASSERT_EQ(fp8.names, f32.names);
  for (size_t i = 0; i < f32.names.size(); ++i) {
    const Tensor &a = fp8.gradients[i], &b = f32.gradients[i];
    EXPECT_LE((a - b).norm().item<double>(), 0.2 * b.norm().item<double>())
        << f32.names[i];  // chains of 2.6 %
  }
}

// A layer's matrices may be replaced by what their codes hold; head, embedding and gate may not.
TEST(Fp8Training, MultipliesTheLayersMatricesAsCodesAndNothingElse) {
  const auto rounded = [](bool matrices) {
    return [matrices](const WeightSpec& spec, Tensor& w) {
      const bool is_matrix = spec.role == WeightRole::kMatrix;
      if (is_matrix != matrices || w.dim() < 2) return;
      for (const Tensor& one : w.dim() == 3 ? w.unbind(0) : std::vector<Tensor>{w})
        Tensor(one).copy_(fp8_values(weight_of(one)));
    };
  };
  const double plain = run(kFp8).total;
  EXPECT_NEAR(run(kFp8, rounded(true)).total, plain, 1e-6 * plain);  // codes of codes: scales off by 2^-24
  EXPECT_GT(std::abs(run(kFp8, rounded(false)).total - plain), 1e-5 * plain);
}

TEST(Fp8Training, RecomputationGivesTheSameGradientsBitForBit) {
  const Pass want = run(kFp8);
  for (const Recompute how : {Recompute::kSelective, Recompute::kFull}) {
    LossConfig config = kFp8;
    config.recompute = how;
    const Pass got = run(config);
    EXPECT_EQ(got.total, want.total);
    for (size_t i = 0; i < want.names.size(); ++i)
      EXPECT_TRUE(got.gradients[i].equal(want.gradients[i])) << want.names[i];
  }
}

TEST(Fp8Training, AnInfiniteWeightMakesTheLossNonFiniteSoTheStepIsSkipped) {
  const Pass pass = run(kFp8, [](const WeightSpec& spec, Tensor& w) {
    if (spec.name.ends_with("0.mla.kv_down")) w[0][0] = INFINITY;
  });
  EXPECT_FALSE(std::isfinite(pass.total));
}

}  // namespace
}  // namespace hadal
