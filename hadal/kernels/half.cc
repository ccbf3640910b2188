#include "hadal/kernels/half.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "hadal/kernels/isa.h"

namespace hadal {
namespace kernels {
namespace scalar {
extern const HalfKernels kFp16, kBf16;
}
#ifdef HADAL_HAVE_AVX512FP16
namespace avx512fp16 {
extern const HalfKernels kHalf;
}
#endif
#ifdef HADAL_HAVE_AVX512BF16
namespace avx512bf16 {
extern const HalfKernels kHalf;
}
#endif
}  // namespace kernels

namespace {

[[maybe_unused]] bool avx512_is_allowed() {
  const char* wanted = std::getenv("HADAL_ISA");
  return !wanted || !*wanted || std::strncmp(wanted, "avx512", 6) == 0;
}

const HalfKernels& choose(HalfFormat format) {
#ifdef __x86_64__
  __builtin_cpu_init();
#ifdef HADAL_HAVE_AVX512FP16
  if (format == HalfFormat::kFp16 && avx512_is_allowed() && __builtin_cpu_supports("avx512fp16") &&
      __builtin_cpu_supports("avx512dq"))
    return kernels::avx512fp16::kHalf;
#endif
#ifdef HADAL_HAVE_AVX512BF16
  if (format == HalfFormat::kBf16 && chosen_isa_rank() <= isa_rank("avx512bf16"))
    return kernels::avx512bf16::kHalf;
#endif
#endif
  return scalar_half_kernels(format);
}

}  // namespace

const HalfKernels& half_kernels(HalfFormat format) {
  static const HalfKernels &fp16 = choose(HalfFormat::kFp16), &bf16 = choose(HalfFormat::kBf16);
  return format == HalfFormat::kFp16 ? fp16 : bf16;
}

const HalfKernels& scalar_half_kernels(HalfFormat format) {
  return format == HalfFormat::kFp16 ? kernels::scalar::kFp16 : kernels::scalar::kBf16;
}

bool half_is_fast(HalfFormat format) {
  return &half_kernels(format) != &scalar_half_kernels(format);
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
