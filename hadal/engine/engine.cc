#include "hadal/engine.h"

#include <algorithm>

#include "hadal/base/clock.h"
#include "hadal/base/machine.h"
#include "hadal/base/text.h"
#include "hadal/engine/engine_state.h"
#include "hadal/engine/open_network.h"
#include "hadal/engine/sampler.h"
#include "hadal/error.h"

namespace hadal {
namespace {

int64_t context_of(const EngineConfig& config, const ModelConfig& model) {
  return config.context_tokens > 0 ? std::min(config.context_tokens, model.max_positions)
                                   : model.max_positions;
}

// Pages for the configured tokens, or for what a quarter of the free memory holds.
int64_t choose_pages(const EngineConfig& config, const ModelConfig& model, CacheFormat format,
                     int64_t layers) {
  const int64_t bytes = page_bytes(model.mla, format, layers);
  const int64_t available = this_machine().available_bytes;
  if (config.cache_tokens > 0) {
    const int64_t pages = (config.cache_tokens + kPageTokens - 1) / kPageTokens;
    if (available > 0 && pages * bytes > available)
      throw Error(
          ErrorCode::kExhausted,
          cat("[engine.open] a cache of ", config.cache_tokens, " tokens takes ", pages * bytes >> 20,
              " MiB, free are ", available >> 20, " MiB. Ask for fewer tokens or a smaller cache format."));
    return pages;
  }
  const int64_t context = (context_of(config, model) + kPageTokens - 1) / kPageTokens;
  const int64_t affordable = available > 0 ? available / 4 / bytes : context;
  return std::max<int64_t>(1, std::min(affordable, context * config.max_sequences));
}

std::vector<int64_t> end_ids(const ModelConfig& model, const std::optional<Tokenizer>& tokenizer) {
  std::vector<int64_t> ids = model.eos_ids;
  if (tokenizer && tokenizer->eos_id()) ids.push_back(*tokenizer->eos_id());
  return ids;
}

void check(const EngineConfig& c) {
  const auto require = [](bool good, const char* field, int64_t value, const char* need) {
    if (!good)
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[engine.config] ", field, " is ", value, ", need ", need, "."));
  };
  require(c.threads >= 0, "threads", c.threads, "0 (one per core) or more");
  require(c.cache_tokens >= 0, "cache_tokens", c.cache_tokens, "0 (by memory) or more");
  require(c.max_sequences >= 1, "max_sequences", c.max_sequences, "at least 1");
  require(c.max_batch_tokens >= 1, "max_batch_tokens", c.max_batch_tokens, "at least 1");
  require(c.context_tokens >= 0, "context_tokens", c.context_tokens, "0 (the model's) or more");
  require(c.keep_tokens >= 0, "keep_tokens", c.keep_tokens, "0 or more");
}

SchedulerLimits limits(const EngineConfig& config, const ModelConfig& model) {
  SchedulerLimits out;
  out.max_sequences = config.max_sequences;
  out.max_batch_tokens = std::max(config.max_batch_tokens, config.max_sequences + 1);
  out.chunk_tokens = out.max_batch_tokens;
  out.max_context_tokens = context_of(config, model);
  out.overflow = config.overflow, out.keep_tokens = config.keep_tokens;
  return out;
}

}  // namespace

Engine::State::State(NetworkWeights weights, std::optional<Tokenizer> tokenizer_in,
                     const EngineConfig& config_in)
    : config(config_in),
      pool(config_in.threads),
      network(std::move(weights), pool),
      tokenizer(std::move(tokenizer_in)),
      model(network.config()),
      speculation(model.mtp_depth == 0 ? Speculation::kOff : config.speculation),
      context(context_of(config, model)),
      format(choose_cache_format(config.cache_dtype, network.weights())),
      layers(model.num_layers + (speculation == Speculation::kOff ? 0 : 1)),
      num_pages(choose_pages(config, model, format, layers)),
      storage(model.mla, layers, num_pages, format),
      table({.num_pages = num_pages, .reuse_prefixes = config.reuse_prefixes}),
      scheduler(limits(config, model), table),
      eos_ids(end_ids(model, tokenizer)),
      page_has_mtp(static_cast<size_t>(num_pages), 0) {
  if (tokenizer && tokenizer->vocab_size() > model.vocab_size)
    throw Error(
        ErrorCode::kInvalidConfig,
        cat("[engine.open] the tokenizer has ", tokenizer->vocab_size(), " tokens, the model's vocabulary ",
            model.vocab_size, ": they do not belong together. Use the tokenizer of this model."));
  for (int64_t i = 0; i < model.num_layers; ++i)
    if (model.is_moe(i)) stats.expert_load.emplace_back(static_cast<size_t>(model.moe.num_experts), 0);
}

void Engine::State::check_request(const Request& request) const {
  hadal::check(request.sampling);
  const int64_t W = model.vocab_size;
  if (request.prompt.empty())
    throw Error(ErrorCode::kInvalidArgument, "[engine.submit] the prompt is empty. Give at least one token.");
  if (config.overflow == Overflow::kRefuse && static_cast<int64_t>(request.prompt.size()) >= context)
    throw Error(ErrorCode::kInvalidArgument, cat("[engine.submit] the prompt has ", request.prompt.size(),
                                                 " tokens, the context is ", context,
                                                 " for prompt and answer. Shorten the prompt, or let the "
                                                 "oldest tokens go (--overflow shift, Overflow::kShift)."));
  if (request.max_tokens < 1)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[engine.submit] max_tokens is ", request.max_tokens, ", need at least 1."));
  for (const int32_t id : request.prompt)
    if (id < 0 || id >= W)
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[engine.submit] token id ", id, " is outside the vocabulary: need 0 to ", W - 1,
                      ". Was the text encoded with another model's tokenizer?"));
  if (!tokenizer && !request.stops.empty())
    throw Error(ErrorCode::kInvalidArgument,
                "[engine.submit] stop strings need a tokenizer. Put tokenizer.json beside the weights.");
  if (request.constraint && (!tokenizer || request.ignore_end))
    throw Error(
        ErrorCode::kInvalidArgument,
        tokenizer ? "[engine.submit] ignore_end is set, and a constraint ends the answer itself. Drop one."
                  : "[engine.submit] a constraint needs a tokenizer. Put tokenizer.json beside the weights.");
}

std::shared_ptr<const VocabularyTrie> Engine::State::vocabulary() {
  std::call_once(vocabulary_made_, [&] {
    if (tokenizer) vocabulary_ = std::make_shared<VocabularyTrie>(*tokenizer, eos_ids);
  });
  return vocabulary_;
}

Engine Engine::open(const std::filesystem::path& folder, const EngineConfig& config) {
  check(config);
  self_test(infer_kernels());
  std::optional<Tokenizer> tokenizer;
  if (std::filesystem::exists(folder / "tokenizer.json")) tokenizer = Tokenizer::load(folder);
  return Engine(open_network(folder), std::move(tokenizer), config);
}

Engine::Engine(NetworkWeights weights, std::optional<Tokenizer> tokenizer, const EngineConfig& config) {
  check(config);
  state_ = std::make_unique<State>(std::move(weights), std::move(tokenizer), config);
}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

RequestId Engine::submit(Request request) {
  State& s = *state_;
  s.check_request(request);
  const auto vocabulary = request.constraint ? s.vocabulary() : nullptr;
  const RequestId id = s.next_id;
  SequenceRequest sequence{
      .id = static_cast<SequenceId>(id), .prompt = request.prompt, .max_tokens = request.max_tokens};
  const int64_t num_prompt = std::ssize(request.prompt);
  AnswerState answer(std::move(request), s.tokenizer, s.eos_ids, vocabulary);
  s.scheduler.submit(std::move(sequence), now_seconds());
  ++s.next_id;
  s.stats.prompt_tokens += num_prompt;
  s.running.emplace(id, State::Running{.answer = std::move(answer)});
  return id;
}

bool Engine::cancel(RequestId request) {
  State& s = *state_;
  if (s.running.erase(request) == 0) return false;
  ++s.stats.cancelled_requests;
  return s.scheduler.cancel(static_cast<SequenceId>(request), now_seconds());
}

std::vector<Delta> Engine::step() {
  return state_->step();
}

bool Engine::idle() const {
  return state_->scheduler.idle() && state_->unseen.empty();
}

Answer Engine::generate(Request request, const std::function<void(std::string_view)>& on_text,
                        const std::atomic<bool>* interrupt) {
  const double start = now_seconds();
  const RequestId id = submit(std::move(request));
  Answer answer;
  while (true) {
    std::vector<Delta> others;
    bool ended = false;
    for (Delta& delta : state_->step()) {
      if (delta.request != id) {
        others.push_back(std::move(delta));
        continue;
      }
      if (answer.tokens.empty() && answer.first_token_seconds == 0)
        answer.first_token_seconds = now_seconds() - start;
      answer.text += delta.text;
      if (on_text && !delta.text.empty()) on_text(delta.text);
      std::move(delta.tokens.begin(), delta.tokens.end(), std::back_inserter(answer.tokens));
      answer.usage = delta.usage;
      if (delta.finished) answer.reason = *delta.finished, ended = true;
    }
    state_->unseen = std::move(others);
    if (ended) break;
    if (interrupt && interrupt->load()) {
      cancel(id);
      answer.reason = FinishReason::kCancelled;
      break;
    }
  }
  answer.decode_seconds = now_seconds() - start - answer.first_token_seconds;
  return answer;
}

const ModelConfig& Engine::model() const {
  return state_->model;
}
const std::optional<Tokenizer>& Engine::tokenizer() const {
  return state_->tokenizer;
}
std::shared_ptr<const VocabularyTrie> Engine::vocabulary() const {
  return state_->vocabulary();
}
int64_t Engine::context() const {
  return state_->context;
}
int64_t Engine::max_sequences() const {
  return state_->config.max_sequences;
}

EngineStats Engine::stats() const {
  EngineStats out = state_->stats;
  const SchedulerStats scheduler = state_->scheduler.stats();
  const PageTableStats pages = state_->table.stats();
  out.running = scheduler.running, out.waiting = scheduler.waiting;
  out.pages = pages.pages, out.pages_used = pages.used, out.pages_cached = pages.cached;
  out.context_shifts = scheduler.shifts, out.prompt_rows = scheduler.prompt_rows;
  out.cache_bytes = pages.pages * page_bytes(state_->model.mla, state_->format, state_->layers);
  return out;
}

}  // namespace hadal
