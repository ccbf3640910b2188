#pragma once
#include <cstdint>
#include <string>

#include "hadal/config.h"

namespace hadal {

// Prints shape, sizes and costs of a model. `context`: tokens for the FLOPs; 0: 4096 or the longest there is.
// Throws invalid_argument for a context longer than the model's.
int info_model(const ModelConfig& config, const std::string& source, int64_t context, bool json);

}  // namespace hadal
