// Causal attention of one head over a whole sequence, forward and backward, with products of 16-bit floats
// (half.h) and everything else in fp32. Scores exist for kHalfRows queries at a time, probabilities and their
// gradients for kHalfChunk: memory grows linearly with S. Torch-free; one thread.
#pragma once
#include <cstdint>

#include "hadal/kernels/half.h"

namespace hadal {

constexpr int64_t kHalfRows = 32;  // queries at a time: 32 x 256 scores fit the first cache

struct HalfHeadSizes {
  int64_t S, N, R, V;  // positions; per head: values without RoPE, with it, of a value
  float scale;         // of the scores
  HalfFormat format = HalfFormat::kFp16;
  int64_t K() const { return N + R; }
};

// Where a head's inputs stand: row t of query at query + t * query_row, K values, the last R not yet rotated;
// of kv N + V values, the key's first; rope_key [S, R], not yet rotated. cos, sin [S, R/2]. segment_start
// [S]: the first position each one sees; null: 0.
struct HalfHeadInputs {
  const float* query;
  int64_t query_row;
  const float* kv;
  int64_t kv_row;
  const float *rope_key, *cos, *sin;
  const int64_t* segment_start;
};

// What the products read: rotated, scaled and rounded copies in one block of half_head_values() values.
struct HalfHeadScales {
  float query, key, value;
  float value_norm;  // the longest value's length
};
int64_t half_head_values(const HalfHeadSizes& sizes);
HalfHeadScales half_head_pack(const HalfHeadSizes& sizes, const HalfHeadInputs& in, uint16_t* packed);

// out row t [V] at out + t * out_row; lse [S], of the scaled scores.
void half_head_forward(const HalfHeadSizes& sizes, const uint16_t* packed, const HalfHeadScales& scales,
                       const int64_t* segment_start, float* out, int64_t out_row, float* lse);

// out and dout: rows of V values out_row apart; dout_half is dout times dout_scale, rounded. dquery and dkv:
// laid out as the inputs; drope_key [S, R] of this head alone.
struct HalfHeadBackward {
  const float *out, *dout, *lse;
  const uint16_t* dout_half;
  float dout_scale;
  int64_t out_row;
  float *dquery, *dkv, *drope_key;
};
void half_head_backward(const HalfHeadSizes& sizes, const HalfHeadInputs& in, const uint16_t* packed,
                        const HalfHeadScales& scales, const HalfHeadBackward& d);

}  // namespace hadal
