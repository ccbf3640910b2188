// RMSNorm over rows of training's kernels, forward and backward: what its autograd functions share. CPU,
// fp32.
#pragma once
#include "hadal/tensor/tensor.h"

namespace hadal {

// rms_norm() of the last dimension.
struct NormedRows {
  Tensor y, rstd;  // rstd [rows]: 1 over the root mean square
};
NormedRows norm_rows(const Tensor& x, const Tensor& gain_D, double eps);  // x contiguous

struct NormGradients {
  Tensor dx, dgain_D;
};
// `other`: a gradient of x from elsewhere, contiguous, which dx includes; undefined: none.
NormGradients norm_rows_backward(const Tensor& dy, const Tensor& x, const Tensor& gain_D, const Tensor& rstd,
                                 const Tensor& other);

}  // namespace hadal
