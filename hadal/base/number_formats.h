// Number formats: scalar conversions, exact. All narrowing rounds to nearest even. Architecture spec "FP8
// numbers"; OCP 8-bit floating point specification.
#pragma once
#include <array>
#include <bit>
#include <cstdint>

namespace hadal {

inline float bf16_to_f32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// NaN stays NaN.
inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40;  // quiet, so that the cut does not make it an infinity
  return static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
}

inline float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, magnitude = bits & 0x7FFF;
  // As a float with the small exponent, then times 2^112: exact, subnormals included.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  const uint32_t special = 0x7F800000 | (magnitude << 13);
  return std::bit_cast<float>((magnitude >= 0x7C00 ? special : std::bit_cast<uint32_t>(scaled)) | sign);
}

// 65520 and beyond: infinity.
inline uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7FFFFFFF;
  const uint32_t normal = (magnitude + 0xFFF + ((magnitude >> 13) & 1) - (uint32_t{112} << 23)) >> 13;
  // Below 2^-14 the step is 2^-24: adding 0.5 lets the float adder round to it, to even.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3F000000;
  uint32_t half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x477FF000 ? 0x7C00 : half;  // 65520 and beyond
  half = magnitude > 0x7F800000 ? 0x7E00 : half;
  return static_cast<uint16_t>(half | ((bits >> 16) & 0x8000));
}

extern const std::array<float, 256> kE4m3Values;

// 0x7F, 0xFF: NaN.
inline float e4m3_to_f32(uint8_t bits) {
  return kE4m3Values[bits];
}

// Clamped to +-448; NaN: 0x7F with the sign.
inline uint8_t f32_to_e4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7FFFFFFF;
  const uint32_t clamped = magnitude < 0x43E00000 ? magnitude : 0x43E00000;  // 448
  const uint32_t normal = (clamped + 0x7FFFF + ((clamped >> 20) & 1) - (uint32_t{120} << 23)) >> 20;
  // Below 2^-6 the step is 2^-9: adding 2^14 lets the float adder round to it, to even.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(clamped) + 0x1p14f) - 0x46800000;
  uint32_t code = clamped < 0x3C800000 ? subnormal : normal;
  code = magnitude > 0x7F800000 ? 0x7F : code;
  return static_cast<uint8_t>(code | ((bits >> 24) & 0x80));
}

inline float e5m2_to_f32(uint8_t bits) {
  return f16_to_f32(static_cast<uint16_t>(bits << 8));
}

constexpr float kE5m2Max = 57344.0f, kE5m6Max = 65024.0f;

// The fp16 number that has `bits` fraction bits only, at most `max`; subnormal ones too. NaN stays NaN.
inline uint16_t f32_to_short_f16(float value, int bits, float max) {
  const uint32_t raw = std::bit_cast<uint32_t>(value), magnitude = raw & 0x7FFFFFFF;
  const uint32_t top = std::bit_cast<uint32_t>(max), clamped = magnitude < top ? magnitude : top;
  const int cut = 23 - bits;
  const uint32_t normal = (clamped + ((1u << (cut - 1)) - 1) + ((clamped >> cut) & 1)) & ~((1u << cut) - 1);
  // Below 2^-14 the step is 2^(-14 - bits): the float adder rounds to it, to even.
  const float magic = std::bit_cast<float>(static_cast<uint32_t>(127 + 9 - bits) << 23);
  const float subnormal = (std::bit_cast<float>(clamped) + magic) - magic;
  const uint16_t half = f32_to_f16(clamped < 0x38800000 ? subnormal : std::bit_cast<float>(normal));  // exact
  return static_cast<uint16_t>((magnitude > 0x7F800000 ? 0x7E00 : half) | ((raw >> 16) & 0x8000));
}

// Clamped to +-57344.
inline uint8_t f32_to_e5m2(float value) {
  return static_cast<uint8_t>(f32_to_short_f16(value, 2, kE5m2Max) >> 8);
}

// E5M6, 12 bits: as the fp16 number that it is. Clamped to +-65024.
inline uint16_t f32_to_e5m6(float value) {
  return f32_to_short_f16(value, 6, kE5m6Max);
}

// 2^(bits - 127); 0xFF: NaN.
float e8m0_to_f32(uint8_t bits);

}  // namespace hadal
