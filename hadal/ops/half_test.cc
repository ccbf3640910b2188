// Products in half precision against the fp32 operations, values and gradients.
#include "hadal/ops/half.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hadal/error.h"
#include "hadal/kernels/half.h"
#include "hadal/ops/fused.h"
#include "hadal/ops/rope.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using Inputs = std::vector<Tensor>;

// Noise: sums of products of smooth functions would cancel, and what is left be mostly rounding.
Tensor noise(at::IntArrayRef shape, double from, double size = 1.0) {
  const Tensor i = arange(0, c10::multiply_integers(shape)) + static_cast<int64_t>(from * 1000);
  return (i * i * 31 + i * 17)
      .remainder(9973)
      .to(at::kDouble)
      .div(9973 / 3.4)
      .sub(1.7)
      .mul(size)
      .to(at::kFloat)
      .view(shape);
}

// Runs f on fresh leaves of the inputs, back-propagates a small multiple, returns value and gradients.
Inputs with_gradients(const std::function<Tensor(const Inputs&)>& f, const Inputs& inputs) {
  Inputs leaves;
  for (const Tensor& x : inputs) leaves.push_back(x.clone().requires_grad_(true));
  const Tensor y = f(leaves);
  (y * noise(y.sizes(), 0.9, 1e-6)).sum().backward();  // below fp16's normal numbers, were it not scaled
  Inputs all{y.detach()};
  for (const Tensor& leaf : leaves) all.push_back(leaf.grad());
  return all;
}

// Factors are rounded to 2^-12 and sums of a chunk to 2^-11 each; a chain of three products adds them up.
double allowed(HalfFormat format) {
  return format == HalfFormat::kFp16 ? 5e-3 : 2e-2;  // bf16: to 2^-9 each
}
Products products_of(HalfFormat format) {
  return format == HalfFormat::kFp16 ? Products::kF16 : Products::kBf16;
}

class HalfProducts : public testing::TestWithParam<HalfFormat> {};
INSTANTIATE_TEST_SUITE_P(Formats, HalfProducts, testing::Values(HalfFormat::kFp16, HalfFormat::kBf16),
                         [](const auto& format) {
                           return format.param == HalfFormat::kFp16 ? "Fp16" : "Bf16";
                         });

void expect_close(HalfFormat format, const std::function<Tensor(const Inputs&)>& half,
                  const std::function<Tensor(const Inputs&)>& full, const Inputs& inputs) {
  const Inputs got = with_gradients(half, inputs), want = with_gradients(full, inputs);
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(got[i].defined()) << "gradient " << i;
    ASSERT_TRUE(got[i].sizes().equals(want[i].sizes())) << "gradient " << i;
    const double size = want[i].norm().item<double>();
    EXPECT_GT(size, 0) << i;
    EXPECT_LE((got[i] - want[i]).norm().item<double>(), allowed(format) * size)
        << (i ? "gradient " : "value ") << i;
  }
}

Tensor mlp_f32(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down) {
  return fused_swiglu(x.matmul(gate.t()), x.matmul(up.t())).matmul(down.t());
}

TEST_P(HalfProducts, LinearIsCloseToF32) {
  expect_close(
      GetParam(), [](const auto& x) { return half_linear(GetParam(), x[0], x[1]); },
      [](const auto& x) { return x[0].matmul(x[1].t()); },
      {noise({3, 50, 70}, 0.1, 100.0), noise({45, 70}, 0.2, 0.02)});
}

TEST_P(HalfProducts, MlpIsCloseToF32ForWidthsThatFillPackedUnitsOrNot) {
  for (const int64_t F : {20, 64})
    expect_close(
        GetParam(), [](const auto& x) { return half_mlp(GetParam(), x[0], x[1], x[2], x[3]); },
        [](const auto& x) { return mlp_f32(x[0], x[1], x[2], x[3]); },
        {noise({90, 33}, 0.1), noise({F, 33}, 0.2), noise({F, 33}, 0.3), noise({33, F}, 0.4)});
}

struct MoeCase {
  int64_t T = 70, D = 24, E = 5, A = 2, M = 12;
  Tensor expert_TA = arange(0, T* A).mul(7).remainder(4).view({T, A});  // none to the last expert
  Inputs inputs = {noise({T, D}, 0.1),    noise({T, A}, 0.2),  noise({E, M, D}, 0.3), noise({E, M, D}, 0.4),
                   noise({E, D, M}, 0.5), noise({20, D}, 0.6), noise({20, D}, 0.7),   noise({D, 20}, 0.8)};
};

TEST_P(HalfProducts, ExpertsAreCloseToF32WithAndWithoutASharedOne) {
  const MoeCase c;
  expect_close(
      GetParam(),
      [&](const auto& x) {
        return half_moe(GetParam(), x[0], c.expert_TA, x[1], x[2], x[3], x[4], x[5], x[6], x[7]);
      },
      [&](const auto& x) {
        return fused_experts(x[0], c.expert_TA, x[1], x[2], x[3], x[4]) + mlp_f32(x[0], x[5], x[6], x[7]);
      },
      c.inputs);
  const Inputs routed(c.inputs.begin(), c.inputs.begin() + 5);
  expect_close(
      GetParam(),
      [&](const auto& x) { return half_experts(GetParam(), x[0], c.expert_TA, x[1], x[2], x[3], x[4]); },
      [&](const auto& x) { return fused_experts(x[0], c.expert_TA, x[1], x[2], x[3], x[4]); }, routed);
}

TEST_P(HalfProducts, InputsOfAttentionAreCloseToF32) {
  const int64_t D = 40, Q = 24, C = 16, R = 8;
  const auto joined = [](const Tensor& query, const Tensor& kv, const Tensor& rope_key) {
    return concat({query, kv, rope_key}, -1);
  };
  expect_close(
      GetParam(),
      [&](const auto& x) {
        const MlaInputs in = half_mla_inputs(GetParam(), x[0], {x[1], x[2], x[3], x[4], x[5], x[6]}, 1e-6);
        return joined(in.query, in.kv, in.rope_key);
      },
      [&](const auto& x) {
        const Tensor raw = x[0].matmul(x[4].t());
        return joined(fused_rms_norm(x[0].matmul(x[1].t()), x[2], 1e-6).matmul(x[3].t()),
                      fused_rms_norm(raw.narrow(-1, 0, C), x[5], 1e-6).matmul(x[6].t()),
                      raw.narrow(-1, C, R));
      },
      {noise({2, 75, D}, 0.1), noise({Q, D}, 0.2), noise({Q}, 0.3), noise({48, Q}, 0.4),
       noise({C + R, D}, 0.5), noise({C}, 0.6), noise({56, C}, 0.7)});
}

TEST_P(HalfProducts, HeadLossIsCloseToF32AlsoInSeveralPiecesOfRows) {
  for (const int64_t W : {int64_t{30}, int64_t{400'000}}) {  // the second leaves room for 16 rows at a time
    const int64_t T = 37, D = 3;
    std::vector<int64_t> targets;
    for (int64_t t = 0; t < T; ++t) targets.push_back(t % 5 == 4 ? -100 : t * 7919 % W);
    const Tensor target_T = from_ints(targets);
    expect_close(
        GetParam(), [&](const auto& x) { return half_head_loss(GetParam(), x[0], x[1], target_T, 29.0); },
        [&](const auto& x) { return fused_head_loss(x[0], x[1], target_T, 29.0); },
        {noise({T, D}, 0.1, 3.0), noise({W, D}, 0.2, 3.0)});
  }
}

struct AttentionCase {
  int64_t B = 2, S = 150, H = 2, N = 20, R = 8, V = 24;  // more than one chunk of queries, no full last block
  AttentionSizes sizes{H, N, R, V, 0.2};
  RopeAngles angles{noise({S, R / 2}, 0.4), noise({S, R / 2}, 0.6)};
  Inputs inputs = {noise({B, S, H*(N + R)}, 0.1), noise({B, S, H*(N + V)}, 0.2), noise({B, S, R}, 0.3)};

  Tensor run(const Inputs& x, Products products, const Tensor& documents, bool keeps_inputs = false) const {
    AttentionSizes s = sizes;
    s.products = products, s.keeps_inputs = keeps_inputs;
    return fused_attention(s, x[0], x[1], x[2], angles, documents);
  }
};

TEST_P(HalfProducts, AttentionIsCloseToF32WithAndWithoutDocuments) {
  const AttentionCase c;
  const auto starts_BS = [&](int64_t length) {
    return arange(0, c.S).div(length, "floor").mul(length).expand({c.B, c.S}).contiguous();
  };
  for (const Tensor& documents : {Tensor(), starts_BS(70), starts_BS(33), starts_BS(3)})
    expect_close(
        GetParam(), [&](const auto& x) { return c.run(x, products_of(GetParam()), documents); },
        [&](const auto& x) { return c.run(x, Products::kF32, documents); }, c.inputs);
}

TEST_P(HalfProducts, AttentionThatKeepsItsInputsHasTheSameGradientsBitForBit) {
  const AttentionCase c;
  const auto run = [&](bool keeps) {
    return with_gradients([&](const auto& x) { return c.run(x, products_of(GetParam()), Tensor(), keeps); },
                          c.inputs);
  };
  const Inputs got = run(true), want = run(false);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(got[i].equal(want[i])) << i;
}

TEST_P(HalfProducts, NumberOfThreadsDoesNotChangeABit) {
  const int before = num_threads();
  const MoeCase c;
  std::vector<Inputs> runs;
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    runs.push_back(with_gradients(
        [&](const auto& x) {
          return half_moe(GetParam(), x[0], c.expert_TA, x[1], x[2], x[3], x[4], x[5], x[6], x[7]) +
                 half_mlp(GetParam(), x[0], x[5], x[6], x[7]);
        },
        c.inputs));
    const AttentionCase attention;
    for (const Tensor& x :
         with_gradients([&](const auto& in) { return attention.run(in, products_of(GetParam()), Tensor()); },
                        attention.inputs))
      runs.back().push_back(x);
  }
  set_num_threads(before);
  for (size_t i = 0; i < runs[0].size(); ++i) EXPECT_TRUE(runs[0][i].equal(runs[1][i])) << i;
}

TEST(Products16, AreRefusedByNameWhereTheyWouldBeSlow) {
  EXPECT_EQ(products_named("bf16"), Products::kBf16);
  if (half_is_fast(HalfFormat::kFp16)) {
    EXPECT_EQ(products_named("f16"), Products::kF16);
  } else {
    EXPECT_THROW(products_named("f16"), Error);
  }
}

}  // namespace
}  // namespace hadal
