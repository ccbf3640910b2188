#include "hadal/kernels/half.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace hadal {
namespace kernels {
namespace scalar {
extern const HalfKernels kHalf;
}
#ifdef HADAL_HAVE_AVX512FP16
namespace avx512fp16 {
extern const HalfKernels kHalf;
}
#endif
}  // namespace kernels

namespace {

const HalfKernels& choose() {
#ifdef HADAL_HAVE_AVX512FP16
  const char* wanted = std::getenv("HADAL_ISA");
  const bool forced = wanted && *wanted && std::strncmp(wanted, "avx512", 6) != 0;
  __builtin_cpu_init();
  if (!forced && __builtin_cpu_supports("avx512fp16") && __builtin_cpu_supports("avx512dq"))
    return kernels::avx512fp16::kHalf;
#endif
  return kernels::scalar::kHalf;
}

}  // namespace

const HalfKernels& half_kernels() {
  static const HalfKernels& chosen = choose();
  return chosen;
}

const HalfKernels& scalar_half_kernels() {
  return kernels::scalar::kHalf;
}

bool half_is_fast() {
  return &half_kernels() != &scalar_half_kernels();
}

float half_scale(float max_abs) {
  if (!(max_abs > 0) || !std::isfinite(max_abs)) return 1;
  int exponent = 0;
  std::frexp(max_abs, &exponent);                    // max_abs < 2^exponent
  constexpr int kLimitExponent = 4, kLargest = 100;  // kHalfLimit; no scale whose inverse is not a float
  const int power = kLimitExponent - exponent;
  return std::ldexp(1.0f, power < kLargest ? power : kLargest);
}

}  // namespace hadal
