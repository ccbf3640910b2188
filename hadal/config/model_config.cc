#include <cmath>

#include "hadal/config.h"

namespace hadal {

bool ModelConfig::is_moe(int64_t layer) const {
  if (moe.num_experts == 0) return false;
  return layer >= num_layers || (layer >= moe.first_layer && layer % moe.layer_step == 0);
}

double ModelConfig::softmax_scale() const {
  double scale = 1.0 / std::sqrt(static_cast<double>(mla.key_dim()));
  if (mla.yarn && mla.yarn->mscale_all_dim != 0 && mla.yarn->factor > 1) {
    const double m = 0.1 * mla.yarn->mscale_all_dim * std::log(mla.yarn->factor) + 1.0;
    scale *= m * m;
  }
  return scale;
}

}  // namespace hadal
