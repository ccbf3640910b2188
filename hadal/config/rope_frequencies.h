// Frequencies of rotary position embedding with YaRN (architecture spec 5.2, 5.3). Torch-free.
#pragma once
#include <vector>

#include "hadal/config.h"

namespace hadal {

// Frequencies f_i of the R/2 pairs, fp32; YaRN's blend if configured. Static: they never depend on the
// length.
std::vector<float> rope_frequencies(const MlaConfig& mla);

// m(factor, mscale) / m(factor, mscale_all_dim): multiplies cos and sin; 1 for every published model.
double rope_multiplier(const MlaConfig& mla);

}  // namespace hadal
