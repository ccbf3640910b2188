#pragma once
#include "hadal/tensor/fwd.h"

namespace hadal {

// x * rsqrt(mean(x^2) + eps) over the last dimension, times gain. Normalised in fp32, cast to x's dtype, then
// multiplied by the gain: transformers' order (architecture spec 3).
// x: [..., D], gain_D -> [..., D]. fp32 goes through fused_rms_norm.
Tensor rms_norm(const Tensor& x, const Tensor& gain_D, double eps);
Tensor rms_norm_reference(const Tensor& x, const Tensor& gain_D, double eps);

}  // namespace hadal
