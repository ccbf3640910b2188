// Loops that measure what one core can do at most, for benches. Torch-free.
#pragma once
#include <cstdint>

namespace hadal {

// Runs `rounds` of fused multiply-adds in registers, in the widest vectors that the chosen instruction set
// has; returns how many multiply-adds they were. sink: 3 floats, read and written.
double fma_rounds(int64_t rounds, float* sink);
// Reads n floats (64-byte aligned); returns something of their sum.
float read_floats(const float* x, int64_t n);

}  // namespace hadal
