#include "hadal/checkpoint/group_codes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "hadal/base/number_formats.h"

namespace hadal {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::kInt8, WeightFormat::kInt4};

struct Coded {
  std::vector<uint8_t> code;
  std::vector<uint16_t> scale;
};

Coded quantise(WeightFormat format, const std::vector<float>& x, int64_t rows, int64_t K) {
  Coded c{std::vector<uint8_t>(static_cast<size_t>(rows * row_bytes(format, K))),
          std::vector<uint16_t>(static_cast<size_t>(rows * row_groups(format, K)))};
  quantise_groups(format, x.data(), rows, K, c.code.data(), c.scale.data());
  return c;
}

std::vector<float> decode(WeightFormat format, const Coded& c, int64_t rows, int64_t K) {
  std::vector<float> out(static_cast<size_t>(rows * K));
  dequantise_groups(format, c.code.data(), c.scale.data(), rows, K, out.data());
  return out;
}

// Roughly normal: a sum of four uniform numbers, standard deviation 1.
std::vector<float> bell(int64_t n, uint64_t seed) {
  std::vector<float> x(static_cast<size_t>(n));
  uint64_t state = seed;
  for (float& v : x) {
    double sum = 0;
    for (int i = 0; i < 4; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      sum += static_cast<double>(state >> 40) / 0x1p24 - 0.5;
    }
    v = static_cast<float>(sum * std::sqrt(3.0));
  }
  return x;
}

double squared_error(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i)
    sum += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
  return sum;
}

TEST(GroupCodes, Int8IsWithinHalfAStepOfItsGroup) {
  for (const int64_t K : {96, 128, 1408, 10944}) {
    const int64_t rows = 3;
    const std::vector<float> x = bell(rows * K, 7);
    const Coded c = quantise(WeightFormat::kInt8, x, rows, K);
    const std::vector<float> y = decode(WeightFormat::kInt8, c, rows, K);
    for (int64_t i = 0; i < rows * K; ++i) {
      const int64_t group = i / K * row_groups(WeightFormat::kInt8, K) + i % K / kInt8Group;
      const float step = bf16_to_f32(c.scale[static_cast<size_t>(group)]);
      // The scale was rounded by up to 1/512, so the extreme 127 may lie at 127.25 steps; one ulp for the
      // division.
      ASSERT_LE(std::fabs(x[static_cast<size_t>(i)] - y[static_cast<size_t>(i)]), 0.5001f * step)
          << K << " " << i;
    }
  }
}

// The expected mean squared error of a bell curve in 4 bits, groups of 64, relative to its variance. A plain
// amax / 7 scale gives 0.0105 on these numbers, so the bound holds only with the search.
TEST(GroupCodes, Int4SearchBeatsThePlainScale) {
  const int64_t rows = 64, K = 1408;
  const std::vector<float> x = bell(rows * K, 3);
  const std::vector<float> y =
      decode(WeightFormat::kInt4, quantise(WeightFormat::kInt4, x, rows, K), rows, K);
  double plain = 0;
  for (int64_t g = 0; g < rows * K; g += kInt4Group) {
    float amax = 0;
    for (int64_t i = g; i < g + kInt4Group; ++i) amax = std::max(amax, std::fabs(x[static_cast<size_t>(i)]));
    const float s = bf16_to_f32(f32_to_bf16(amax / 7));
    for (int64_t i = g; i < g + kInt4Group; ++i) {
      const float d = x[static_cast<size_t>(i)] - std::round(x[static_cast<size_t>(i)] / s) * s;
      plain += static_cast<double>(d) * d;
    }
  }
  const double n = static_cast<double>(rows * K);
  RecordProperty("plain", std::to_string(plain / n));
  RecordProperty("searched", std::to_string(squared_error(x, y) / n));
  EXPECT_LT(squared_error(x, y), 0.85 * plain);
}

TEST(GroupCodes, Int4TakesTheScaleOfLeastErrorOfAFineSearch) {
  const std::vector<float> x = bell(64 * 128, 11);
  const Coded c = quantise(WeightFormat::kInt4, x, 64, 128);
  const std::vector<float> y = decode(WeightFormat::kInt4, c, 64, 128);
  double fine = 0;
  for (int64_t g = 0; g < 64 * 128; g += kInt4Group) {
    const float* group = x.data() + g;
    double least = INFINITY;
    for (int64_t step = -400; step <= 400; ++step) {
      const float s = static_cast<float>(step) * 0.002f;
      if (s == 0) continue;
      double error = 0;
      for (int64_t i = 0; i < kInt4Group; ++i) {
        const double d = group[i] - std::min(7.0f, std::max(-8.0f, std::round(group[i] / s))) * s;
        error += d * d;
      }
      least = std::min(least, error);
    }
    fine += least;
  }
  EXPECT_LT(squared_error(x, y), 1.05 * fine);
}

TEST(GroupCodes, RowsArePaddedWithCodesOfZero) {
  for (const WeightFormat format : kFormats)
    for (const int64_t K : {1, 63, 64, 65, 96, 127, 129, 10944 % 1024}) {
      const std::vector<float> x = bell(2 * K, 5);
      Coded c = quantise(format, x, 2, K);
      const int64_t P = padded_columns(K);
      const std::vector<float> whole = decode(format, c, 2, P), part = decode(format, c, 2, K);
      for (int64_t i = 0; i < 2 * P; ++i) {
        const int64_t r = i / P, k = i % P;
        ASSERT_EQ(whole[static_cast<size_t>(i)], k < K ? part[static_cast<size_t>(r * K + k)] : 0.0f)
            << K << " " << i;
      }
      if (K == 1) {
        EXPECT_EQ(c.code[1], format == WeightFormat::kInt8 ? 128 : 0x88);
      }
    }
}

TEST(GroupCodes, Int4ByteHoldsAValueAndTheOne64Further) {
  std::vector<float> x(128);
  for (size_t i = 0; i < 128; ++i) x[i] = static_cast<float>(i % 16) - 8;  // exact with scale 1
  x[64 + 3] = 7;
  const Coded c = quantise(WeightFormat::kInt4, x, 1, 128);
  EXPECT_EQ(bf16_to_f32(c.scale[0]), 1.0f);
  EXPECT_EQ(c.code[3], (3 | 15 << 4));
  EXPECT_EQ(decode(WeightFormat::kInt4, c, 1, 128), x);
}

TEST(GroupCodes, ExtremeGroupsStayFiniteAndZerosStayZero) {
  for (const WeightFormat format : kFormats)
    for (const float big : {std::numeric_limits<float>::max(), 1.0f, 1e-30f, 1e-38f, 1e-42f}) {
      std::vector<float> x(256, 0.0f);
      x[1] = -big;
      x[2] = big / 2;
      const std::vector<float> y = decode(format, quantise(format, x, 1, 256), 1, 256);
      for (size_t i = 0; i < 256; ++i) {
        EXPECT_TRUE(std::isfinite(y[i]));
        EXPECT_TRUE(x[i] != 0 || y[i] == 0) << i;
      }
      EXPECT_NEAR(y[1] / -big, 1.0f, big > 1e-35f ? 0.02f : 1.0f);
    }
}

}  // namespace
}  // namespace hadal
