// exp for the kernels' plain loops. Included by sources that are compiled once per instruction set.
#pragma once
#include <stdint.h>

namespace hadal::kernels::HADAL_ISA {
namespace {

// exp to 1 ulp or two: x = n ln 2 + r, degree-6 polynomial on r, exponent added as bits. Below -87: ~0.
inline float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  union {
    float f;
    int32_t i;
  } bits = {p};
  union {
    float f;
    int32_t i;
  } integer = {shifted};
  bits.i += (integer.i - 0x4B400000) << 23;
  return bits.f;
}

}  // namespace
}  // namespace hadal::kernels::HADAL_ISA
