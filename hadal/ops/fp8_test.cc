// Products in FP8 against the rounded factors in double precision, and against the fp32 operations.
#include "hadal/ops/fp8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "hadal/ops/fp8_matrix.h"
#include "hadal/ops/fused.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using Inputs = std::vector<Tensor>;

// Values of many sizes, so that a scale shared by the wrong ones shows.
Tensor noise(at::IntArrayRef shape, int64_t from, double size = 1.0) {
  const Tensor i = arange(0, c10::multiply_integers(shape)) + from * 1000;
  const Tensor flat = (i * i * 31 + i * 17).remainder(9973).to(at::kDouble).div(9973 / 3.4).sub(1.7);
  return (flat * flat.abs() * size).to(at::kFloat).view(shape);
}

Inputs with_gradients(const std::function<Tensor(const Inputs&)>& f, const Inputs& inputs, const Tensor& dy) {
  Inputs leaves;
  for (const Tensor& x : inputs) leaves.push_back(x.clone().requires_grad_(true));
  const Tensor y = f(leaves);
  (y * dy).sum().backward();
  Inputs all{y.detach()};
  for (const Tensor& leaf : leaves) all.push_back(leaf.grad());
  return all;
}

// x rounded to codes, each group under its scale.
Tensor rounded(const Tensor& x, const Fp8Scaling& scaling, int64_t group_rows, int64_t group_cols) {
  const Tensor from = x.contiguous();
  const Fp8Grid grid{x.size(0), x.size(1), group_rows, group_cols};
  return fp8_values(fp8_matrix(scaling, grid, static_cast<const float*>(from.data_ptr()))).to(at::kDouble);
}

void expect_near(const Tensor& got, const Tensor& want, double tolerance, const std::string& what) {
  ASSERT_TRUE(got.sizes().equals(want.sizes())) << what;
  const double size = want.norm().item<double>();
  EXPECT_GT(size, 0) << what;
  EXPECT_LE((got.to(at::kDouble) - want).norm().item<double>(), tolerance * size) << what;
}

constexpr double kBf16 = 0x1p-9, kFp32 = 1e-6;  // of a result's rounding
const Fp8Scaling kActivation{.floor = kActivationFloor},
    kSent{.floor = kActivationFloor, .power_of_two = true};

struct LinearCase {
  int64_t T = 150, K = 300, N = 140;  // partial blocks everywhere
  Tensor x = noise({T, K}, 1), w = noise({N, K}, 2, 0.02), dy = noise({T, N}, 3, 1e-6);
  Inputs run(const Fp8Recipe& recipe, Fp8Input input = Fp8Input::kPlain) const {
    return with_gradients([&](const Inputs& in) { return fp8_linear(recipe, input, in[0], in[1]); }, {x, w},
                          dy);
  }
};

// V3 report 3.3.2: tiles along what is summed over, 1x128 and 128x1; blocks of weights.
TEST(Fp8Linear, MultipliesFactorsThatAreRoundedAlongWhatIsSummed) {
  const LinearCase c;
  const Inputs got = c.run({});
  const Tensor w = rounded(c.w, {}, 128, 128), x = rounded(c.x, kActivation, 1, 128);
  expect_near(got[0], x.matmul(w.t()), kBf16, "value");
  expect_near(got[1], rounded(c.dy, {}, 1, 128).matmul(w), kBf16, "gradient of x");
  // What was cached is grouped anew.
  const Tensor again = rounded(x.to(at::kFloat), kActivation, 128, 1);
  expect_near(got[2], rounded(c.dy, {}, 128, 1).t().matmul(again), kFp32, "gradient of w");
}

TEST(Fp8Linear, ResultsAreBf16ButGradientsOfWeightsFp32) {
  const LinearCase c;
  const Inputs got = c.run({});
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(got[i].equal(got[i].to(at::kBFloat16).to(at::kFloat))) << i;
  EXPECT_FALSE(got[2].equal(got[2].to(at::kBFloat16).to(at::kFloat)));
}

// V3 report 3.3.3: kept in E5M6, every scale a power of two.
TEST(Fp8Linear, AttentionsOutputIsKeptInTwelveBits) {
  const LinearCase c;
  const Inputs got = c.run({}, Fp8Input::kAttention);
  expect_near(got[0], rounded(c.x, kSent, 1, 128).matmul(rounded(c.w, {}, 128, 128).t()), kBf16, "value");
  std::vector<uint16_t> half(static_cast<size_t>(c.T * c.K));
  std::vector<float> scale(static_cast<size_t>(c.T * fp8_blocks(c.K)));
  Tensor x = empty({c.T, c.K});
  e5m6_quantise(fp8_kernels(), c.T, c.K, static_cast<const float*>(c.x.data_ptr()), half.data(),
                scale.data());
  e5m6_dequantise(fp8_kernels(), c.T, c.K, half.data(), scale.data(), static_cast<float*>(x.data_ptr()));
  expect_near(got[2], rounded(c.dy, {}, 128, 1).t().matmul(rounded(x, kSent, 128, 1)), kFp32,
              "gradient of w");
}

TEST(Fp8Linear, RecipesChangeTheGroupsTheyName) {
  const LinearCase c;
  const Tensor w = rounded(c.w, {}, 128, 128), x = rounded(c.x, kActivation, 1, 128);
  const Inputs blocks = c.run({.gradients = Fp8Group::kBlock});
  expect_near(blocks[1], rounded(c.dy, {}, 128, 128).matmul(w), kBf16, "gradients in blocks");
  const Inputs whole = c.run({.activations = Fp8Group::kTensor, .weights = Fp8Group::kTensor});
  expect_near(whole[0], rounded(c.x, kActivation, c.T, c.K).matmul(rounded(c.w, {}, c.N, c.K).t()), kBf16,
              "one scale a matrix");
  const Fp8Scaling e5m2{.format = Fp8Format::kE5M2};
  const Inputs wide = c.run({.gradient_format = Fp8Format::kE5M2});
  expect_near(wide[1], rounded(c.dy, e5m2, 1, 128).matmul(w), kBf16, "gradients in E5M2");
  const auto error = [&](Fp8Sums sums) {
    const Tensor want = x.matmul(w.t()).to(at::kFloat).to(at::kBFloat16).to(at::kFloat);
    return (c.run({.sums = sums})[0] - want).norm().item<double>();
  };
  EXPECT_LT(error(Fp8Sums::kFp32), error(Fp8Sums::kHopper));
  EXPECT_LT(error(Fp8Sums::kHopper), error(Fp8Sums::kHopperUnpromoted));
}

TEST(Fp8Linear, ANonFiniteInputReachesResultAndGradients) {
  LinearCase c;
  c.x[3][5] = INFINITY;
  const Inputs got = c.run({});
  EXPECT_FALSE(got[0].isfinite().all().item<bool>());
  EXPECT_FALSE(got[2].isfinite().all().item<bool>());
  EXPECT_TRUE(got[0][4].isfinite().all().item<bool>());
}

// Codes have 4 bits: a factor is off by up to 2^-4, some 2.6 % in the mean, at random.
constexpr double kAllowed = 0.08;

void expect_close_to_f32(const std::function<Tensor(const Inputs&)>& fp8,
                         const std::function<Tensor(const Inputs&)>& f32, const Inputs& inputs,
                         const Tensor& dy) {
  const Inputs got = with_gradients(fp8, inputs, dy), want = with_gradients(f32, inputs, dy);
  for (size_t i = 0; i < want.size(); ++i)
    expect_near(got[i], want[i].to(at::kDouble), kAllowed, "result " + std::to_string(i));
}

struct MlpCase {
  Inputs in = {noise({90, 150}, 1), noise({70, 150}, 2, 0.1), noise({70, 150}, 3, 0.1),
               noise({150, 70}, 4, 0.1)};
  Tensor dy = noise({90, 150}, 5, 1e-6);
};

TEST(Fp8Mlp, IsTheThreeProductsAndCloseToF32WithItsGradients) {
  const MlpCase c;
  const auto fp8 = [](const Inputs& x) { return fp8_mlp({}, x[0], x[1], x[2], x[3]); };
  const auto one = [](const Tensor& x, const Tensor& w) { return fp8_linear({}, Fp8Input::kPlain, x, w); };
  const Tensor composed = one(fused_swiglu(one(c.in[0], c.in[1]), one(c.in[0], c.in[2])), c.in[3]);
  EXPECT_TRUE(fp8(c.in).equal(composed));
  const auto f32 = [](const Inputs& x) {
    return fused_swiglu(x[0].matmul(x[1].t()), x[0].matmul(x[2].t())).matmul(x[3].t());
  };
  expect_close_to_f32(fp8, f32, c.in, c.dy);
}

struct ExpertsCase {
  int64_t T = 130, D = 140, E = 5, A = 2, M = 40;
  Tensor expert_TA = arange(0, T* A).mul(7).remainder(4).view({T, A});  // none to the last expert
  Inputs in = {noise({T, D}, 1), noise({T, A}, 2), noise({E, M, D}, 3, 0.1), noise({E, M, D}, 4, 0.1),
               noise({E, D, M}, 5, 0.1)};
  Tensor dy = noise({T, D}, 6, 1e-6);
  Tensor run(const Inputs& x) const { return fp8_experts({}, x[0], expert_TA, x[1], x[2], x[3], x[4]); }
};

TEST(Fp8Experts, AreCloseToF32WithTheirGradients) {
  const ExpertsCase c;
  expect_close_to_f32(
      [&](const Inputs& x) { return c.run(x); },
      [&](const Inputs& x) { return fused_experts(x[0], c.expert_TA, x[1], x[2], x[3], x[4]); }, c.in, c.dy);
}

TEST(Fp8Products, NumberOfThreadsDoesNotChangeABit) {
  const int before = num_threads();
  const ExpertsCase c;
  const LinearCase l;
  std::vector<Inputs> runs;
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    runs.push_back(with_gradients([&](const Inputs& x) { return c.run(x); }, c.in, c.dy));
    for (const Tensor& x : l.run({})) runs.back().push_back(x);
  }
  set_num_threads(before);
  for (size_t i = 0; i < runs[0].size(); ++i) EXPECT_TRUE(runs[0][i].equal(runs[1][i])) << i;
}

}  // namespace
}  // namespace hadal
