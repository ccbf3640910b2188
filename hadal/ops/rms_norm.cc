#include "hadal/ops/rms_norm.h"

#include "hadal/ops/fused.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/shape.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

Tensor rms_norm_reference(const Tensor& x, const Tensor& gain_D, double eps) {
  const int64_t D = x.size(-1);
  HADAL_SHAPE(gain_D, D);
  const Tensor wide = x.to(at::kFloat);
  const Tensor scale = (wide.pow(2).mean(-1, /*keepdim=*/true) + eps).rsqrt();
  return (wide * scale).to(x.scalar_type()) * gain_D;
}

Tensor rms_norm(const Tensor& x, const Tensor& gain_D, double eps) {
  const int64_t D = x.size(-1);
  HADAL_SHAPE(gain_D, D);
  return gain_D.scalar_type() == at::kFloat && (x.scalar_type() == at::kFloat || is_plain(x))
             ? fused_rms_norm(x, gain_D, eps)
             : rms_norm_reference(x, gain_D, eps);
}

}  // namespace hadal
