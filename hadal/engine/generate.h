// Text from a model: prefill of the prompt, then one token at a time from the latent cache.
#pragma once
#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hadal/engine.h"
#include "hadal/engine/sampler.h"
#include "hadal/model/transformer.h"
#include "hadal/tokenizer.h"

namespace hadal {

struct GenerateRequest {
  std::vector<int32_t> prompt;  // token ids, at least one
  int64_t max_tokens = 256;     // new tokens at most
  SamplingParams sampling;
  std::vector<std::string> stops;  // the text ends before the first of these
};

struct GenerateResult {
  std::vector<int32_t> tokens;  // new ones, without the end token
  std::string text;
  FinishReason reason = FinishReason::kMaxTokens;
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;         // of the prompt, found in the cache
  double first_token_seconds = 0;    // from the call to the first new token
  double decode_seconds = 0;         // from there to the last
  double tokens_per_second() const;  // of decoding; 0 with fewer than two tokens
};

// Generates for one sequence at a time. Keeps the cache between calls, so a prompt that continues what was
// said before costs only its new tokens. Not thread-safe.
class Generator {
 public:
  // Without a tokenizer there is no text: only tokens, and no stop strings. The model must outlive this.
  Generator(const Transformer& model, std::optional<Tokenizer> tokenizer);

  // Calls on_text with each piece that became certain; *interrupt ends the generation after the current
  // token. Throws invalid_argument for an empty prompt, ids outside the vocabulary, a prompt longer than the
  // context.
  GenerateResult generate(const GenerateRequest& request,
                          const std::function<void(std::string_view)>& on_text = {},
                          const std::atomic<bool>* interrupt = nullptr);

 private:
  void check_request(const GenerateRequest& request) const;
  // Brings the cache to hold the whole prompt; returns the logits after its last token.
  Tensor prefill(const std::vector<int32_t>& prompt, int64_t* reused);
  Tensor feed(std::span<const int32_t> ids);
  bool is_end(int32_t id) const;

  const Transformer& model_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<LatentCache> cache_;
  std::vector<int32_t> cached_;  // ids whose rows are in cache_
};

}  // namespace hadal
