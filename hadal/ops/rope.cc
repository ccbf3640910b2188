#include "hadal/ops/rope.h"

#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {

RopeAngles rope_angles(const MlaConfig& mla, const Tensor& position_S) {
  const int64_t S = position_S.size(0);
  HADAL_SHAPE(position_S, S);
  const Tensor frequency = on_device(from_floats(rope_frequencies(mla)), position_S.device());
  const Tensor angle_SX =
      position_S.to(at::kFloat).unsqueeze(1) * frequency;  // fp32 product, like the references
  const double multiplier = rope_multiplier(mla);
  return {angle_SX.cos() * multiplier, angle_SX.sin() * multiplier};
}

Tensor rope(const Tensor& x, const RopeAngles& angles) {
  const int64_t S = x.size(1), X = x.size(-1) / 2;
  const Tensor &cos_SX = angles.cos_SX, &sin_SX = angles.sin_SX;
  HADAL_SHAPE(cos_SX, S, X);
  HADAL_SHAPE(sin_SX, S, X);
  const Tensor pair = x.to(at::kFloat).unflatten(-1, {X, 2});
  const Tensor a = pair.select(-1, 0), b = pair.select(-1, 1);
  const bool per_head = x.dim() == 4;
  const Tensor cos = per_head ? cos_SX.unsqueeze(1) : cos_SX;
  const Tensor sin = per_head ? sin_SX.unsqueeze(1) : sin_SX;
  return stack({a * cos - b * sin, a * sin + b * cos}, -1).flatten(-2).to(x.scalar_type());
}

}  // namespace hadal
