// What the compute commands open before they work.
#pragma once
#include <atomic>
#include <optional>
#include <string>

#include "hadal/model/transformer.h"
#include "hadal/tokenizer.h"

namespace hadal {

// Sets LibTorch's threads; 0: all cores.
void use_threads(int64_t threads);

// The model of a folder; dtype as in RunOptions.
Transformer open_model(const std::string& folder, const std::string& dtype);

// The tokenizer beside the weights; nullopt if there is none.
std::optional<Tokenizer> open_tokenizer(const std::string& folder);

// True after the first SIGINT or SIGTERM; a second one kills. Installs the handlers on first use.
std::atomic<bool>& interrupted();

}  // namespace hadal
