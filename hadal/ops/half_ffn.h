// One feed-forward network in half precision, an expert or a whole layer's, on some rows.
#pragma once
#include "hadal/ops/half_matrix.h"

namespace hadal {

struct HalfFfn {
  int64_t D, M;
  const float *gate, *up, *down;
};

// gate_up [n, 2M] is kept for the backward pass. out [n, D]
void half_ffn_forward(const HalfKernels& k, const HalfFfn& w, const HalfRows& x, float* gate_up, float* out);

struct HalfFfnGradients {
  float *dgate, *dup, *ddown, *dx;
  float* dweight;  // [n]; null: not wanted
};
// dy is not yet times weight [n] (null: weights 1).
void half_ffn_backward(const HalfKernels& k, const HalfFfn& w, const HalfRows& x, const HalfRows& dy,
                       const float* gate_up, const float* weight, const HalfFfnGradients& to);

}  // namespace hadal
