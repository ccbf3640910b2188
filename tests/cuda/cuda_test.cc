// Plain operations (hadal/tensor/device.h) against our kernels and the golden cases: each test runs on the
// CPU, where they are asked for, and on a GPU, if there is one. HADAL_REQUIRE_CUDA=1: without one they fail.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "hadal/checkpoint/load.h"
#include "hadal/checkpoint/names.h"
#include "hadal/error.h"
#include "hadal/ops/cross_entropy.h"
#include "hadal/tensor/device.h"
#include "hadal/train/adamw.h"
#include "hadal/train/evaluate.h"
#include "hadal/train/gradient_workers.h"
#include "hadal/train/train_state.h"
#include "tests/support/golden_tensors.h"
#include "tests/support/golden_training.h"
#include "tests/support/small_model.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

// Where a test computes: "cpu" or "cuda".
class Place {
 public:
  // Skips the test where there is no GPU.
  void open(const std::string& name) {
    if (name == "cpu") {
      plain_.emplace();
      return;
    }
    try {
      device_ = open_device(name);
    } catch (const Error& e) {
      const char* required = std::getenv("HADAL_REQUIRE_CUDA");
      if (required && *required == '1') FAIL() << e.what();
      GTEST_SKIP() << e.what();
    }
  }
  at::Device device() const { return device_; }
  Transformer model(const Transformer& from) const { return model(from.config(), from.weights()); }
  Transformer model(const ModelConfig& config, const ModelWeights& weights) const {
    return {config, on_device(config, copy_of(config, weights), device_)};
  }
  Tensor here(const Tensor& x) const { return on_device(x, device_); }
  // f on the CPU by our kernels.
  auto by_kernels(auto&& f) {
    const bool plain = plain_.has_value();
    plain_.reset();
    const auto result = f();
    if (plain) plain_.emplace();
    return result;
  }

 private:
  at::Device device_ = at::kCPU;
  std::optional<PlainOperations> plain_;
};

class Plain : public testing::TestWithParam<const char*>, public Place {
 protected:
  void SetUp() override { open(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(On, Plain, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return std::string(info.param); });

class Golden : public testing::TestWithParam<std::tuple<const char*, std::filesystem::path>>, public Place {
 protected:
  void SetUp() override { open(std::get<0>(GetParam())); }
  std::filesystem::path folder() const { return std::get<1>(GetParam()); }
  Transformer golden_model() const { return model(load_model(folder(), DType::kF32)); }
};
std::string golden_name(const testing::TestParamInfo<std::tuple<const char*, std::filesystem::path>>& info) {
  std::string name = std::get<1>(info.param).filename().string() + "_" + std::get<0>(info.param);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}
auto cases_with(const std::string& tensor) {
  return testing::Combine(testing::Values("cpu", "cuda"), testing::ValuesIn(golden_cases(tensor, true)));
}

void close(const Tensor& got, const GoldenCase& golden, const std::string& name, const std::string& kind) {
  expect_close(got.cpu(), golden.tensor(name), golden.tolerance(kind), name);
}

void require_gradients(Transformer& model) {
  for_each_weight(model.config(), model.weights(), [&](const WeightSpec& spec, Tensor& w) {
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
  });
}

void expect_gradients(Transformer& model, const GoldenCase& golden) {
  std::vector<Tensor> tensors;
  for_each_weight(model.config(), model.weights(),
                  [&](const WeightSpec&, Tensor& w) { tensors.push_back(w); });
  for (const HfTensor& part : hf_tensors(model.config())) {
    if (part.copy || part.role == WeightRole::kBalanceBias || !golden.has("grad." + part.hf_name)) continue;
    const Tensor grad = tensors[part.spec].grad();
    ASSERT_TRUE(grad.defined()) << part.hf_name;
    close(part.expert < 0 ? grad : grad.select(0, part.expert), golden, "grad." + part.hf_name, "grad");
  }
}

class GoldenPrefill : public Golden {};
TEST_P(GoldenPrefill, GivesTheReferencesNumbersAndGradients) {
  const GoldenCase golden(folder());
  Transformer model = golden_model();
  require_gradients(model);
  const Tensor ids_BT = here(golden.tensor("input_ids"));
  const int64_t T = ids_BT.size(1);
  Trace trace{.keep_rows = false};
  const Tensor hidden = model.forward(ids_BT, nullptr, &trace), logits = model.logits(hidden);
  close(logits, golden, "logits", "logits");
  for (const LayerTrace& layer : trace.layers) {
    const std::string after = "hidden." + std::to_string(layer.layer + 1);
    if (golden.has(after)) close(layer.hidden_BSD, golden, after, "hidden");
    if (layer.is_moe)
      expect_equal(layer.routing.expert_TA.cpu(),
                   golden.tensor("router." + std::to_string(layer.layer) + ".experts"), after + " experts");
  }
  if (golden.names("grad.").empty()) return;
  cross_entropy(logits.narrow(1, 0, T - 1).flatten(0, 1), ids_BT.narrow(1, 1, T - 1).flatten())
      .mean()
      .backward();
  expect_gradients(model, golden);
}
INSTANTIATE_TEST_SUITE_P(Cases, GoldenPrefill, cases_with("input_ids"), golden_name);

class GoldenMtp : public Golden {};
TEST_P(GoldenMtp, GivesTheReferencesLossesAndGradients) {
  const GoldenCase golden(folder());
  Transformer model = golden_model();
  require_gradients(model);
  const double lambda = golden.json().at("mtp_lambda").get<double>();
  const BatchLoss loss = batch_loss(model, TrainBatch(golden.tensor("tokens")).on(device()),
                                    {.mtp_weight = lambda, .balance_alpha = 0});
  loss.total.backward();
  expect_near(loss.main.item<double>(), golden.json().at("main_loss").get<double>(), golden.tolerance("loss"),
              "main");
  expect_near(loss.total.item<double>(), golden.json().at("total_loss").get<double>(),
              golden.tolerance("loss"), "total");
  expect_gradients(model, golden);
}
INSTANTIATE_TEST_SUITE_P(Cases, GoldenMtp, cases_with("mtp_logits"), golden_name);

class GoldenTraining : public Golden {};
TEST_P(GoldenTraining, EveryStepGivesTheReferencesLossesNormsLoadsAndBiases) {
  const GoldenCase golden(folder());
  const Json& hyper = golden.json().at("hyperparameters");
  Transformer model = golden_model();
  AdamW optimizer(model, golden_adamw(hyper));
  const LossConfig config = golden_loss(hyper);
  const Tensor tokens = golden.tensor("tokens");
  for (int64_t t = 0; t < tokens.size(0); ++t)
    expect_golden_step(golden, t, forward_backward(model, TrainBatch(tokens[t]).on(device()), config, {}),
                       model, optimizer);
}
INSTANTIATE_TEST_SUITE_P(Cases, GoldenTraining, cases_with("probe_mtp_logits"), golden_name);

// Sizes of which grouped products and the fast attention are made: multiples of 8, keys wider than values.
ModelConfig config() {
  ModelConfig c = small_model();
  c.vocab_size = 96, c.width = 64, c.num_layers = 3, c.dense_dim = 128, c.max_positions = 128;
  c.mla = {
      .num_heads = 4, .query_latent = 32, .kv_latent = 32, .nope_dim = 16, .rope_dim = 8, .value_dim = 16};
  c.moe.expert_dim = 32;
  return c;
}

// Rows that can be learned: each counts up by a step of its own.
TrainBatch counting(int64_t step, int64_t B = 8, int64_t T = 32) {
  const Tensor row_BX = arange(step * B, step * B + B).unsqueeze(1);
  const Tensor place = arange(0, T + 2).unsqueeze(0);
  return row_BX.mul(11).add(place.mul(row_BX.remainder(3).add(1))).remainder(config().vocab_size);
}

// Loss and gradients of a step on a copy of the weights.
struct Step {
  StepLoss loss;
  std::vector<Tensor> gradients;
};
Step step_of(Transformer model, const TrainBatch& batch, const LossConfig& loss) {
  require_gradients(model);
  Step step{.loss = forward_backward(model, batch.on(model.device()), loss, {}), .gradients = {}};
  for (const Tensor& g : take_gradients(model)) step.gradients.push_back(g.defined() ? g.cpu() : g);
  return step;
}

double norm_of(const std::vector<Tensor>& gradients) {
  double sum = 0;
  for (const Tensor& g : gradients)
    if (g.defined()) sum += g.to(at::kDouble).pow(2).sum().item<double>();
  return std::sqrt(sum);
}

void expect_step(const Step& got, const Step& want, double tolerance) {
  EXPECT_NEAR(got.loss.total, want.loss.total, tolerance * want.loss.total);
  EXPECT_NEAR(norm_of(got.gradients), norm_of(want.gradients), tolerance * norm_of(want.gradients));
  std::vector<Tensor> off;
  for (size_t i = 0; i < want.gradients.size(); ++i) {
    ASSERT_EQ(got.gradients[i].defined(), want.gradients[i].defined()) << i;
    if (want.gradients[i].defined()) off.push_back(got.gradients[i] - want.gradients[i]);
  }
  EXPECT_LE(norm_of(off), tolerance * norm_of(want.gradients));
}

constexpr double kF32Step = 1e-4;  // sums in another order, by 3xTF32 at worst

TEST_P(Plain, AStepInF32GivesTheKernelsLossAndGradients) {
  const ModelConfig c = config();
  const ModelWeights weights = random_weights(c, 1);
  TrainBatch batch = counting(0);
  for (const bool documents : {false, true}) {
    if (documents) batch.segment_start_BX = (arange(0, 34).floor_divide(5) * 5).expand({8, -1}).contiguous();
    const Step want = by_kernels([&] { return step_of({c, copy_of(c, weights)}, batch, {}); });
    expect_step(step_of(model(c, weights), batch, {}), want, kF32Step);
  }
}

TEST_P(Plain, V2sBalancingAndDroppingGiveTheKernelsLossAndGradients) {
  ModelConfig c = config();
  c.moe.scoring = Scoring::kSoftmax, c.moe.choice = Choice::kGroupMax, c.moe.normalize = false;
  const ModelWeights weights = random_weights(c, 2);
  const LossConfig loss{.balance_alpha = 0,
                        .expert_alpha = 0.003,
                        .device_alpha = 0.05,
                        .communication_alpha = 0.02,
                        .capacity_factor = 1};
  const Step want = by_kernels([&] { return step_of({c, copy_of(c, weights)}, counting(0), loss); });
  expect_step(step_of(model(c, weights), counting(0), loss), want, kF32Step);
}

// The same operations twice; on a GPU attention adds its gradients in any order, then rounds them.
TEST_P(Plain, RecomputedGradientsAreThoseOfAPlainPass) {
  const ModelConfig c = config();
  const ModelWeights weights = random_weights(c, 3);
  for (const Products products : {Products::kF32, Products::kBf16}) {
    const Step want = step_of(model(c, weights), counting(0), {.products = products});
    for (const Recompute how : {Recompute::kSelective, Recompute::kFull})
      expect_step(step_of(model(c, weights), counting(0), {.products = products, .recompute = how}), want,
                  products == Products::kF32 ? 1e-5 : 2e-3);
  }
}

// Every rounding to bf16 is off by 2^-9 at most, some tens follow each other: a loss of 4.6 by about 0.01.
TEST_P(Plain, AStepInBf16IsNearTheOneInF32) {
  const ModelConfig c = config();
  const ModelWeights weights = random_weights(c, 4);
  const Step want = by_kernels([&] { return step_of({c, copy_of(c, weights)}, counting(0), {}); });
  const Step got = step_of(model(c, weights), counting(0), {.products = Products::kBf16});
  EXPECT_NEAR(got.loss.total, want.loss.total, 0.02);
  EXPECT_NEAR(norm_of(got.gradients), norm_of(want.gradients), 0.05 * norm_of(want.gradients));
}

std::vector<double> curve(Transformer model, Products products, int64_t steps,
                          const AdamWConfig& settings = {}) {
  AdamW optimizer(model, settings);
  std::vector<double> losses;
  for (int64_t t = 0; t < steps; ++t) {
    const StepLoss loss = forward_backward(model, counting(t).on(model.device()), {.products = products}, {});
    optimizer.step(3e-3);
    update_balance_bias(model, loss.loads, 1e-3);
    losses.push_back(loss.main);
  }
  return losses;
}

// Differences of the last bit grow with the steps, most where a choice of experts tips.
TEST_P(Plain, FiftyStepsInF32FollowTheKernelsCurve) {
  const ModelConfig c = config();
  const ModelWeights weights = random_weights(c, 5);
  const auto want = by_kernels([&] { return curve({c, copy_of(c, weights)}, Products::kF32, 50); });
  const auto got = curve(model(c, weights), Products::kF32, 50);
  for (size_t t = 0; t < 10; ++t) EXPECT_NEAR(got[t], want[t], 1e-3) << t;
  for (size_t t = 10; t < 50; ++t) EXPECT_NEAR(got[t], want[t], 0.1) << t;
  EXPECT_LT(got.back(), 0.7 * got.front());
}

TEST_P(Plain, Bf16LearnsAsF32Does) {
  const ModelConfig c = config();
  const ModelWeights weights = random_weights(c, 6);
  const auto f32 = curve(model(c, weights), Products::kF32, 50),
             bf16 = curve(model(c, weights), Products::kBf16, 50);
  EXPECT_LT(bf16.back(), 0.7 * bf16.front());
  EXPECT_NEAR(bf16.back(), f32.back(), 0.25);
}

TEST_P(Plain, MomentsInBf16FollowTheKernelsCurve) {
  const ModelConfig c = config();
  const ModelWeights weights = random_weights(c, 7);
  const AdamWConfig settings{.bf16_moments = true};
  const auto want = by_kernels([&] { return curve({c, copy_of(c, weights)}, Products::kF32, 10, settings); });
  const auto got = curve(model(c, weights), Products::kF32, 10, settings);
  for (size_t t = 0; t < 10; ++t) EXPECT_NEAR(got[t], want[t], 0.02) << t;
}

TEST_P(Plain, AGradientThatIsNotFiniteChangesNothing) {
  const ModelConfig c = config();
  Transformer there = model(c, random_weights(c, 8));
  AdamW optimizer(there, {});
  forward_backward(there, counting(0).on(device()), {}, {});
  const Tensor w = there.weights().layers[0].mlp.gate, before = w.detach().clone();
  w.mutable_grad().fill_(INFINITY);
  EXPECT_FALSE(std::isfinite(optimizer.step(1e-3)));
  EXPECT_TRUE(w.equal(before));
}

TEST_P(Plain, ACheckpointGoesOnOnTheCpuAndBack) {
  const TemporaryFolder folder;
  const ModelConfig c = config();
  Transformer there = model(c, random_weights(c, 9));
  AdamW optimizer(there, {});
  WeightAverage average(there, 0.9);
  forward_backward(there, counting(0).on(device()), {}, {});
  optimizer.step(1e-3);
  average.update(there);
  write_train_state(folder.path(), take_snapshot({.step = 1}, there, optimizer, &average, true));
  Transformer cpu(c, random_weights(c, 10)), back = model(c, random_weights(c, 11));
  AdamW cpu_optimizer(cpu, {}), back_optimizer(back, {});
  WeightAverage back_average(back, 0.9);
  restore(folder.path(), cpu, {&cpu_optimizer}, nullptr);
  restore(folder.path(), back, {&back_optimizer}, &back_average);
  for (size_t i = 0; i < optimizer.moments().size(); ++i) {
    const auto &want = optimizer.moments()[i], &got = cpu_optimizer.moments()[i],
               &again = back_optimizer.moments()[i];
    EXPECT_TRUE(got.m.equal(want.m.cpu()) && got.v.equal(want.v.cpu())) << want.name;
    EXPECT_TRUE(again.m.equal(want.m) && again.v.equal(want.v)) << want.name;
    EXPECT_TRUE(cpu_optimizer.weights()[i].values.equal(optimizer.weights()[i].values.cpu())) << want.name;
    EXPECT_TRUE(back_optimizer.weights()[i].values.equal(optimizer.weights()[i].values)) << want.name;
  }
  EXPECT_TRUE(back_average.weights().final_norm.equal(average.weights().final_norm));
}

TEST_P(Plain, AnEvaluationGivesTheKernelsNumbers) {
  const ModelConfig c = config();
  const ModelWeights weights = random_weights(c, 12);
  const TrainBatch rows = counting(0, 11);
  const HeldOut want = by_kernels([&] { return evaluate(Transformer(c, copy_of(c, weights)), rows); });
  const HeldOut got = evaluate(model(c, weights), rows);
  EXPECT_NEAR(got.loss, want.loss, 1e-5);
  EXPECT_EQ(got.targets, want.targets);
  EXPECT_NEAR(got.accuracy, want.accuracy, 0.01);
  EXPECT_NEAR(*got.max_vio, *want.max_vio, 0.05);
}

}  // namespace
}  // namespace hadal
