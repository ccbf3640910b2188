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

inline Engine small_engine(int64_t cache_tokens = 8192, int64_t max_sequences = 16) {
  return Engine(open_network(golden_dir("v3-mtp")), byte_tokenizer(),
                {.threads = 1, .cache_tokens = cache_tokens, .max_sequences = max_sequences});
}

}  // namespace hadal
