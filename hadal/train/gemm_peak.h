// What the machine can do: the rate that a share of the peak (MFU) refers to.
#pragma once
#include <cstdint>

#include "hadal/tensor/tensor.h"

namespace hadal {

// The best of a few products of [n, n] matrices on LibTorch's threads, or on a GPU, FLOP/s; fp32 on the CPU
// by ops/product.h. A few hundredths of a second at 768 on a CPU.
double gemm_peak(int64_t n = 768, at::ScalarType dtype = at::kFloat, at::Device device = at::kCPU);

// Of a GPU, in matrices large enough for it.
constexpr int64_t kGpuPeakSize = 8192;

}  // namespace hadal
