// Number formats: scalar conversions, exact, and bulk conversion of raw tensors. All narrowing rounds to
// nearest even. Formats: architecture spec "FP8 numbers"; OCP 8-bit floating point specification.
#pragma once
#include <cstddef>
#include <cstdint>

#include "hadal/checkpoint.h"

namespace hadal {

float bf16_to_f32(uint16_t bits);
uint16_t f32_to_bf16(float value);  // NaN stays NaN
float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);  // beyond 65504 + half a step: infinity
float e4m3_to_f32(uint8_t bits);   // 0x7F, 0xFF: NaN
uint8_t f32_to_e4m3(float value);  // clamped to +-448; NaN: 0x7F with the sign
float e5m2_to_f32(uint8_t bits);
float e8m0_to_f32(uint8_t bits);  // 2^(bits - 127); 0xFF: NaN

// n values at `from` (any alignment) to float. All floating types; F64 is rounded. Throws unsupported for
// others.
void to_f32(ElementType type, const std::byte* from, float* out, int64_t n);
// n floats to F32, F16, BF16 or F8_E4M3 at `out` (any alignment). Throws unsupported for others.
void from_f32(ElementType type, const float* from, std::byte* out, int64_t n);

}  // namespace hadal
