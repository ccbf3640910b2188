// A longer context by YaRN, for a model that is then trained on longer sequences.
#pragma once
#include "hadal/config.h"

namespace hadal {

// `config` with so many positions, from those that it was first trained on: its max_positions, or where it
// has YaRN already that one's. factor 0: the ratio of the two; V3 took the final 40 in both of its phases
// (report 4.3). Throws invalid_config unless positions are more and the factor reaches them.
ModelConfig extended(const ModelConfig& config, int64_t positions, double factor = 0);

}  // namespace hadal
