// The C library over SharedEngine: every function catches what is thrown, and buffers are malloc's.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "hadal/base/text.h"
#include "hadal/bindings/shared_engine.h"
#include "hadal/error.h"
#include "hadal/hadal_c.h"

struct hadal_model {
  std::shared_ptr<hadal::SharedEngine> engine;
};

namespace hadal {
namespace {

// Fixed, so that no memory is needed to say that there is none.
thread_local char last_error[2048] = "";

hadal_status fail(hadal_status status, const char* text) noexcept {
  std::strncpy(last_error, text, sizeof last_error - 1);
  return status;
}

// The C codes follow the order of ErrorCode, from 1.
static_assert(static_cast<int>(ErrorCode::kInvalidArgument) + 1 == HADAL_INVALID_ARGUMENT);
static_assert(static_cast<int>(ErrorCode::kInternal) + 1 == HADAL_INTERNAL);
static_assert(static_cast<int>(FinishReason::kCancelled) == HADAL_FINISH_CANCELLED);

template <class Body>
hadal_status guarded(const Body& body) noexcept {
  try {
    body();
    return HADAL_OK;
  } catch (const Error& error) {
    return fail(static_cast<hadal_status>(error.code()) + 1, error.what());
  } catch (const std::bad_alloc&) {
    return fail(HADAL_EXHAUSTED, "[c.call] out of memory.");
  } catch (const std::exception& error) {
    return fail(HADAL_INTERNAL, error.what());
  } catch (...) {
    return fail(HADAL_INTERNAL,
                "[c.call] an exception of unknown type: from the callback? It may not throw.");
  }
}

template <class T>
T& need(T* pointer, const char* op, const char* what) {
  if (pointer) return *pointer;
  throw Error(ErrorCode::kInvalidArgument, cat("[c.", op, "] ", what, " is NULL."));
}

// What the caller's header knows of a struct, over the defaults. A longer one is of a newer header: its
// additions must be zero, "as before".
template <class T>
T read_struct(const T* given, const T& defaults, const char* op) {
  T out = defaults;
  if (!given) return out;
  const size_t size = given->struct_bytes;
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (size < sizeof(size_t) || size > 4096)
    throw Error(ErrorCode::kInvalidArgument, cat("[c.", op, "] struct_bytes: got ", size,
                                                 ", need the size of the struct. Begin with the "
                                                 "_INIT macro."));
  for (size_t i = sizeof(T); i < size; ++i)
    if (bytes[i])
      throw Error(ErrorCode::kUnsupported,
                  cat("[c.", op, "] a field of the options is newer than this library, ", HADAL_VERSION,
                      ". Leave it 0, or install the library of the header."));
  std::memcpy(&out, given, std::min(size, sizeof(T)));
  return out;
}

// Kept for later versions, so no caller may have put anything there.
void check_reserved(int32_t value, const char* op) {
  if (value != 0)
    throw Error(ErrorCode::kInvalidArgument, cat("[c.", op, "] reserved: got ", value, ", need 0."));
}

template <class T>
T* allocate(size_t count) {
  if (void* out = std::malloc(std::max<size_t>(1, count * sizeof(T)))) return static_cast<T*>(out);
  throw std::bad_alloc();
}

void give(const std::vector<int32_t>& ids, int32_t** out, size_t* count) {
  int32_t* copy = allocate<int32_t>(ids.size());
  std::copy(ids.begin(), ids.end(), copy);
  *out = copy;
  *count = ids.size();
}

std::span<const int32_t> span_of(const int32_t* ids, size_t count, const char* op) {
  if (count > 0) need(ids, op, "ids");
  return {ids, count};
}

template <class Enum>
Enum choice(int32_t value, std::initializer_list<Enum> values, const char* name) {
  if (value >= 0 && static_cast<size_t>(value) < values.size()) return values.begin()[value];
  throw Error(ErrorCode::kInvalidArgument,
              cat("[c.open] ", name, ": got ", value, ", need 0 to ", values.size() - 1, "."));
}

EngineConfig engine_config(const hadal_open_options* given) {
  const hadal_open_options o = read_struct(given, HADAL_OPEN_OPTIONS_INIT, "open");
  check_reserved(o.reserved, "open");
  EngineConfig config{.threads = o.threads, .cache_tokens = o.cache_tokens};
  if (o.cache_dtype) config.cache_dtype = o.cache_dtype;
  if (o.max_sequences != 0) config.max_sequences = o.max_sequences;
  config.context_tokens = o.context_tokens;
  config.speculation =
      choice(o.speculation, {Speculation::kAuto, Speculation::kOn, Speculation::kOff}, "speculation");
  config.overflow = choice(o.overflow, {Overflow::kRefuse, Overflow::kShift}, "overflow");
  return config;
}

Request request_of(std::span<const int32_t> prompt, const hadal_generate_options* given) {
  const hadal_generate_options o = read_struct(given, HADAL_GENERATE_OPTIONS_INIT, "generate");
  check_reserved(o.reserved, "generate");
  Request request{.prompt = {prompt.begin(), prompt.end()}, .max_tokens = o.max_tokens};
  request.sampling = {.temperature = o.temperature,
                      .top_k = o.top_k,
                      .top_p = o.top_p,
                      .min_p = o.min_p,
                      .repetition_penalty = o.repetition_penalty,
                      .presence_penalty = o.presence_penalty,
                      .frequency_penalty = o.frequency_penalty,
                      .seed = o.seed};
  if (o.num_stops > 0) need(o.stops, "generate", "stops");
  for (size_t i = 0; i < o.num_stops; ++i)
    request.stops.emplace_back(&need(o.stops[i], "generate", "a stop string"));
  request.ignore_end = o.ignore_end != 0;
  return request;
}

bool wants_more(const Delta& delta, hadal_on_piece on_piece, void* user) {
  if (!on_piece || (delta.text.empty() && delta.tokens.empty())) return true;
  std::vector<int32_t> ids;
  for (const NewToken& token : delta.tokens) ids.push_back(token.id);
  const hadal_piece piece{delta.text.c_str(), delta.text.size(), ids.data(), ids.size()};
  return on_piece(user, &piece) == 0;
}

void write_usage(const AnswerStream& answer, hadal_usage* out) {
  if (!out) return;
  const Usage& usage = answer.usage();
  const hadal_usage filled{.struct_bytes = out->struct_bytes,
                           .finish = static_cast<int32_t>(answer.reason().value()),
                           .reserved = 0,
                           .prompt_tokens = usage.prompt_tokens,
                           .reused_tokens = usage.reused_tokens,
                           .generated_tokens = usage.generated_tokens,
                           .drafted_tokens = usage.drafted_tokens,
                           .accepted_tokens = usage.accepted_tokens,
                           .first_token_seconds = answer.first_token_seconds(),
                           .decode_seconds = answer.decode_seconds()};
  std::memcpy(out, &filled, std::min(out->struct_bytes, sizeof filled));
}

const Tokenizer& tokenizer_of(const hadal_model* model, const char* op) {
  return need(model, op, "model").engine->tokenizer();
}

void check_flags(uint32_t flags, uint32_t known, const char* op) {
  if (flags & ~known)
    throw Error(ErrorCode::kUnsupported,
                cat("[c.", op, "] flags: got ", flags, ", this library knows ", known, "."));
}

std::vector<int32_t> chat_ids(const Tokenizer& tokenizer, std::span<const hadal_message> given,
                              const hadal_chat_options* options) {
  const hadal_chat_options o = read_struct(options, HADAL_CHAT_OPTIONS_INIT, "chat_prompt");
  std::vector<ChatMessage> messages;
  for (const hadal_message& m : given)
    messages.push_back({.role = &need(m.role, "chat_prompt", "role"),
                        .content = &need(m.content, "chat_prompt", "content")});
  const ChatTemplate format = o.format ? ChatTemplate::named(o.format) : ChatTemplate::detect(tokenizer);
  return format.encode(tokenizer, messages,
                       {.add_generation_prompt = o.without_turn == 0, .thinking = o.thinking != 0});
}

}  // namespace
}  // namespace hadal

using hadal::guarded;
using hadal::need;

int32_t hadal_abi_version() {
  return HADAL_ABI_VERSION;
}

const char* hadal_version() {
  return HADAL_VERSION;
}

const char* hadal_status_name(hadal_status status) {
  if (status == HADAL_OK) return "ok";
  if (status < HADAL_OK || status > HADAL_INTERNAL) return "unknown";
  return hadal::name(static_cast<hadal::ErrorCode>(status - 1));
}

const char* hadal_last_error() {
  return hadal::last_error;
}

void hadal_free(void* buffer) {
  std::free(buffer);
}

hadal_status hadal_open(const char* folder, const hadal_open_options* options, hadal_model** model) {
  return guarded([&] {
    need(model, "open", "model");
    need(folder, "open", "folder");
    *model = new hadal_model{hadal::SharedEngine::open(folder, hadal::engine_config(options))};
  });
}

void hadal_close(hadal_model* model) {
  delete model;
}

int32_t hadal_has_tokenizer(const hadal_model* model) {
  return model && model->engine->has_tokenizer();
}

int64_t hadal_vocab_size(const hadal_model* model) {
  return model ? model->engine->model().vocab_size : 0;
}

int64_t hadal_context_tokens(const hadal_model* model) {
  return model ? model->engine->context() : 0;
}

hadal_status hadal_tokenize(const hadal_model* model, const char* text, size_t text_bytes, uint32_t flags,
                            int32_t** ids, size_t* num_ids) {
  return guarded([&] {
    const hadal::Tokenizer& tokenizer = hadal::tokenizer_of(model, "tokenize");
    need(ids, "tokenize", "ids"), need(num_ids, "tokenize", "num_ids");
    if (text_bytes > 0) need(text, "tokenize", "text");
    hadal::check_flags(flags, HADAL_TOKENIZE_PROMPT | HADAL_TOKENIZE_PLAIN, "tokenize");
    if (flags == (HADAL_TOKENIZE_PROMPT | HADAL_TOKENIZE_PLAIN))
      throw hadal::Error(hadal::ErrorCode::kInvalidArgument,
                         "[c.tokenize] flags: PROMPT and PLAIN exclude each other.");
    const std::string_view view(text_bytes > 0 ? text : "", text_bytes);
    hadal::give(flags & HADAL_TOKENIZE_PROMPT ? tokenizer.encode_prompt(view)
                                              : tokenizer.encode(view, !(flags & HADAL_TOKENIZE_PLAIN)),
                ids, num_ids);
  });
}

hadal_status hadal_detokenize(const hadal_model* model, const int32_t* ids, size_t num_ids, uint32_t flags,
                              char** text, size_t* text_bytes) {
  return guarded([&] {
    const hadal::Tokenizer& tokenizer = hadal::tokenizer_of(model, "detokenize");
    need(text, "detokenize", "text"), need(text_bytes, "detokenize", "text_bytes");
    hadal::check_flags(flags, HADAL_DETOKENIZE_SKIP_SPECIAL, "detokenize");
    const std::string decoded =
        tokenizer.decode(hadal::span_of(ids, num_ids, "detokenize"), flags & HADAL_DETOKENIZE_SKIP_SPECIAL);
    char* copy = hadal::allocate<char>(decoded.size() + 1);
    std::memcpy(copy, decoded.c_str(), decoded.size() + 1);
    *text = copy;
    *text_bytes = decoded.size();
  });
}

hadal_status hadal_chat_prompt(const hadal_model* model, const hadal_message* messages, size_t num_messages,
                               const hadal_chat_options* options, int32_t** ids, size_t* num_ids) {
  return guarded([&] {
    const hadal::Tokenizer& tokenizer = hadal::tokenizer_of(model, "chat_prompt");
    need(ids, "chat_prompt", "ids"), need(num_ids, "chat_prompt", "num_ids");
    if (num_messages > 0) need(messages, "chat_prompt", "messages");
    hadal::give(hadal::chat_ids(tokenizer, {messages, num_messages}, options), ids, num_ids);
  });
}

hadal_status hadal_generate(hadal_model* model, const int32_t* prompt, size_t num_prompt,
                            const hadal_generate_options* options, hadal_on_piece on_piece, void* user,
                            hadal_usage* usage) {
  return guarded([&] {
    need(model, "generate", "model");
    if (usage) hadal::read_struct<hadal_usage>(usage, HADAL_USAGE_INIT, "generate");
    hadal::AnswerStream answer =
        model->engine->start(hadal::request_of(hadal::span_of(prompt, num_prompt, "generate"), options));
    while (const std::optional<hadal::Delta> delta = answer.next())
      if (!hadal::wants_more(*delta, on_piece, user)) answer.cancel();
    hadal::write_usage(answer, usage);
  });
}
