// Each fused operation against its slow reference: values, and gradients through the same autograd.
#include "hadal/ops/fused.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hadal/error.h"
#include "hadal/ops/cross_entropy.h"
#include "hadal/ops/rms_norm.h"
#include "hadal/ops/rope.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

Tensor wave(at::IntArrayRef shape, double from, double size = 1.0) {
  const int64_t n = c10::multiply_integers(shape);
  return ((arange(0, n).to(at::kDouble) * 0.7 + from * 13).sin() * size).to(at::kFloat).view(shape);
}

// Runs f on fresh leaves of the inputs, back-propagates weights of the result, returns value and gradients.
std::vector<Tensor> with_gradients(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                                   const std::vector<Tensor>& inputs) {
  std::vector<Tensor> leaves;
  for (const Tensor& x : inputs) leaves.push_back(x.clone().requires_grad_(true));
  const Tensor y = f(leaves);
  (y * wave(y.sizes(), 0.9)).sum().backward();
  std::vector<Tensor> all{y.detach()};
  for (const Tensor& leaf : leaves) all.push_back(leaf.grad());
  return all;
}

void expect_same(const std::function<Tensor(const std::vector<Tensor>&)>& fused,
                 const std::function<Tensor(const std::vector<Tensor>&)>& reference,
                 const std::vector<Tensor>& inputs, double tolerance) {
  const auto got = with_gradients(fused, inputs), want = with_gradients(reference, inputs);
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(got[i].defined()) << "gradient " << i;
    ASSERT_TRUE(got[i].sizes().equals(want[i].sizes())) << "gradient " << i;
    const double scale = 1 + want[i].abs().max().item<double>();
    EXPECT_LE((got[i] - want[i]).abs().max().item<double>(), tolerance * scale)
        << (i ? "gradient " : "value ") << i;
  }
}

constexpr double kFp32 =
    3e-6;  // relative to the largest value: sums of some hundred fp32 terms in another order

TEST(Fused, RmsNormEqualsItsReference) {
  expect_same([](const auto& x) { return fused_rms_norm(x[0], x[1], 1e-6); },
              [](const auto& x) { return rms_norm_reference(x[0], x[1], 1e-6); },
              {wave({3, 150, 20}, 0.1), wave({20}, 0.2)}, kFp32);
}

TEST(Fused, AddRmsNormEqualsTheTwoOneAfterTheOther) {
  for (const bool both : {false, true})  // whether a gradient reaches the sum itself
    expect_same(
        [&](const auto& x) {
          const SumAndNorm y = fused_add_rms_norm(x[0], x[1], x[2], 1e-6);
          return both ? y.normed + y.sum * 0.3 : y.normed;
        },
        [&](const auto& x) {
          const Tensor sum = x[0] + x[1], normed = rms_norm_reference(sum, x[2], 1e-6);
          return both ? normed + sum * 0.3 : normed;
        },
        {wave({3, 150, 20}, 0.1), wave({3, 150, 20}, 0.5), wave({20}, 0.2)}, kFp32);
}

TEST(Fused, SwigluEqualsItsReference) {
  expect_same([](const auto& x) { return fused_swiglu(x[0], x[1]); },
              [](const auto& x) { return silu(x[0]) * x[1]; },
              {wave({40, 70}, 0.1, 5.0), wave({40, 70}, 0.2)}, kFp32);
}

// The definition with all scores at once.
Tensor attention_reference(const AttentionSizes& s, const Tensor& query, const Tensor& kv,
                           const Tensor& rope_key, const RopeAngles& angles) {
  const int64_t S = query.size(1);
  const Tensor q = query.unflatten(-1, {s.H, s.N + s.R}), kv_heads = kv.unflatten(-1, {s.H, s.N + s.V});
  const Tensor turned = rope(q.narrow(-1, s.N, s.R), angles);
  const Tensor q_BHSK = concat({q.narrow(-1, 0, s.N), turned}, -1).transpose(1, 2);
  const Tensor key_rope = rope(rope_key, angles).unsqueeze(2).expand({-1, -1, s.H, -1});
  const Tensor k_BHSK = concat({kv_heads.narrow(-1, 0, s.N), key_rope}, -1).transpose(1, 2);
  Tensor score = q_BHSK.matmul(k_BHSK.transpose(2, 3)) * s.scale;
  score = score.masked_fill(arange(0, S).gt(arange(0, S).unsqueeze(1)), -INFINITY);
  return score.softmax(-1).matmul(kv_heads.narrow(-1, s.N, s.V).transpose(1, 2)).transpose(1, 2).flatten(-2);
}

TEST(Fused, AttentionEqualsItsReferenceWithinAndAcrossBlocksOfQueries) {
  const AttentionSizes sizes{.H = 2, .N = 6, .R = 4, .V = 5, .scale = 0.5};
  for (const int64_t S : {1, 7, 128, 300}) {
    const RopeAngles angles = rope_angles({.rope_dim = 4}, arange(0, S));
    expect_same([&](const auto& x) { return fused_attention(sizes, x[0], x[1], x[2], angles, {}); },
                [&](const auto& x) { return attention_reference(sizes, x[0], x[1], x[2], angles); },
                {wave({2, S, 20}, 0.1), wave({2, S, 22}, 0.2), wave({2, S, 4}, 0.3)}, 2 * kFp32);
  }
}

TEST(Fused, AttentionOfPackedDocumentsEqualsEachAlone) {
  const AttentionSizes sizes{.H = 2, .N = 6, .R = 4, .V = 5, .scale = 0.5};
  const int64_t S = 140, cut = 133;  // the second document lies in the second block of queries
  const RopeAngles angles = rope_angles({.rope_dim = 4}, arange(0, S));
  Tensor start_BS = zeros({1, S}, at::kLong);
  start_BS.narrow(1, cut, S - cut).fill_(cut);
  const auto part = [&](const std::vector<Tensor>& x, int64_t first, int64_t n) {
    const RopeAngles own{angles.cos_SX.narrow(0, first, n), angles.sin_SX.narrow(0, first, n)};
    return attention_reference(sizes, x[0].narrow(1, first, n), x[1].narrow(1, first, n),
                               x[2].narrow(1, first, n), own);
  };
  expect_same([&](const auto& x) { return fused_attention(sizes, x[0], x[1], x[2], angles, start_BS); },
              [&](const auto& x) {
                return concat({part(x, 0, cut), part(x, cut, S - cut)}, 1);
              },
              {wave({1, S, 20}, 0.1), wave({1, S, 22}, 0.2), wave({1, S, 4}, 0.3)}, 2 * kFp32);
}

TEST(Fused, HeadLossEqualsItsReferenceAlsoInSeveralPiecesOfRows) {
  for (const int64_t W : {int64_t{30}, int64_t{400'000}}) {  // the second leaves room for 16 rows at a time
    const int64_t T = 37, D = 3;
    std::vector<int64_t> targets;
    for (int64_t t = 0; t < T; ++t) targets.push_back(t % 5 == 4 ? -100 : t * 7919 % W);
    const Tensor target_T = from_ints(targets);
    expect_same(
        [&](const auto& x) { return fused_head_loss(x[0], x[1], target_T, 29.0) * 0.3; },
        [&](const auto& x) { return cross_entropy(x[0].matmul(x[1].t()), target_T).sum() / 29.0 * 0.3; },
        {wave({T, D}, 0.1, 3.0), wave({W, D}, 0.2, 3.0)},
        W > 1000 ? 5 * kFp32 : kFp32);  // hidden's gradient sums W terms
  }
}

TEST(Fused, HeadLossWithoutGradientsGivesTheSameNumber) {
  const Tensor hidden = wave({9, 4}, 0.1), head = wave({20, 4}, 0.2), target = arange(0, 9);
  const double with = fused_head_loss(hidden.clone().requires_grad_(true), head, target, 9).item<double>();
  NoGrad no_grad;
  EXPECT_EQ(fused_head_loss(hidden, head, target, 9).item<double>(), with);
}

TEST(Fused, TokenLogpsEqualTheirReferenceAlsoInSeveralPiecesOfRows) {
  for (const int64_t W : {int64_t{30}, int64_t{400'000}}) {
    const int64_t T = 37, D = 3;
    std::vector<int64_t> targets;
    for (int64_t t = 0; t < T; ++t) targets.push_back(t * 7919 % W);
    const Tensor target_T = from_ints(targets), slope_T = wave({T}, 0.7), entropy_slope_T = wave({T}, 0.4);
    const auto sum = [&](const TokenLogps& out) {
      return (out.logp_T * slope_T + out.entropy_T * entropy_slope_T).sum();
    };
    expect_same([&](const auto& x) { return sum(fused_token_logps(x[0], x[1], target_T, 0.7)); },
                [&](const auto& x) {
                  const PlainOperations plain;
                  return sum(fused_token_logps(x[0], x[1], target_T, 0.7));
                },
                {wave({T, D}, 0.1, 3.0), wave({W, D}, 0.2, 3.0)}, W > 1000 ? 60 * kFp32 : 4 * kFp32);
  }
}

TEST(Fused, HeadLossRefusesATargetOutsideTheVocabulary) {
  EXPECT_THROW(
      fused_head_loss(wave({2, 4}, 0.1), wave({20, 4}, 0.2), from_ints(std::vector<int64_t>{3, 20}), 2),
      Error);
}

TEST(Fused, NumberOfThreadsDoesNotChangeABit) {
  const int before = num_threads();
  std::vector<std::vector<Tensor>> runs;
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    runs.push_back(
        with_gradients([](const auto& x) { return fused_rms_norm(fused_swiglu(x[0], x[1]), x[2], 1e-6); },
                       {wave({700, 64}, 0.1), wave({700, 64}, 0.2), wave({64}, 0.3)}));
  }
  set_num_threads(before);
  for (size_t i = 0; i < runs[0].size(); ++i) EXPECT_TRUE(runs[0][i].equal(runs[1][i])) << i;
}

}  // namespace
}  // namespace hadal
