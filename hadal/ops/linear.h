#pragma once
#include "hadal/tensor/fwd.h"

namespace hadal {

// x w^T. x [..., X], w [Y, X] -> [..., Y]. bf16: fp32 tensors, whose products are computed in bf16, forward
// and backward: both factors rounded to bf16, summed in fp32, the result rounded to bf16 once and returned as
// fp32. What the backward pass keeps is the fp32 tensors.
Tensor linear(const Tensor& x, const Tensor& w, bool bf16 = false);

}  // namespace hadal
