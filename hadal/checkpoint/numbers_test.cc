#include "hadal/checkpoint/numbers.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "hadal/base/random.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/kernels/fp8.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

std::vector<float> floats(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor& t = file.at(name);
  std::vector<float> out(static_cast<size_t>(t.num_values()));
  to_f32(t.type, t.bytes.data(), out.data(), t.num_values());
  return out;
}

std::vector<uint8_t> codes(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor& t = file.at(name);
  std::vector<uint8_t> out(t.bytes.size());
  std::memcpy(out.data(), t.bytes.data(), out.size());
  return out;
}

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

// Floats whose exponents cover everything, subnormals and specials included.
std::vector<float> spread(int64_t n, uint64_t seed) {
  std::vector<float> out;
  for (int64_t i = 0; i < n; ++i)
    out.push_back(std::bit_cast<float>(philox(seed, 0, static_cast<uint64_t>(i))[0]));
  return out;
}

TEST(Numbers, E4m3CodesDecodeToTheGoldenValues) {
  const SafetensorsFile golden(golden_file("v3-fp8", "expected.safetensors"));
  const std::vector<float> want = floats(golden, "op.e4m3_decode");
  ASSERT_EQ(want.size(), 256u);
  for (int i = 0; i < 256; ++i)
    EXPECT_TRUE(same_bits(e4m3_to_f32(static_cast<uint8_t>(i)), want[static_cast<size_t>(i)])) << i;
}

TEST(Numbers, E4m3EncodingEqualsTheGoldenCodes) {
  const SafetensorsFile golden(golden_file("v3-fp8", "expected.safetensors"));
  const std::vector<float> in = floats(golden, "op.e4m3_in");
  const std::vector<uint8_t> want = codes(golden, "op.e4m3_out");
  ASSERT_EQ(in.size(), want.size());
  for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(f32_to_e4m3(in[i]), want[i]) << in[i];
}

// Nearest code by search over all 256, ties to the even code: the definition of the rounding.
uint8_t nearest_code(double x) {
  int best = 0;
  double best_distance = INFINITY;
  for (int code = 0; code < 0x7F; ++code) {
    const double distance = std::fabs(std::fabs(x) - e4m3_to_f32(static_cast<uint8_t>(code)));
    if (distance < best_distance || (distance == best_distance && code % 2 == 0))
      best = code, best_distance = distance;
  }
  return static_cast<uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

TEST(Numbers, E4m3RoundsToNearestEvenAndClampsAt448) {
  for (int code = 0; code < 0x7E; ++code) {  // every code, every midpoint and its neighbours
    const float low = e4m3_to_f32(static_cast<uint8_t>(code)),
                high = e4m3_to_f32(static_cast<uint8_t>(code + 1));
    const float mid = (low + high) / 2;
    for (const float x : {low, mid, std::nextafter(mid, 0.0f), std::nextafter(mid, 500.0f)}) {
      EXPECT_EQ(f32_to_e4m3(x), nearest_code(x)) << x;
      EXPECT_EQ(f32_to_e4m3(-x), nearest_code(-x)) << x;
    }
  }
  EXPECT_EQ(f32_to_e4m3(1e30f), 0x7E);
  EXPECT_EQ(f32_to_e4m3(-INFINITY), 0xFE);
  EXPECT_EQ(f32_to_e4m3(NAN), 0x7F);
  EXPECT_EQ(f32_to_e4m3(-0.0f), 0x80);
}

TEST(Numbers, Bf16RoundsToNearestEven) {
  EXPECT_EQ(f32_to_bf16(1.0f), 0x3F80);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3F808000u)), 0x3F80);  // tie, even below
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3F818000u)), 0x3F82);  // tie, even above
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3F808001u)), 0x3F81);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x7F7FFFFFu)), 0x7F80);  // rounds to infinity
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7F800001u)))));
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = bf16_to_f32(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(f32_to_bf16(value), bits);
  }
}

TEST(Numbers, F16DecodesAndRoundsExactlyOnAllCodesAndTies) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const int exponent = (half >> 10) & 31, mantissa = half & 1023;
    const double want = exponent == 31  ? (mantissa ? NAN : INFINITY)
                        : exponent == 0 ? std::ldexp(mantissa, -24)
                                        : std::ldexp(1024 + mantissa, exponent - 25);
    const float got = f16_to_f32(half);
    ASSERT_TRUE(same_bits(got, static_cast<float>(half & 0x8000 ? -want : want))) << bits;
    if (exponent == 31) continue;
    ASSERT_EQ(f32_to_f16(got), half);
    const float mid = static_cast<float>(std::fabs(want) + std::ldexp(1, std::max(exponent, 1) - 26));
    const auto magnitude = static_cast<uint16_t>(half & 0x7FFF);  // the tie goes to the even one of the two
    ASSERT_EQ(f32_to_f16(mid), magnitude % 2 == 0 ? magnitude : magnitude + 1) << mid;
    ASSERT_EQ(f32_to_f16(std::nextafter(mid, 0.0f)), magnitude);
    ASSERT_EQ(f32_to_f16(std::nextafter(mid, 1e9f)), magnitude + 1);
  }
  EXPECT_EQ(f32_to_f16(1e6f), 0x7C00);
  EXPECT_EQ(f32_to_f16(NAN) & 0x7FFF, 0x7E00);
}

TEST(Numbers, ScaleFormatsDecode) {
  EXPECT_EQ(e8m0_to_f32(127), 1.0f);
  EXPECT_EQ(e8m0_to_f32(0), std::ldexp(1.0f, -127));
  EXPECT_EQ(e8m0_to_f32(254), std::ldexp(1.0f, 127));
  EXPECT_TRUE(std::isnan(e8m0_to_f32(255)));
  EXPECT_EQ(e5m2_to_f32(0x3C), 1.0f);
  EXPECT_EQ(e5m2_to_f32(0x7B), 57344.0f);
  EXPECT_TRUE(std::isinf(e5m2_to_f32(0x7C)));
}

TEST(Numbers, BulkConversionEqualsScalarAtAnyAlignment) {
  const std::vector<float> in = spread(1000, 5);
  for (const ElementType type :
       {ElementType::kF32, ElementType::kF16, ElementType::kBF16, ElementType::kF8E4M3}) {
    for (size_t shift = 0; shift < 4; ++shift) {
      const auto n = static_cast<int64_t>(in.size());
      std::vector<std::byte> raw(shift + in.size() * 4);
      from_f32(type, in.data(), raw.data() + shift, n);
      std::vector<float> out(in.size());
      to_f32(type, raw.data() + shift, out.data(), n);
      for (size_t i = 0; i < in.size(); ++i) {
        const float want = type == ElementType::kF32    ? in[i]
                           : type == ElementType::kF16  ? f16_to_f32(f32_to_f16(in[i]))
                           : type == ElementType::kBF16 ? bf16_to_f32(f32_to_bf16(in[i]))
                                                        : e4m3_to_f32(f32_to_e4m3(in[i]));
        ASSERT_TRUE(same_bits(out[i], want)) << name(type) << " " << in[i];
      }
    }
  }
  float unused = 0;
  const std::byte zero[8] = {};
  EXPECT_THROW(to_f32(ElementType::kI64, zero, &unused, 1), Error);
  EXPECT_NO_THROW(to_f32(ElementType::kF32, nullptr, nullptr, 0));
}

TEST(Fp8, ActivationsQuantiseToTheGoldenCodesAndScales) {
  const SafetensorsFile golden(golden_file("v3-fp8", "expected.safetensors"));
  const StoredTensor& in = golden.at("op.act_in");
  const std::vector<float> x = floats(golden, "op.act_in");
  const int64_t rows = in.shape[0], cols = in.shape[1];
  for (const bool power_of_two : {false, true}) {
    const std::string suffix = power_of_two ? "_ue8m0" : "";
    std::vector<uint8_t> code(x.size());
    std::vector<float> scale(static_cast<size_t>(rows * fp8_blocks(cols)));
    quantise_activations(x.data(), rows, cols, power_of_two, code.data(), scale.data());
    EXPECT_EQ(code, codes(golden, "op.act_q" + suffix));
    EXPECT_EQ(scale, floats(golden, "op.act_scale" + suffix));
  }
}

TEST(Fp8, DequantisedGoldenWeightGivesTheGoldenProduct) {
  const SafetensorsFile golden(golden_file("v3-fp8", "expected.safetensors"));
  const StoredTensor& weight = golden.at("op.weight");
  const int64_t O = weight.shape[0], C = weight.shape[1], T = golden.at("op.act_in").shape[0];
  const std::vector<uint8_t> code = codes(golden, "op.weight");
  const std::vector<float> scale = floats(golden, "op.weight_scale_inv");
  std::vector<float> w(code.size());
  dequantise_blocks(code.data(), scale.data(), O, C, w.data());
  for (const std::string suffix : {"", "_ue8m0"}) {
    const std::vector<uint8_t> q = codes(golden, "op.act_q" + suffix);
    const std::vector<float> s = floats(golden, "op.act_scale" + suffix),
                             want = floats(golden, "op.gemm" + suffix);
    double worst = 0, largest = 0;
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t o = 0; o < O; ++o) {
        double sum = 0;
        for (int64_t c = 0; c < C; ++c) {
          const double x = e4m3_to_f32(q[static_cast<size_t>(t * C + c)]) *
                           static_cast<double>(s[static_cast<size_t>(t * fp8_blocks(C) + c / kFp8Block)]);
          sum += x * w[static_cast<size_t>(o * C + c)];
        }
        const double expected = want[static_cast<size_t>(t * O + o)];
        worst = std::max(worst, std::fabs(sum - expected));
        largest = std::max(largest, std::fabs(expected));
      }
    }
    EXPECT_LE(worst, 1e-6 * largest);  // w and the result are rounded to float
  }
}

TEST(Fp8, RandomBlocksAgreeWithADoubleOracle) {
  // 10^4 blocks of up to 3x3 cells at the far edges, amax from subnormal to huge.
  for (uint64_t i = 0; i < 10'000; ++i) {
    const auto dice = philox(3, 1, i);
    const int64_t rows = 1 + dice[0] % 3, cols = 1 + dice[1] % 3;
    const bool power_of_two = dice[2] & 1;
    const double size = std::ldexp(1.0, static_cast<int>(dice[3] % 270) - 148);
    std::vector<float> x(static_cast<size_t>(rows * cols));
    float amax = 0;
    for (size_t k = 0; k < x.size(); ++k) {
      x[k] = static_cast<float>(size * normal(3, i, k));
      amax = std::max(amax, std::fabs(x[k]));
    }
    std::vector<uint8_t> code(x.size());
    float scale = 0;
    quantise_blocks(x.data(), rows, cols, power_of_two, code.data(), &scale);
    if (amax == 0) {
      EXPECT_EQ(scale, 1.0f);
    } else if (static_cast<double>(amax) / 448 > std::ldexp(1.0, -126)) {
      const double want = static_cast<double>(amax) / 448;
      if (power_of_two) {
        EXPECT_EQ(scale, std::exp2(std::ceil(std::log2(static_cast<float>(want))))) << amax;
      } else {
        EXPECT_EQ(scale, static_cast<float>(want));
      }
    }
    for (size_t k = 0; k < x.size(); ++k) {
      ASSERT_EQ(code[k], nearest_code(static_cast<float>(static_cast<double>(x[k]) / scale)))
          << x[k] << " / " << scale;
      ASSERT_FALSE(std::isnan(e4m3_to_f32(code[k])));
    }
  }
}

TEST(Fp8, PartialBlocksUseTheirOwnScale) {
  const int64_t rows = 130, cols = 259;
  std::vector<float> x(static_cast<size_t>(rows * cols), 1.0f);
  x[static_cast<size_t>(129 * cols + 258)] = 448.0f;  // the far corner block [2, 3]
  std::vector<uint8_t> code(x.size());
  std::vector<float> scale(6), back(x.size());
  quantise_blocks(x.data(), rows, cols, false, code.data(), scale.data());
  EXPECT_EQ(scale, (std::vector<float>{1 / 448.0f, 1 / 448.0f, 1 / 448.0f, 1 / 448.0f, 1 / 448.0f, 1.0f}));
  dequantise_blocks(code.data(), scale.data(), rows, cols, back.data());
  EXPECT_EQ(back[static_cast<size_t>(129 * cols + 258)], 448.0f);
  EXPECT_NEAR(back[0], 1.0f, 1e-6);
  std::vector<float> last_rows(static_cast<size_t>(2 * cols));
  dequantise_blocks(code.data() + 128 * cols, scale.data(), 2, cols, last_rows.data(), 128);
  EXPECT_TRUE(std::equal(last_rows.begin(), last_rows.end(), back.begin() + 128 * cols));
}

}  // namespace
}  // namespace hadal
