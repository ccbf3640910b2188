// Group-wise INT8 and INT4 weights, hadal's own formats: layouts in kernels/infer.h. A row of K values is
// padded with zeros to a multiple of 128; groups of 128 (INT8) or 64 (INT4) values share a BF16 scale. Value
// = code * scale; INT8 codes are -127..127 stored + 128, INT4 codes -8..7 stored + 8. A scale may be negative
// (INT4) and is 0 for a group of zeros.
#pragma once
#include <cstdint>

#include "hadal/kernels/infer.h"

namespace hadal {

// All: REQUIRES kInt8 or kInt4. x [rows, K] to code [rows, row_bytes] and scale [rows, row_groups] (BF16
// bits). The codes are rounded against the rounded scale. INT8: scale = amax / 127. INT4: of some scales near
// amax / 8, the one with the least squared error. x must be finite. Rows are independent of each other.
void quantise_groups(WeightFormat format, const float* x, int64_t rows, int64_t K, uint8_t* code,
                     uint16_t* scale);

// The values, without the padding. out [rows, K].
void dequantise_groups(WeightFormat format, const uint8_t* code, const uint16_t* scale, int64_t rows,
                       int64_t K, float* out);

}  // namespace hadal
