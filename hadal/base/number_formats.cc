#include "hadal/base/number_formats.h"

#include <limits>

namespace hadal {
namespace {

// Value of an 8-bit float with `exponent_bits` and `mantissa_bits`, all exponents finite.
constexpr float small_float(uint8_t bits, int exponent_bits, int mantissa_bits) {
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  float value = static_cast<float>(exponent ? mantissa + (1 << mantissa_bits) : mantissa);
  for (int e = (exponent ? exponent : 1) - bias - mantissa_bits; e != 0; e += e < 0 ? 1 : -1)
    value = e < 0 ? value / 2 : value * 2;
  return bits & 0x80 ? -value : value;
}

constexpr std::array<float, 256> make_e4m3_table() {
  std::array<float, 256> table{};
  for (int i = 0; i < 256; ++i)
    table[i] = (i & 0x7F) == 0x7F ? std::numeric_limits<float>::quiet_NaN()
                                  : small_float(static_cast<uint8_t>(i), 4, 3);
  return table;
}

}  // namespace

const std::array<float, 256> kE4m3Values = make_e4m3_table();

float e8m0_to_f32(uint8_t bits) {
  if (bits == 0xFF) return std::numeric_limits<float>::quiet_NaN();
  return bits == 0 ? 0x1p-127f : std::bit_cast<float>(static_cast<uint32_t>(bits) << 23);
}

}  // namespace hadal
