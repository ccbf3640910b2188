#include "hadal/ops/rms_norm.h"

#include "hadal/tensor/tensor.h"

namespace hadal {

Tensor rms_norm(const Tensor& x, const Tensor& gain_D, double eps) {
  const Tensor wide = x.to(at::kFloat);
  const Tensor scale = (wide.pow(2).mean(-1, /*keepdim=*/true) + eps).rsqrt();
  return (wide * scale).to(x.scalar_type()) * gain_D;
}

}  // namespace hadal
