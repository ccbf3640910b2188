#include "hadal/checkpoint/fp8.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "hadal/checkpoint/numbers.h"

namespace hadal {
namespace {

// 2^ceil(log2 scale) of a positive normal float, by its bits.
float round_up_to_power_of_two(float scale) {
  const uint32_t bits = std::bit_cast<uint32_t>(scale);
  return std::bit_cast<float>((bits + 0x7FFFFF) & 0x7F800000);
}

// The bits of max |x|. Integers, since the order of a float maximum may not be changed, so it would not
// vectorise.
uint32_t largest_magnitude(const float* x, int64_t n) {
  uint32_t most = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFF;
    most = bits > most ? bits : most;
  }
  return most;
}

// code[i] = e4m3(x[i] / scale), n at most a block's side. Two loops: in one, the bytes written might alias x.
void encode(const float* x, float scale, uint8_t* code, int64_t n) {
  float quotient[kFp8Block];
  for (int64_t i = 0; i < n; ++i) quotient[i] = x[i] / scale;
  from_f32(ElementType::kF8E4M3, quotient, reinterpret_cast<std::byte*>(code), n);
}

}  // namespace

float block_scale(float amax, bool power_of_two) {
  if (amax == 0) return 1.0f;
  const float scale =
      std::max(amax / kE4m3Max, 0x1p-126f);  // below: subnormal, and amax / scale could overflow
  return power_of_two ? round_up_to_power_of_two(scale) : scale;
}

void dequantise_blocks(const uint8_t* code, const float* scale, int64_t rows, int64_t cols, float* out,
                       int64_t first_row) {
  const int64_t blocks = fp8_blocks(cols);
  for (int64_t r = 0; r < rows; ++r) {
    const float* row_scale = scale + (first_row + r) / kFp8Block * blocks;
    for (int64_t b = 0; b < blocks; ++b) {
      const float s = row_scale[b];
      const int64_t begin = r * cols + b * kFp8Block, end = std::min(begin + kFp8Block, (r + 1) * cols);
      for (int64_t i = begin; i < end; ++i) out[i] = e4m3_to_f32(code[i]) * s;
    }
  }
}

void quantise_blocks(const float* x, int64_t rows, int64_t cols, bool power_of_two, uint8_t* code,
                     float* scale) {
  const int64_t blocks = fp8_blocks(cols);
  for (int64_t first = 0; first < rows; first += kFp8Block) {
    const int64_t last = std::min(first + kFp8Block, rows);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = b * kFp8Block, end = std::min(begin + kFp8Block, cols);
      uint32_t amax_bits = 0;
      for (int64_t r = first; r < last; ++r)
        amax_bits = std::max(amax_bits, largest_magnitude(x + r * cols + begin, end - begin));
      const float s = block_scale(std::bit_cast<float>(amax_bits), power_of_two);
      scale[first / kFp8Block * blocks + b] = s;
      if (!code) continue;
      for (int64_t r = first; r < last; ++r)
        encode(x + r * cols + begin, s, code + r * cols + begin, end - begin);
    }
  }
}

void quantise_activations(const float* x, int64_t rows, int64_t cols, bool power_of_two, uint8_t* code,
                          float* scale) {
  const int64_t blocks = fp8_blocks(cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = r * cols + b * kFp8Block, end = std::min(begin + kFp8Block, (r + 1) * cols);
      float amax = 1e-4f;
      for (int64_t i = begin; i < end; ++i) amax = std::max(amax, std::fabs(x[i]));
      const float s = power_of_two ? round_up_to_power_of_two(amax / kE4m3Max) : amax / kE4m3Max;
      scale[r * blocks + b] = s;
      encode(x + begin, s, code + begin, end - begin);
    }
  }
}

}  // namespace hadal
