// A model for tests of the server: golden weights of a few kilobytes a layer and a tokenizer whose tokens are
// single bytes and the published formats' markers.
#pragma once
#include "hadal/engine.h"
#include "hadal/engine/open_network.h"
#include "tests/support/golden.h"

namespace hadal {

inline constexpr const char* kByteTokenizer = "tests/support/byte_tokenizer";

inline Tokenizer byte_tokenizer() {
  return Tokenizer::load(kByteTokenizer);
}

// Its context is longer than the golden one's, so that a chat with tools fits at a token a byte.
inline Engine small_engine(int64_t cache_tokens = 32768, int64_t max_sequences = 16) {
  NetworkWeights weights = open_network(golden_dir("v3-mtp"));
  weights.config.max_positions = 4096;
  return Engine(std::move(weights), byte_tokenizer(),
                {.threads = 1, .cache_tokens = cache_tokens, .max_sequences = max_sequences});
}

}  // namespace hadal
