// A model folder as the network's weights, mapped and computed in the formats they are stored in. Torch-free.
#pragma once
#include <filesystem>

#include "hadal/network/latent_pages.h"
#include "hadal/network/weights.h"

namespace hadal {

// Reads FOLDER/config.json and maps the weights beside it; costs the headers and the norms, matrices are read
// when used. F16 matrices become F32 copies. MTP modules the file does not hold are left out.
// Throws what load_config and open_checkpoint throw, invalid_config if they do not fit, unsupported
// (a reward model where a language model is wanted, or the other way round).
NetworkWeights open_network(const std::filesystem::path& folder, Purpose purpose = Purpose::kLanguage);

// The cache's format by name; "auto": F32 for a model stored in F32, else BF16. Throws invalid_argument.
CacheFormat choose_cache_format(const std::string& wanted, const NetworkWeights& weights);

}  // namespace hadal
