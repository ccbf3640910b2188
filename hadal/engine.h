// Inference from C++: continuous batching over a paged latent cache. PUBLIC, torch-free.
//
// What a request answers depends on its prompt, its sampling parameters and the weights, bit for bit: neither
// on who else is in the batch, nor on chunks, threads, cached prefixes or speculation (one machine, one
// program).
#pragma once
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/config.h"
#include "hadal/sampling.h"
#include "hadal/tokenizer.h"

namespace hadal {

struct NetworkWeights;
class VocabularyTrie;
class Constraint;  // hadal/engine/constraint.h: what the text of an answer may be; immutable, to be shared

enum class Speculation { kOff, kOn, kAuto };  // kAuto: while it pays, as measured

// When prompt and answer reach the context. kRefuse: a longer prompt is refused, an answer ends there
// (FinishReason::kContextFull). kShift: the oldest tokens behind a kept head leave the context, half of what
// follows the head at a time, and the answer goes on; of a longer prompt, before it starts. What stays keeps
// its latents, computed with what went, and has its keys rotated to the new positions: an approximation, but
// the same one whoever else is in the batch and however the tokens came.
enum class Overflow { kRefuse, kShift };

struct EngineConfig {
  int threads = 0;           // 0: one per core
  int64_t cache_tokens = 0;  // 0: what a quarter of the free memory holds, at most max_sequences contexts
  std::string cache_dtype = "auto";  // f32, bf16, int8, fp8; auto: f32 for a model stored in F32, else bf16
  int64_t max_sequences = 64;        // that run at the same time
  int64_t max_batch_tokens = 512;    // of one step, prompts and answers together
  bool reuse_prefixes = true;        // prompts that begin alike share what was computed for them
  Speculation speculation = Speculation::kAuto;  // with a model that has an MTP module
  int64_t context_tokens = 0;                    // of a sequence; 0, or more than the model's: the model's
  Overflow overflow = Overflow::kRefuse;
  int64_t keep_tokens = 64;  // kShift: of the head, rounded up to whole pages of 64
};

using RequestId = uint64_t;

struct Request {
  std::vector<int32_t> prompt;     // token ids, at least one
  int64_t max_tokens = 256;        // new tokens at most
  SamplingParams sampling;         // its seed decides every draw
  std::vector<std::string> stops;  // the text ends before the first of these
  bool ignore_end = false;         // go on after an end token
  // The answer is a text that this allows, and ends as soon as nothing but its end may follow; only the
  // limits and stop strings cut it short. Needs a tokenizer; excludes ignore_end.
  std::shared_ptr<const Constraint> constraint;
  int64_t top_logprobs = -1;  // >= 0: report the chosen token's log probability and this many alternatives'
  bool want_end = false;      // the end token is among the new tokens too
  bool want_experts = false;  // report which experts each token's layers chose
};

// kDeadEnd: the vocabulary has no token for what the constraint asks for next.
enum class FinishReason { kEndToken, kStopString, kMaxTokens, kContextFull, kCancelled, kDeadEnd };
const char* name(FinishReason reason);  // "stop", "stop_string", "length", "context", "cancelled", "dead_end"

struct NewToken {
  int32_t id = 0;
  bool guessed = false;                // the MTP module's draft, confirmed by the main model
  std::vector<TokenLogprob> logprobs;  // with top_logprobs: the chosen one, then the likeliest
  std::vector<int32_t> experts;  // with want_experts: [MoE layers, A] of the token this one was computed from
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;     // of the prompt, found in the cache
  int64_t generated_tokens = 0;  // the end token not counted
  int64_t drafted_tokens = 0, accepted_tokens = 0;
  int64_t dropped_tokens = 0;  // of prompt and answer: they left the context (Overflow::kShift)
};

// What a step gave one request.
struct Delta {
  RequestId request = 0;
  std::string text;              // that became certain; "" without a tokenizer
  std::vector<NewToken> tokens;  // without the end token, unless it is wanted
  std::optional<FinishReason> finished;
  Usage usage;  // so far
};

struct EngineStats {
  int64_t running = 0, waiting = 0;
  int64_t pages = 0, pages_used = 0, pages_cached = 0;  // of 64 tokens; cached: free, but reusable by prefix
  // Since the start. The tokens are the sums of all requests' usage, cancelled ones' included.
  int64_t prompt_tokens = 0, reused_tokens = 0, generated_tokens = 0;
  int64_t drafted_tokens = 0, accepted_tokens = 0, dropped_tokens = 0;
  int64_t steps = 0;
  int64_t prompt_rows = 0;  // computed: of prompts, without what was found in the cache
  int64_t cancelled_requests = 0, finished_requests = 0;
  int64_t context_shifts = 0;
  int64_t cache_bytes = 0;
  std::vector<std::vector<int64_t>> expert_load;  // [MoE layers][E]: tokens sent, since the start
};

// A whole answer: generate().
struct Answer {
  std::vector<NewToken> tokens;
  std::string text;
  FinishReason reason = FinishReason::kMaxTokens;
  Usage usage;
  double first_token_seconds = 0;    // from the call to the first new token
  double decode_seconds = 0;         // from there to the last
  double tokens_per_second() const;  // of decoding; 0 with fewer than two tokens
};

// Not thread-safe: one thread owns an engine.
class Engine {
 public:
  // Opens a model folder: config.json, weights as stored (F32, BF16, FP8, INT8, INT4), tokenizer.json if
  // there. Throws what load_config, open_checkpoint and Tokenizer::load throw; exhausted if the cache does
  // not fit.
  static Engine open(const std::filesystem::path& folder, const EngineConfig& config = {});
  // Over weights that lie elsewhere, such as a trainer's.
  Engine(NetworkWeights weights, std::optional<Tokenizer> tokenizer, const EngineConfig& config = {});
  ~Engine();
  Engine(Engine&&) noexcept;

  // Queues a request. Throws invalid_argument (empty prompt, foreign ids, parameters), exhausted for one that
  // could never fit, with the numbers.
  RequestId submit(Request request);
  // Ends a request; its pages are free before the next step and no Delta follows. False if it is not there.
  bool cancel(RequestId request);
  // Runs one step for all requests that are due. Empty when idle. Throws internal if the logits are not
  // finite.
  std::vector<Delta> step();
  bool idle() const;

  // submit and step until this request is answered, others going on beside it. Calls on_text with each piece;
  // *interrupt ends it as cancelled.
  Answer generate(Request request, const std::function<void(std::string_view)>& on_text = {},
                  const std::atomic<bool>* interrupt = nullptr);

  // Writes all prefixes that could be reused now to a file (whole or not at all) and returns their tokens.
  // Throws what a full or forbidden disk makes of it.
  int64_t save_cache(const std::filesystem::path& path) const;
  // Takes back what save_cache() wrote, as far as free pages hold it, and returns the tokens taken; what is
  // cached already stays. Answers over it are the same bits as over a cold cache. Throws, and changes
  // nothing: not_found; invalid_argument (made by another model, cache format or instruction set; prefixes
  // are not reused); corrupt (cut short or altered).
  int64_t load_cache(const std::filesystem::path& path);

  const ModelConfig& model() const;
  const std::optional<Tokenizer>& tokenizer() const;
  // The tokens as constraints see them, to prepare what a request will need (ConstraintCursor); null without
  // a tokenizer. Made at the first call or for the first request with a constraint: 50 ms for 128K tokens.
  // Any thread, whatever another one does with the engine.
  std::shared_ptr<const VocabularyTrie> vocabulary() const;
  EngineStats stats() const;
  int64_t context() const;  // tokens of prompt and answer together; with Overflow::kShift: seen at a time
  int64_t max_sequences() const;  // that run at the same time

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
