// What the compute commands open before they work.
#pragma once
#include <atomic>
#include <optional>
#include <string>

#include "hadal/model/transformer.h"
#include "hadal/tokenizer.h"

namespace hadal {

// Sets LibTorch's threads (0: all cores) and its use of memory.
void use_threads(int64_t threads);

// For generating from `model`: with threads 0, a model whose weights for one token take less than 100 MB gets
// one thread, since its operations are so short that waiting for a second one costs more than it gives.
void use_threads_for(const Transformer& model, int64_t threads);

// The model of a folder; dtype as in RunOptions.
Transformer open_model(const std::string& folder, const std::string& dtype);

// The tokenizer beside the weights; nullopt if there is none.
std::optional<Tokenizer> open_tokenizer(const std::string& folder);

// While one lives, the first SIGINT or SIGTERM sets the flag instead of ending the process; a second one ends
// it. One at a time.
class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  const std::atomic<bool>& flag() const;
};

}  // namespace hadal
