// The kernels between the matrix products, of every instruction set that runs here, against double; and that
// masked columns change no bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "hadal/kernels/infer_cases.h"

namespace hadal {
namespace {

void for_each_length(const std::function<void(const InferKernels&, int64_t)>& body) {
  for (int i = 0; i < num_infer_kernels(); ++i) {
    SCOPED_TRACE(infer_kernels_at(i).isa);
    for (int64_t n = 1; n <= 70; n += n < 36 ? 1 : 5) body(infer_kernels_at(i), n);
  }
}

std::vector<float> numbers(int64_t n, uint64_t stream, float spread = 1) {
  std::vector<float> x(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) x[static_cast<size_t>(i)] = spread * drawn(stream, i);
  return x;
}

// n floats that end where memory ends.
EdgeBytes edge(const std::vector<float>& x) {
  return EdgeBytes(static_cast<int64_t>(x.size()) * 4);
}
void copy(const std::vector<float>& x, const EdgeBytes& to) {
  std::memcpy(to.data(), x.data(), x.size() * 4);
}

constexpr double kUlps = 4e-7;  // exp to 2 ulp and two or three roundings

TEST(InferRows, WeightedRowsEqualTheFormulaAndContinueWhatIsThere) {
  for_each_length([](const InferKernels& kernels, int64_t C) {
    for (const int64_t M : {1, 2, 5, 6, 13}) {
      constexpr int64_t L = 9, kFirst = 4;
      const std::vector<float> p = numbers(M * (L + 1), 1), v = numbers(L * (C + 2), 2);
      const EdgeBytes p_edge = edge(p), v_edge = edge(v), y(M * C * 4);
      copy(p, p_edge);
      copy(v, v_edge);
      const float* last = v_edge.floats() + 2;  // row L - 1 ends where memory ends
      kernels.weighted_rows(p_edge.floats(), L + 1, last, C + 2, M, L, C, y.floats(), C, false);
      std::vector<float> parts(static_cast<size_t>(M * C));
      kernels.weighted_rows(p.data(), L + 1, v.data() + 2, C + 2, M, kFirst, C, parts.data(), C, false);
      kernels.weighted_rows(p.data() + kFirst, L + 1, v.data() + 2 + kFirst * (C + 2), C + 2, M, L - kFirst,
                            C, parts.data(), C, true);
      EXPECT_EQ(0, std::memcmp(parts.data(), y.data(), parts.size() * 4)) << "pieces of l change bits";
      for (int64_t m = 0; m < M; ++m) {
        std::vector<float> alone(static_cast<size_t>(C));
        kernels.weighted_rows(p.data() + m * (L + 1), L + 1, v.data() + 2, C + 2, 1, L, C, alone.data(), C,
                              false);
        EXPECT_EQ(0, std::memcmp(alone.data(), y.floats() + m * C, alone.size() * 4)) << "M changes bits";
        for (int64_t c = 0; c < C; ++c) {
          double want = 0;
          for (int64_t l = 0; l < L; ++l)
            want += static_cast<double>(p[static_cast<size_t>(m * (L + 1) + l)]) *
                    v[static_cast<size_t>(l * (C + 2) + 2 + c)];
          ASSERT_NEAR(y.floats()[m * C + c], want, 1e-5);  // nine products of up to 4
        }
      }
      EXPECT_TRUE(y.guards_hold());
    }
  });
}

TEST(InferRows, SoftmaxEqualsTheFormulaAndIsZeroBeyondTheVisible) {
  for_each_length([](const InferKernels& kernels, int64_t L) {
    const std::vector<float> raw = numbers(2 * L, 3, 20);
    const int64_t visible[] = {L, (L + 1) / 2};
    const float scale = 0.7f;
    float max[2], sum[2];
    const EdgeBytes score = edge(raw);
    copy(raw, score);
    kernels.softmax_rows(score.floats(), L, visible, scale, 2, L, max, sum);
    for (int64_t m = 0; m < 2; ++m) {
      double top = -1e30, total = 0;
      for (int64_t l = 0; l < visible[m]; ++l)
        top = std::max(top, static_cast<double>(raw[static_cast<size_t>(m * L + l)] * scale));
      EXPECT_EQ(max[m], static_cast<float>(top));
      for (int64_t l = 0; l < L; ++l) {
        const double want =
            l < visible[m] ? std::exp(static_cast<double>(raw[static_cast<size_t>(m * L + l)] * scale) - top)
                           : 0;
        total += want;
        // The argument is rounded to 2^-24 of up to 56.
        ASSERT_NEAR(score.floats()[m * L + l], want, 4e-6 * want + 1e-37);
      }
      ASSERT_NEAR(sum[m], total, 4e-6 * total);
    }
    EXPECT_TRUE(score.guards_hold());
  });
}

TEST(InferRows, MaskedColumnsChangeNoBitOfASoftmax) {
  for_each_length([](const InferKernels& kernels, int64_t visible) {
    std::vector<float> exact = numbers(visible, 3, 20);
    float max, sum;
    kernels.softmax_rows(exact.data(), visible, &visible, 0.3f, 1, visible, &max, &sum);
    for (const int64_t beyond : {1, 7, 16, 50}) {
      const int64_t L = visible + beyond;
      std::vector<float> longer = numbers(L, 3, 20);
      for (int64_t l = visible; l < L; ++l) longer[static_cast<size_t>(l)] = l % 2 ? 1e30f : NAN;
      float max2, sum2;
      kernels.softmax_rows(longer.data(), L, &visible, 0.3f, 1, L, &max2, &sum2);
      EXPECT_EQ(max, max2);
      EXPECT_EQ(sum, sum2);
      EXPECT_EQ(0, std::memcmp(exact.data(), longer.data(), exact.size() * 4));
      for (int64_t l = visible; l < L; ++l) EXPECT_EQ(longer[static_cast<size_t>(l)], 0);
    }
  });
}

TEST(InferRows, ExpIsWithinTwoUlps) {
  for (int i = 0; i < num_infer_kernels(); ++i) {
    const InferKernels& kernels = infer_kernels_at(i);
    constexpr int64_t L = 40000;
    std::vector<float> score(L);
    for (int64_t l = 0; l < L; ++l) score[static_cast<size_t>(l)] = -static_cast<float>(l) / L * 86.9f;
    const std::vector<float> x = score;
    float max, sum;
    const int64_t visible = L;
    kernels.softmax_rows(score.data(), L, &visible, 1, 1, L, &max, &sum);
    EXPECT_EQ(score[0], 1.0f);
    double worst = 0;
    for (int64_t l = 0; l < L; ++l) {
      const double want = std::exp(static_cast<double>(x[static_cast<size_t>(l)]));
      const float f = static_cast<float>(want);
      worst = std::max(worst, std::abs(score[static_cast<size_t>(l)] - want) / (std::nextafter(f, 2.0f) - f));
    }
    EXPECT_LT(worst, 2) << kernels.isa;
  }
}

TEST(InferRows, LargestAndExponentialsAreTheSamplersSoftmax) {
  for_each_length([](const InferKernels& kernels, int64_t n) {
    std::vector<float> x = numbers(n, 3, 20);
    const float infinity = std::numeric_limits<float>::infinity(), scale = 1.5f;
    if (n > 2) x[static_cast<size_t>(n - 1)] = -infinity;
    const EdgeBytes from = edge(x), to = edge(x);
    copy(x, from);
    const float largest = kernels.largest(from.floats(), n);
    EXPECT_EQ(largest, *std::max_element(x.begin(), x.end()));
    const float sum = kernels.exponentials(from.floats(), largest, scale, to.floats(), n);
    double total = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double want = std::exp(scale * static_cast<double>(x[static_cast<size_t>(i)] - largest));
      EXPECT_NEAR(to.floats()[i], want, 4e-6 * want + 2e-38);
      total += want;
    }
    EXPECT_NEAR(sum, total, 4e-6 * total);
    for (const int64_t at : {int64_t{0}, n / 2, n - 1}) {
      copy(x, from);
      from.floats()[at] = infinity;
      EXPECT_EQ(kernels.largest(from.floats(), n), infinity);
      from.floats()[at] = at % 2 ? NAN : -NAN;
      EXPECT_TRUE(std::isnan(kernels.largest(from.floats(), n))) << at;
    }
    x.assign(x.size(), -infinity);
    EXPECT_EQ(kernels.largest(x.data(), n), -infinity);
  });
}

TEST(InferRows, MergedSplitsEqualOneSoftmaxAndKeepTheirBitsAlone) {
  for_each_length([](const InferKernels& kernels, int64_t C) {
    constexpr int64_t M = 3;
    const std::vector<float> max = numbers(M, 1, 5), next_max = numbers(M, 2, 5);
    const std::vector<float> sum(M, 1.5f), next_sum(M, 2.5f), out = numbers(M * C, 5),
                                                              next = numbers(M * C, 6);
    std::vector<float> max2 = max, sum2 = sum;
    const EdgeBytes out2 = edge(out);
    copy(out, out2);
    kernels.merge_splits(max2.data(), sum2.data(), out2.floats(), C, next_max.data(), next_sum.data(),
                         next.data(), C, M, C);
    for (size_t m = 0; m < M; ++m) {
      const double top = std::max(max[m], next_max[m]);
      const double a = std::exp(max[m] - top), b = std::exp(next_max[m] - top);
      EXPECT_EQ(max2[m], static_cast<float>(top));
      EXPECT_NEAR(sum2[m], 1.5 * a + 2.5 * b, 4 * 2e-6);
      float max1 = max[m], sum1 = sum[m];
      std::vector<float> alone(out.begin() + static_cast<int64_t>(m) * C,
                               out.begin() + static_cast<int64_t>(m + 1) * C);
      kernels.merge_splits(&max1, &sum1, alone.data(), C, &next_max[m], &next_sum[m],
                           next.data() + static_cast<int64_t>(m) * C, C, 1, C);
      EXPECT_EQ(sum1, sum2[m]);
      for (size_t c = 0; c < static_cast<size_t>(C); ++c) {
        const size_t at = m * static_cast<size_t>(C) + c;
        EXPECT_EQ(alone[c], out2.floats()[at]);
        ASSERT_NEAR(out2.floats()[at], out[at] * a + next[at] * b, 4 * 2e-6);
      }
    }
    EXPECT_TRUE(out2.guards_hold());
  });
}

TEST(InferRows, RmsNormSwigluAndAddScaledEqualTheFormulas) {
  for_each_length([](const InferKernels& kernels, int64_t n) {
    const std::vector<float> x = numbers(2 * (n + 1), 1), gain = numbers(n, 2), up = numbers(n, 4);
    const std::vector<float> gate = numbers(n, 3, 10);
    const EdgeBytes gain_edge = edge(gain), gate_edge = edge(gate), up_edge = edge(up), y(2 * n * 4),
                    z(n * 4);
    copy(gain, gain_edge);
    copy(gate, gate_edge);
    copy(up, up_edge);
    kernels.rms_norm(x.data(), n + 1, gain_edge.floats(), y.floats(), n, 2, n, 1e-3f);
    kernels.swiglu(gate_edge.floats(), up_edge.floats(), z.floats(), n);
    for (size_t m = 0; m < 2; ++m) {
      const float* row = x.data() + m * static_cast<size_t>(n + 1);
      double squares = 0;
      for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(row[i]) * row[i];
      const double s = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-3f);
      for (int64_t i = 0; i < n; ++i) {
        const double want = row[i] * s * gain[static_cast<size_t>(i)];
        ASSERT_NEAR(y.floats()[static_cast<int64_t>(m) * n + i], want, 5 * kUlps * std::abs(want));
      }
    }
    for (int64_t i = 0; i < n; ++i) {
      const size_t at = static_cast<size_t>(i);
      const double want = gate[at] / (1 + std::exp(-static_cast<double>(gate[at]))) * up[at];
      ASSERT_NEAR(z.floats()[i], want, 2 * kUlps * std::abs(want));
    }
    kernels.add_scaled(gate_edge.floats(), 0.5f, up_edge.floats(), n);
    for (int64_t i = 0; i < n; ++i) {
      const size_t at = static_cast<size_t>(i);
      ASSERT_NEAR(up_edge.floats()[i], up[at] + 0.5 * gate[at], 1e-6);
    }
    EXPECT_TRUE(y.guards_hold() && z.guards_hold() && up_edge.guards_hold());
  });
}

TEST(InferRows, SwigluIsFiniteForHugeInputs) {
  for (int i = 0; i < num_infer_kernels(); ++i) {
    const float gate[] = {-3e38f, -200, -88, 88, 200, 3e30f}, up[] = {1, 1, 1, 1, 1, 1};
    float y[6];
    infer_kernels_at(i).swiglu(gate, up, y, 6);
    EXPECT_NEAR(y[1], 0, 1e-30) << infer_kernels_at(i).isa;
    EXPECT_FLOAT_EQ(y[4], 200);
    for (const float value : y) EXPECT_TRUE(std::isfinite(value)) << infer_kernels_at(i).isa;
  }
}

}  // namespace
}  // namespace hadal
