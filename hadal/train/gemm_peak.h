// What the machine can do: the rate that a share of the peak (MFU) refers to.
#pragma once
#include <cstdint>

namespace hadal {

// The best of a few products of [n, n] fp32 matrices on LibTorch's threads, FLOP/s. A tenth of a second.
double gemm_peak(int64_t n = 768);

}  // namespace hadal
