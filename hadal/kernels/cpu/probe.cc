// What a core can do at most: a loop of fused multiply-adds that never leaves the registers, and one of
// reads.
#include <cstdint>

namespace hadal::kernels::HADAL_ISA {

#if defined(__AVX512F__)
typedef float Lanes __attribute__((vector_size(64)));
#elif defined(__AVX2__)
typedef float Lanes __attribute__((vector_size(32)));
#else
typedef float Lanes __attribute__((vector_size(16)));
#endif

// Multiply-adds done: 16 vectors a round. `sink` keeps them from being left out.
double fma_rounds(int64_t rounds, float* sink) {
  Lanes sum[16];
  for (int i = 0; i < 16; ++i) sum[i] = Lanes{} + static_cast<float>(i);
  Lanes a = Lanes{} + sink[0], b = Lanes{} + sink[1];
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) sum[i] = sum[i] * a + b;
    asm volatile("" : "+x"(a), "+x"(b));
  }
  Lanes all = sum[0];
  for (int i = 1; i < 16; ++i) all += sum[i];
  sink[2] = all[0];
  return static_cast<double>(rounds) * 16 * static_cast<double>(sizeof(Lanes) / sizeof(float));
}

// Sum over n floats, n a multiple of 512 bytes' worth.
float read_floats(const float* x, int64_t n) {
  constexpr int64_t kLanes = sizeof(Lanes) / sizeof(float), kStep = 8 * kLanes;
  Lanes sum[8] = {};
  for (int64_t i = 0; i + kStep <= n; i += kStep) {
    __builtin_prefetch(x + i + 1024);
#pragma GCC unroll 8
    for (int64_t j = 0; j < 8; ++j) sum[j] += *reinterpret_cast<const Lanes*>(x + i + j * kLanes);
  }
  Lanes all = sum[0];
  for (int i = 1; i < 8; ++i) all += sum[i];
  return all[0];
}

}  // namespace hadal::kernels::HADAL_ISA
