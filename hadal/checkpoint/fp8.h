// Block FP8 as in the official checkpoints: e4m3 codes, one F32 scale per 128x128 block (partial at the far
// edges), which multiplies in spite of its name weight_scale_inv. Architecture spec, "FP8 maths".
#pragma once
#include <cstdint>

namespace hadal {

constexpr int64_t kFp8Block = 128;
constexpr float kE4m3Max = 448.0f;

inline int64_t fp8_blocks(int64_t size) {
  return (size + kFp8Block - 1) / kFp8Block;
}

// amax / 448, optionally rounded up to a power of two; 1 for amax 0, and never so small that x / scale
// overflows.
float block_scale(float amax, bool power_of_two);

// out[rows, cols] = code[rows, cols] * scale[ceil(rows/128), ceil(cols/128)]. first_row: the position of row
// 0 in the whole matrix if a stripe is given (scale is the whole matrix's).
void dequantise_blocks(const uint8_t* code, const float* scale, int64_t rows, int64_t cols, float* out,
                       int64_t first_row = 0);

// One weight matrix or a stripe that starts at a multiple of 128 rows. scale [ceil(rows/128),
// ceil(cols/128)]; code may be null to get the scales alone. x must be finite.
void quantise_blocks(const float* x, int64_t rows, int64_t cols, bool power_of_two, uint8_t* code,
                     float* scale);

// Activations: per row and 128 channels, scale = max(amax, 1e-4) / 448. code [rows, cols],
// scale [rows, ceil(cols/128)].
void quantise_activations(const float* x, int64_t rows, int64_t cols, bool power_of_two, uint8_t* code,
                          float* scale);

}  // namespace hadal
