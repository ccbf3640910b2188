#include "hadal/checkpoint/numbers.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "hadal/base/text.h"
#include "hadal/error.h"

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

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// out[i] = convert(the i-th T at `from`).
template <class T, class Convert>
void widen(const std::byte* from, float* out, int64_t n, Convert convert) {
  for (int64_t i = 0; i < n; ++i) out[i] = convert(load<T>(from + i * static_cast<int64_t>(sizeof(T))));
}

template <class T, class Convert>
void narrow(const float* from, std::byte* out, int64_t n, Convert convert) {
  for (int64_t i = 0; i < n; ++i) {
    const T value = convert(from[i]);
    std::memcpy(out + i * static_cast<int64_t>(sizeof(T)), &value, sizeof value);
  }
}

}  // namespace

const std::array<float, 256> kE4m3Values = make_e4m3_table();

float e8m0_to_f32(uint8_t bits) {
  if (bits == 0xFF) return std::numeric_limits<float>::quiet_NaN();
  return bits == 0 ? 0x1p-127f : std::bit_cast<float>(static_cast<uint32_t>(bits) << 23);
}

void to_f32(ElementType type, const std::byte* from, float* out, int64_t n) {
  switch (type) {
    case ElementType::kF32:
      if (n > 0) std::memcpy(out, from, static_cast<size_t>(n) * sizeof(float));
      return;
    case ElementType::kBF16:
      return widen<uint16_t>(from, out, n, bf16_to_f32);
    case ElementType::kF16:
      return widen<uint16_t>(from, out, n, f16_to_f32);
    case ElementType::kF8E4M3:
      return widen<uint8_t>(from, out, n, e4m3_to_f32);
    case ElementType::kF8E5M2:
      return widen<uint8_t>(from, out, n, e5m2_to_f32);
    case ElementType::kF8E8M0:
      return widen<uint8_t>(from, out, n, e8m0_to_f32);
    case ElementType::kF64:
      return widen<double>(from, out, n, [](double x) { return static_cast<float>(x); });
    default:
      throw Error(ErrorCode::kUnsupported, cat("[checkpoint.read] ", name(type),
                                               " values are not floating point: they cannot be a weight."));
  }
}

void from_f32(ElementType type, const float* from, std::byte* out, int64_t n) {
  switch (type) {
    case ElementType::kF32:
      if (n > 0) std::memcpy(out, from, static_cast<size_t>(n) * sizeof(float));
      return;
    case ElementType::kBF16:
      return narrow<uint16_t>(from, out, n, f32_to_bf16);
    case ElementType::kF16:
      return narrow<uint16_t>(from, out, n, f32_to_f16);
    case ElementType::kF8E4M3:
      return narrow<uint8_t>(from, out, n, f32_to_e4m3);
    default:
      throw Error(ErrorCode::kUnsupported, cat("[checkpoint.write] cannot write weights as ", name(type),
                                               ": need F32, F16, BF16 or F8_E4M3."));
  }
}

}  // namespace hadal
