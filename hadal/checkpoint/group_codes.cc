#include "hadal/checkpoint/group_codes.h"

#include <algorithm>
#include <cmath>

#include "hadal/base/number_formats.h"

namespace hadal {
namespace {

constexpr int64_t kBlock = kInt4Block;
constexpr float kSmallestScale = 0x1p-126f;  // below: subnormal, and x / scale could overflow
constexpr float kInt8Max = 127, kInt4Levels = 8;

// Adding and taking away 1.5 * 2^23 rounds to the nearest integer, to even. Sources are built without
// -ffast-math, so it stays.
inline float nearest(float x) {
  return (x + 12582912.0f) - 12582912.0f;
}

inline float clamped(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

// The scale in BF16, such that `levels` times it is finite.
float rounded_scale(float scale, float levels) {
  uint16_t bits = f32_to_bf16(scale);
  while (std::isinf(bf16_to_f32(bits) * levels)) --bits;
  const float s = bf16_to_f32(bits);
  return std::fabs(s) < kSmallestScale ? std::copysign(kSmallestScale, scale) : s;
}

// The value of largest magnitude, with its sign; the first of equals.
float extreme(const float* x, int64_t n) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i)
    if (std::fabs(x[i]) > std::fabs(most)) most = x[i];
  return most;
}

float code_int8(const float* x, uint8_t* code) {
  const float amax = std::fabs(extreme(x, kInt8Group));
  const float scale = amax == 0 ? 0.0f : rounded_scale(amax / kInt8Max, kInt8Max);
  const float factor = amax == 0 ? 0.0f : 1.0f / scale;
  for (int64_t i = 0; i < kInt8Group; ++i)
    code[i] =
        static_cast<uint8_t>(static_cast<int>(clamped(nearest(x[i] * factor), -kInt8Max, kInt8Max)) + 128);
  return scale;
}

inline float int4_code(float x, float factor) {
  return nearest(clamped(x * factor, -8.0f, 7.0f));
}

// Squared error of a group at this scale. Lanes are added in one order, so the choice is the same everywhere.
float int4_error(const float* x, float scale) {
  constexpr int64_t kLanes = 16;
  const float factor = 1.0f / scale;
  float sum[kLanes] = {};
  for (int64_t i = 0; i < kInt4Group; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) {
      const float d = x[i + j] - int4_code(x[i + j], factor) * scale;
      sum[j] += d * d;
    }
  float total = 0;
  for (const float s : sum) total += s;
  return total;
}

// The scale that fits the codes of `scale` best: sum x q / sum q q.
float refitted(const float* x, float scale) {
  const float factor = 1.0f / scale;
  float xq = 0, qq = 0;
  for (int64_t i = 0; i < kInt4Group; ++i) {
    const float q = int4_code(x[i], factor);
    xq += x[i] * q;
    qq += q * q;
  }
  return qq > 0 ? rounded_scale(xq / qq, kInt4Levels) : scale;
}

// The value of largest magnitude is put near the code -8 or 7, or beyond and cut; then two refits. On bell
// curves the error is 1 % above the least possible.
float int4_scale(const float* x) {
  constexpr float kDivisors[] = {-8.5f, -8.25f, -8, -7.75f, -7.5f, -7.25f, -7, -6.5f, -6,
                                 -5.5f, 7.25f,  7,  6.75f,  6.5f,  6.25f,  6,  5.5f,  5};
  const float most = extreme(x, kInt4Group);
  if (most == 0) return 0;
  // Squares of tiny or huge values would leave float's range: search on the group scaled by a power of two.
  int exponent = 0;
  std::frexp(most, &exponent);
  const float down = std::ldexp(1.0f, std::clamp(-exponent, -126, 126));
  float unit[kInt4Group];
  for (int64_t i = 0; i < kInt4Group; ++i) unit[i] = x[i] * down;
  const float unit_most = most * down;
  float best = 0, least = INFINITY;
  const auto consider = [&](float scale) {
    const float error = int4_error(unit, scale);
    if (error < least) {
      least = error;
      best = scale;
    }
  };
  for (const float divisor : kDivisors) consider(rounded_scale(unit_most / divisor, kInt4Levels));
  for (int i = 0; i < 2; ++i) consider(refitted(unit, best));
  return rounded_scale(best / down, kInt4Levels);
}

// Fills byte j of a block with code j in its low half and j + 64 in its high half.
void code_int4(const float* x, uint16_t* scale, uint8_t* code) {
  uint8_t half[2][kInt4Group];
  for (int64_t h = 0; h < 2; ++h) {
    const float s = int4_scale(x + h * kInt4Group);
    const float factor = s == 0 ? 0.0f : 1.0f / s;
    scale[h] = f32_to_bf16(s);
    for (int64_t i = 0; i < kInt4Group; ++i)
      half[h][i] = static_cast<uint8_t>(static_cast<int>(int4_code(x[h * kInt4Group + i], factor)) + 8);
  }
  for (int64_t i = 0; i < kInt4Group; ++i) code[i] = static_cast<uint8_t>(half[0][i] | half[1][i] << 4);
}

void decode_int8(const uint8_t* code, float scale, float* out) {
  for (int64_t i = 0; i < kInt8Group; ++i)
    out[i] = static_cast<float>(static_cast<int>(code[i]) - 128) * scale;
}

void decode_int4(const uint8_t* code, float low_scale, float high_scale, float* out) {
  for (int64_t i = 0; i < kInt4Group; ++i) {
    out[i] = static_cast<float>((code[i] & 15) - 8) * low_scale;
    out[i + kInt4Group] = static_cast<float>((code[i] >> 4) - 8) * high_scale;
  }
}

}  // namespace

void quantise_groups(WeightFormat format, const float* x, int64_t rows, int64_t K, uint8_t* code,
                     uint16_t* scale) {
  const bool int8 = format == WeightFormat::kInt8;
  float padded[kBlock];
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < K; k += kBlock) {
      const int64_t n = std::min(kBlock, K - k);
      const float* from = x + r * K + k;
      if (n < kBlock) {
        std::fill(std::copy(from, from + n, padded), padded + kBlock, 0.0f);
        from = padded;
      }
      if (int8) {
        *scale++ = f32_to_bf16(code_int8(from, code));
        code += kBlock;
      } else {
        code_int4(from, scale, code);
        scale += 2;
        code += kBlock / 2;
      }
    }
}

void dequantise_groups(WeightFormat format, const uint8_t* code, const uint16_t* scale, int64_t rows,
                       int64_t K, float* out) {
  const bool int8 = format == WeightFormat::kInt8;
  float padded[kBlock];
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < K; k += kBlock) {
      const int64_t n = std::min(kBlock, K - k);
      float* to = n < kBlock ? padded : out + r * K + k;
      if (int8) {
        decode_int8(code, bf16_to_f32(*scale++), to);
        code += kBlock;
      } else {
        decode_int4(code, bf16_to_f32(scale[0]), bf16_to_f32(scale[1]), to);
        scale += 2;
        code += kBlock / 2;
      }
      if (n < kBlock) std::copy(padded, padded + n, out + r * K + k);
    }
}

}  // namespace hadal
