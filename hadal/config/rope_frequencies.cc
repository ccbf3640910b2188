#include "hadal/config/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

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

}  // namespace hadal
