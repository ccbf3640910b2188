// What the compute commands open before they work.
#pragma once
#include <optional>
#include <string>

#include "hadal/model/transformer.h"
#include "hadal/tokenizer.h"

namespace hadal {

// Sets LibTorch's threads (0: all cores) and its use of memory.
void use_threads(int64_t threads);

// The model of a folder; dtype: auto (as stored, FP8 as bf16), f32, bf16.
Transformer open_model(const std::string& folder, const std::string& dtype);

// The configuration of the weights in a folder: where config.json states an MTP module that is not stored,
// without it, and says so.
ModelConfig start_config(const std::string& folder);

// The tokenizer beside the weights; nullopt if there is none.
std::optional<Tokenizer> open_tokenizer(const std::string& folder);

}  // namespace hadal
