#include "hadal/ops/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

double mscale(double factor, double weight) {
  return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0;
}

// How many pairs turn at least `rotations` times over the original context, as a pair index.
double correction_pair(const MlaConfig& mla, double rotations) {
  const double positions = static_cast<double>(mla.yarn->original_positions);
  return static_cast<double>(mla.rope_dim) * std::log(positions / (2 * std::numbers::pi * rotations)) /
         (2 * std::log(mla.rope_theta));
}

}  // namespace

std::vector<float> rope_frequencies(const MlaConfig& mla) {
  const int64_t R = mla.rope_dim;
  std::vector<float> frequency(static_cast<size_t>(R / 2));
  double low = 0, high = 0;
  if (mla.yarn) {
    low = std::max(std::floor(correction_pair(mla, mla.yarn->beta_fast)), 0.0);
    high = std::min(std::ceil(correction_pair(mla, mla.yarn->beta_slow)), static_cast<double>(R - 1));
    if (low == high) high += 0.001;
  }
  for (int64_t i = 0; i < R / 2; ++i) {
    // fp32 throughout, as every reference does: parity matters more than the last bit here.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(R);
    const float plain = 1.0f / std::pow(static_cast<float>(mla.rope_theta), exponent);
    float value = plain;
    if (mla.yarn) {
      const double position = (static_cast<double>(i) - low) / (high - low);
      const float ramp = static_cast<float>(std::clamp(position, 0.0, 1.0));
      value = plain / static_cast<float>(mla.yarn->factor) * ramp + plain * (1.0f - ramp);
    }
    frequency[static_cast<size_t>(i)] = value;
  }
  return frequency;
}

double rope_multiplier(const MlaConfig& mla) {
  if (!mla.yarn) return 1.0;
  const YarnConfig& yarn = *mla.yarn;
  // Either field absent: transformers 5 uses m(factor, 1) alone.
  if (yarn.mscale == 0 || yarn.mscale_all_dim == 0) return mscale(yarn.factor, 1.0);
  return mscale(yarn.factor, yarn.mscale) / mscale(yarn.factor, yarn.mscale_all_dim);
}

RopeAngles rope_angles(const MlaConfig& mla, const Tensor& position_S) {
  const int64_t S = position_S.size(0);
  HADAL_SHAPE(position_S, S);
  const Tensor frequency = from_floats(rope_frequencies(mla));
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
