#include "hadal/engine/generate.h"

#include <algorithm>
#include <chrono>

#include "hadal/base/text.h"
#include "hadal/engine/stop_strings.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

// Prompts go in by chunks, so that scores never hold a prompt squared.
constexpr int64_t kPrefillChunk = 512;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double GenerateResult::tokens_per_second() const {
  return tokens.size() > 1 && decode_seconds > 0 ? static_cast<double>(tokens.size() - 1) / decode_seconds
                                                 : 0.0;
}

Generator::Generator(const Transformer& model, std::optional<Tokenizer> tokenizer)
    : model_(model), tokenizer_(std::move(tokenizer)) {
  const int64_t W = model_.config().vocab_size;
  if (tokenizer_ && tokenizer_->vocab_size() > W)
    throw Error(ErrorCode::kInvalidConfig,
                cat("[engine.generate] the tokenizer has ", tokenizer_->vocab_size(),
                    " tokens, the model's vocabulary ", W,
                    ": they do not belong together. Use the tokenizer of this model."));
}

void Generator::check_request(const GenerateRequest& request) const {
  check(request.sampling);
  const auto n = static_cast<int64_t>(request.prompt.size());
  const int64_t W = model_.config().vocab_size, context = model_.config().max_positions;
  if (n == 0)
    throw Error(ErrorCode::kInvalidArgument,
                "[engine.generate] the prompt is empty. Give at least one token.");
  if (request.max_tokens < 0)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[engine.generate] max_tokens is ", request.max_tokens, ", need 0 or more."));
  if (n > context)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[engine.generate] the prompt has ", n, " tokens, the model's context is ", context,
                    ". Shorten the prompt."));
  for (const int32_t id : request.prompt)
    if (id < 0 || id >= W)
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[engine.generate] token id ", id, " is outside the vocabulary: need 0 to ", W - 1,
                      ". Was the text encoded with another model's tokenizer?"));
  if (!tokenizer_ && !request.stops.empty())
    throw Error(ErrorCode::kInvalidArgument,
                "[engine.generate] stop strings need a tokenizer. Put tokenizer.json beside the weights.");
}

bool Generator::is_end(int32_t id) const {
  const auto& ends = model_.config().eos_ids;
  return std::find(ends.begin(), ends.end(), id) != ends.end() || (tokenizer_ && tokenizer_->eos_id() == id);
}

Tensor Generator::feed(std::span<const int32_t> ids) {
  Tensor hidden_SD;
  for (size_t at = 0; at < ids.size(); at += kPrefillChunk) {
    const auto chunk = ids.subspan(at, std::min<size_t>(kPrefillChunk, ids.size() - at));
    hidden_SD = model_.forward(from_ids(chunk).unsqueeze(0), &*cache_)[0];
    cached_.insert(cached_.end(), chunk.begin(), chunk.end());
  }
  return model_.logits(hidden_SD[-1]);
}

Tensor Generator::prefill(const std::vector<int32_t>& prompt, int64_t* reused) {
  const auto agree = std::mismatch(prompt.begin(), prompt.end() - 1, cached_.begin(), cached_.end());
  *reused = agree.first - prompt.begin();  // the last token is always fed: its logits are wanted
  cached_.resize(static_cast<size_t>(*reused));
  const auto n = static_cast<int64_t>(prompt.size());
  if (!cache_) cache_.emplace(model_.config(), 1, n, model_.dtype());
  cache_->truncate(*reused);
  cache_->reserve(n);
  return feed(std::span(prompt).subspan(static_cast<size_t>(*reused)));
}

GenerateResult Generator::generate(const GenerateRequest& request,
                                   const std::function<void(std::string_view)>& on_text,
                                   const std::atomic<bool>* interrupt) {
  check_request(request);
  NoGrad no_grad;
  const auto start = std::chrono::steady_clock::now();
  GenerateResult result{.prompt_tokens = static_cast<int64_t>(request.prompt.size())};
  StopStrings stops(request.stops);
  std::optional<IncrementalDecoder> decoder;
  if (tokenizer_) decoder.emplace(*tokenizer_, /*skip_special=*/true);
  const auto emit = [&](const std::string& piece) {
    result.text += piece;
    if (on_text && !piece.empty()) on_text(piece);
  };

  std::vector<float> logits = to_floats(prefill(request.prompt, &result.reused_tokens));
  for (int64_t n = 0;; ++n) {
    if (n == request.max_tokens) break;  // kMaxTokens
    const SamplerInput input{logits, request.prompt, result.tokens,
                             tokenizer_ ? tokenizer_->vocab_size() : -1};
    const int32_t id = sample(request.sampling, input, /*stream=*/0, static_cast<uint64_t>(n));
    if (n == 0) result.first_token_seconds = seconds_since(start);
    if (is_end(id)) {
      result.reason = FinishReason::kEndToken;
      break;
    }
    result.tokens.push_back(id);
    if (decoder) emit(stops.push(decoder->push(id)));
    if (stops.stopped()) {
      result.reason = FinishReason::kStopString;
      break;
    }
    if (interrupt && interrupt->load()) {
      result.reason = FinishReason::kCancelled;
      break;
    }
    if (cache_->length() == model_.config().max_positions) {
      result.reason = FinishReason::kContextFull;
      break;
    }
    if (n + 1 == request.max_tokens) break;  // its logits would go unused
    if (cache_->length() == cache_->capacity())
      cache_->reserve(std::min(model_.config().max_positions, 2 * cache_->capacity() + 16));
    logits = to_floats(feed({&id, 1}));
  }
  if (decoder) {
    emit(stops.push(decoder->flush()));
    emit(stops.finish());
  }
  result.decode_seconds = seconds_since(start) - result.first_token_seconds;
  return result;
}

}  // namespace hadal
