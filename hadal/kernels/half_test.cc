// The 16-bit kernels of this machine against the scalar oracle, and that against plain arithmetic.
#include "hadal/kernels/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "hadal/base/random.h"

namespace hadal {
namespace {

std::vector<float> noise(int64_t n, uint64_t stream, double spread = 1.0) {
  std::vector<float> x(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i)
    x[static_cast<size_t>(i)] = static_cast<float>(spread * normal(5, stream, static_cast<uint64_t>(i)));
  return x;
}

class HalfKernelsOf : public testing::TestWithParam<HalfFormat> {
 protected:
  const HalfKernels& kernels() const { return half_kernels(GetParam()); }
  const HalfKernels& oracle() const { return scalar_half_kernels(GetParam()); }
  std::vector<uint16_t> rounded(const std::vector<float>& x, float scale = 1) const {
    std::vector<uint16_t> y(x.size());
    oracle().round(x.data(), scale, y.data(), static_cast<int64_t>(x.size()));
    return y;
  }
};
INSTANTIATE_TEST_SUITE_P(Formats, HalfKernelsOf, testing::Values(HalfFormat::kFp16, HalfFormat::kBf16),
                         [](const auto& format) {
                           return format.param == HalfFormat::kFp16 ? "Fp16" : "Bf16";
                         });

struct RoundedTo {
  HalfFormat format;
  std::vector<float> x;
  std::vector<uint16_t> want;
};

TEST(HalfKernels, RoundingIsToTheNearestAlsoOfSubnormals) {
  for (const RoundedTo& r :
       {RoundedTo{HalfFormat::kFp16,
                  {1.0f, 2049.0f, 2051.0f, 1e-7f, -3e-8f, 65504.0f, 65519.0f, 65520.0f, 0.1f, 6.1e-5f},
                  {0x3C00, 0x6800, 0x6802, 2, 0x8001, 0x7BFF, 0x7BFF, 0x7C00, 0x2E66, 0x03FF}},
        RoundedTo{HalfFormat::kBf16,  // 257 and 259 lie between two; subnormal numbers become 0
                  {1.0f, 257.0f, 259.0f, -0.1f, 3.3961775e38f, 1e-40f, -1e-40f},
                  {0x3F80, 0x4380, 0x4382, 0xBDCD, 0x7F80, 0, 0x8000}}})
    for (const HalfKernels* k : {&half_kernels(r.format), &scalar_half_kernels(r.format)}) {
      std::vector<uint16_t> got(r.x.size());
      k->round(r.x.data(), 1, got.data(), static_cast<int64_t>(r.x.size()));
      EXPECT_EQ(got, r.want) << k->isa;
    }
}

TEST_P(HalfKernelsOf, RoundingEqualsTheOracleForEveryLength) {
  for (int64_t n = 1; n < 100; n += 7) {
    const std::vector<float> x = noise(n, 1, 1e-3);
    std::vector<uint16_t> got(static_cast<size_t>(n) + 1, 0xABCD);
    kernels().round(x.data(), 64, got.data(), n);
    EXPECT_EQ(got.back(), 0xABCD);
    got.pop_back();
    EXPECT_EQ(got, rounded(x, 64));
    EXPECT_EQ(kernels().max_abs(x.data(), n), oracle().max_abs(x.data(), n));
  }
}

TEST_P(HalfKernelsOf, PackingEqualsTheOracle) {
  for (const int64_t N : {1, 16, 17, 33, 80, 128})
    for (const int64_t K : {1, 2, 15, 16, 48, 69, 70}) {
      const std::vector<float> x = noise(N * K, 2);
      const auto size = static_cast<size_t>((N + 31) / 32 * 32 * K);
      std::vector<uint16_t> got(size, 0xABCD), want(size);
      kernels().pack_transposed(x.data(), 2, got.data(), N, K);
      oracle().pack_transposed(x.data(), 2, want.data(), N, K);
      EXPECT_EQ(got, want) << N << " x " << K;
      std::vector<uint16_t> again(size, 0xABCD);
      kernels().pack_rows(rounded(x, 2).data(), K, again.data(), N, K);
      EXPECT_EQ(again, want) << N << " x " << K << " of rounded rows";
    }
}

struct Case {
  int64_t M, N, K;
};
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int64_t M : {1, 7, 8, 19})
    for (const int64_t N : {1, 20, 32, 90, 96, 128, 180})
      for (const int64_t K : {1, 127, 128, 129, 300}) all.push_back({M, N, K});
  return all;
}

// fp16 sums of up to 128 products of normal numbers: each addition rounds to 2^-11 of the sum so far. bf16's
// are fp32 sums in another order.
double tolerance(HalfFormat format, int64_t K) {
  if (format == HalfFormat::kBf16) return 8 * 0x1p-24 * static_cast<double>(K);
  return 4 * 0x1p-11 * std::sqrt(static_cast<double>(kHalfChunk * K));
}

TEST_P(HalfKernelsOf, ProductEqualsTheOracleOnEveryShapeAndLayoutAndWritesNothingElse) {
  for (const Case& s : cases())
    for (const bool transposed : {false, true}) {  // a column by column, b packed
      const std::vector<uint16_t> a = rounded(noise(s.M * s.K, 3)), b = rounded(noise(s.N * s.K, 4));
      const int64_t c_row = s.N + 3;
      std::vector<float> got = noise(s.M * c_row, 5), want = got;
      std::vector<uint16_t> packed(static_cast<size_t>((s.N + 31) / 32 * 32 * s.K));
      oracle().pack_transposed(noise(s.N * s.K, 4).data(), 1, packed.data(), s.N, s.K);
      HalfProduct p{.M = s.M,
                    .N = s.N,
                    .K = s.K,
                    .a = a.data(),
                    .a_row = s.K,
                    .a_k = 1,
                    .b = b.data(),
                    .b_unit = 32,
                    .b_k = s.N,
                    .c = got.data(),
                    .c_row = c_row,
                    .alpha = 0.5f,
                    .add = transposed};
      if (transposed) p.a_row = 1, p.a_k = s.M, p.b = packed.data(), p.b_unit = 32 * s.K, p.b_k = 32;
      kernels().multiply(p);
      p.c = want.data();
      oracle().multiply(p);
      for (int64_t i = 0; i < s.M; ++i)
        for (int64_t j = 0; j < c_row; ++j) {
          const auto at = static_cast<size_t>(i * c_row + j);
          ASSERT_NEAR(got[at], want[at], j < s.N ? tolerance(GetParam(), s.K) : 0.0)
              << s.M << " x " << s.N << " x " << s.K << " at " << i << ", " << j << " packed " << transposed;
        }
    }
}

TEST_P(HalfKernelsOf, TheLargestValuesAllowedDoNotOverflow) {
  const int64_t K = 3 * kHalfChunk;
  const std::vector<uint16_t> a = rounded(std::vector<float>(static_cast<size_t>(K * 32), kHalfLimit));
  std::vector<float> c(32 * 32);
  kernels().multiply({.M = 32,
                      .N = 32,
                      .K = K,
                      .a = a.data(),
                      .a_row = K,
                      .a_k = 1,
                      .b = a.data(),
                      .b_unit = 32,
                      .b_k = 32,
                      .c = c.data(),
                      .c_row = 32,
                      .alpha = 1,
                      .add = false});
  for (const float x : c) EXPECT_EQ(x, static_cast<float>(K) * kHalfLimit * kHalfLimit);
}

TEST(HalfKernels, ScaleBringsValuesBelowTheLimitByAPowerOfTwo) {
  for (const float x : {1.0f, 15.9f, 16.0f, 1e-20f, 3e30f}) {
    EXPECT_LE(x * half_scale(x), kHalfLimit) << x;
    EXPECT_GE(x * half_scale(x), kHalfLimit / 2) << x;
  }
  EXPECT_EQ(half_scale(0), 1);
  EXPECT_EQ(half_scale(INFINITY), 1);
  EXPECT_EQ(half_scale(NAN), 1);
  EXPECT_TRUE(std::isfinite(1 / half_scale(1e-40f)));
}

TEST_P(HalfKernelsOf, SwigluAndItsBackwardEqualTheOracle) {
  const int64_t rows = 3;
  for (const int64_t M : {1, 16, 23, 64}) {
    const std::vector<float> gate_up = noise(rows * 2 * M, 6, 3.0), dhidden = noise(rows * M, 7),
                             weight = noise(rows, 8);
    struct Result {
      std::vector<float> hidden, again, dgate_up, dweight;
      float top, top_d, top_h;
    };
    const auto run = [&](const HalfKernels& k, bool weighted) {
      Result r{.hidden = noise(rows * M, 9),
               .again = noise(rows * M, 9),
               .dgate_up = noise(rows * 2 * M, 9),
               .dweight = std::vector<float>(rows)};
      r.top = k.swiglu(gate_up.data(), r.hidden.data(), rows, M);
      HalfKernels::SwigluBackward x{.gate_up = gate_up.data(),
                                    .dhidden = dhidden.data(),
                                    .weight = weighted ? weight.data() : nullptr,
                                    .dgate_up = r.dgate_up.data(),
                                    .hidden = r.again.data(),
                                    .dweight = weighted ? r.dweight.data() : nullptr};
      k.swiglu_backward(x, rows, M);
      r.top_d = x.max_dgate_up, r.top_h = x.max_hidden;
      return r;
    };
    for (const bool weighted : {false, true}) {
      const Result got = run(kernels(), weighted), want = run(oracle(), weighted);
      const auto close = [&](const std::vector<float>& a, const std::vector<float>& b) {
        for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5 * (1 + std::abs(b[i]))) << M;
      };
      close(got.hidden, want.hidden), close(got.again, want.again), close(got.dgate_up, want.dgate_up);
      close(got.dweight, want.dweight);
      close({got.top, got.top_d, got.top_h}, {want.top, want.top_d, want.top_h});
    }
  }
}

TEST_P(HalfKernelsOf, CrossEntropyEqualsTheOracle) {
  for (const int64_t W : {1, 16, 37, 96}) {
    const std::vector<int64_t> target = {W - 1, -1, 0};
    std::vector<float> a = noise(3 * W, 10, 4.0), b = a, loss_a(3), loss_b(3);
    std::vector<uint16_t> da(static_cast<size_t>(3 * W)), db(da.size());
    kernels().cross_entropy(a.data(), target.data(), loss_a.data(), da.data(), W, 8, 3, W);
    oracle().cross_entropy(b.data(), target.data(), loss_b.data(), db.data(), W, 8, 3, W);
    for (size_t r = 0; r < 3; ++r) EXPECT_NEAR(loss_a[r], loss_b[r], 1e-5);
    for (size_t i = 0; i < da.size(); ++i) EXPECT_LE(std::abs(da[i] - db[i]), 1) << i;  // one step
  }
}

// Values a step apart: exp differs by an ulp of fp32, and with it the rounding.
void expect_steps(const std::vector<uint16_t>& a, const std::vector<uint16_t>& b, const std::string& what) {
  for (size_t i = 0; i < a.size(); ++i)
    EXPECT_LE(std::abs((a[i] & 0x7FFF) - (b[i] & 0x7FFF)), 2) << what << " " << i;
}

TEST_P(HalfKernelsOf, AttentionEqualsTheOracleAndRowsGiveZeroToWhatTheyDoNotSee) {
  const int64_t rows = 5;
  const std::vector<int64_t> documents = {0, 3, 3, 17, 20};
  for (const int64_t L : {5, 16, 23, 37, 70})
    for (const int64_t* first : {static_cast<const int64_t*>(nullptr), documents.data()}) {
      if (first && L < 23) continue;  // each row sees itself at least
      const std::vector<float> score = noise(rows * L, 11, 4.0), dprob = noise(rows * L, 12),
                               delta = noise(rows, 13);
      const HalfKernels::Attention x{score.data(), L, first, L - rows + 1, 0.3f};
      const auto size = static_cast<size_t>(rows * L);
      struct Result {
        std::vector<uint16_t> prob, again, dscore;
        std::vector<float> inverse, lse;
      };
      const auto run = [&](const HalfKernels& k) {
        Result r{.prob = std::vector<uint16_t>(size, 0xABCD),
                 .again = std::vector<uint16_t>(size, 0xABCD),
                 .dscore = std::vector<uint16_t>(size, 0xABCD),
                 .inverse = std::vector<float>(rows),
                 .lse = std::vector<float>(rows)};
        k.attention_exp(x, r.prob.data(), r.inverse.data(), r.lse.data(), rows);
        k.attention_backward(
            x, {dprob.data(), r.lse.data(), delta.data(), 2.0f, r.again.data(), r.dscore.data(), L}, rows);
        return r;
      };
      const Result got = run(kernels()), want = run(oracle());
      expect_steps(got.prob, want.prob, "prob");
      expect_steps(got.again, want.again, "prob again");
      expect_steps(got.dscore, want.dscore, "dscore");
      for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
        EXPECT_NEAR(got.lse[r], want.lse[r], 1e-5);
        EXPECT_NEAR(got.inverse[r], want.inverse[r], 1e-5 * want.inverse[r]);
        const int64_t begin = first ? first[r] : 0, end = L - rows + 1 + static_cast<int64_t>(r);
        for (int64_t l = 0; l < L; ++l)
          if (l < begin || l >= end) {
            const size_t at = r * static_cast<size_t>(L) + static_cast<size_t>(l);
            EXPECT_EQ((got.prob[at] | got.again[at] | got.dscore[at]) & 0x7FFF, 0)
                << L << " row " << r << " " << l;
          }
      }
    }
}

}  // namespace
}  // namespace hadal
