// hadal run: text from a model, once or as a chat.
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/chat.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/input.h"
#include "hadal/cli/interrupt.h"
#include "hadal/cli/output.h"
#include "hadal/engine.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr int kInterruptedExit = 130;

const Tokenizer& need_tokenizer(const std::optional<Tokenizer>& tokenizer, const std::string& model) {
  if (tokenizer) return *tokenizer;
  throw Error(
      ErrorCode::kNotFound,
      cat("[cli.run] ", model, " has no tokenizer.json. Put it there, or give token ids with --ids."));
}

// The prompts as token ids: several only with --ids.
std::vector<std::vector<int32_t>> read_prompts(const RunOptions& o,
                                               const std::optional<Tokenizer>& tokenizer) {
  if (!o.ids_file.empty()) return read_token_ids(o.ids_file);
  const std::string text = o.prompt ? *o.prompt : read_text(o.prompt_file);
  require_utf8(text, "--prompt");
  const Tokenizer& t = need_tokenizer(tokenizer, o.model);
  if (!o.chat) return {t.encode_prompt(text)};
  const ChatTemplate format =
      o.chat_template.empty() ? ChatTemplate::detect(t) : ChatTemplate::named(o.chat_template);
  std::vector<ChatMessage> messages;
  if (!o.system.empty()) messages.push_back({.role = "system", .content = o.system});
  messages.push_back({.role = "user", .content = text});
  return {format.encode(t, messages)};
}

std::vector<int32_t> ids_of(const Answer& answer) {
  std::vector<int32_t> ids;
  for (const NewToken& token : answer.tokens) ids.push_back(token.id);
  return ids;
}

void print_json(const Answer& answer) {
  Json json;
  json["text"] = answer.text;
  json["tokens"] = ids_of(answer);
  json["finish_reason"] = name(answer.reason);
  json["prompt_tokens"] = answer.usage.prompt_tokens;
  json["generated_tokens"] = answer.tokens.size();
  json["drafted_tokens"] = answer.usage.drafted_tokens;
  json["accepted_tokens"] = answer.usage.accepted_tokens;
  json["dropped_tokens"] = answer.usage.dropped_tokens;
  json["first_token_seconds"] = answer.first_token_seconds;
  json["tokens_per_second"] = answer.tokens_per_second();
  print(dump_json(json) + "\n");
}

EngineConfig engine_config(const RunOptions& o) {
  EngineConfig config{
      .threads = static_cast<int>(o.threads), .cache_dtype = o.cache_dtype, .max_sequences = 1};
  config.speculation = speculation_of(o.speculation);
  config.context_tokens = o.context, config.keep_tokens = o.keep;
  config.overflow = o.overflow == "shift" ? Overflow::kShift : Overflow::kRefuse;
  return config;
}

}  // namespace

std::string usage_line(const Answer& answer) {
  char text[280];
  const Usage& usage = answer.usage;
  int n = std::snprintf(
      text, sizeof text,
      "%lld prompt tokens (%lld reused), first token after %.3f s; %zu new tokens, %.1f tokens/s",
      static_cast<long long>(usage.prompt_tokens), static_cast<long long>(usage.reused_tokens),
      answer.first_token_seconds, answer.tokens.size(), answer.tokens_per_second());
  if (usage.drafted_tokens > 0)
    n += std::snprintf(text + n, sizeof text - static_cast<size_t>(n), "; %lld of %lld guesses stood",
                       static_cast<long long>(usage.accepted_tokens),
                       static_cast<long long>(usage.drafted_tokens));
  if (usage.dropped_tokens > 0)
    n += std::snprintf(text + n, sizeof text - static_cast<size_t>(n), "; %lld tokens left the context",
                       static_cast<long long>(usage.dropped_tokens));
  std::snprintf(text + n, sizeof text - static_cast<size_t>(n), "; ended: %s\n", name(answer.reason));
  return text;
}

namespace {

int answer_prompts(const RunOptions& o, Engine& engine) {
  const std::optional<Tokenizer>& tokenizer = engine.tokenizer();
  const InterruptWatch watch;
  const auto stream = [](std::string_view piece) {
    print(piece);
    flush_output();
  };
  for (std::vector<int32_t>& prompt : read_prompts(o, tokenizer)) {
    Request request{
        .prompt = std::move(prompt), .max_tokens = o.max_tokens, .sampling = o.sampling, .stops = o.stop};
    const bool as_text = !o.json && tokenizer;
    const Answer answer = as_text ? engine.generate(std::move(request), stream, &watch.flag())
                                  : engine.generate(std::move(request), {}, &watch.flag());
    if (o.json) {
      print_json(answer);
    } else if (!tokenizer) {
      for (const int32_t id : ids_of(answer)) print(cat(id, " "));
    }
    if (!o.json) print("\n");
    std::fputs(usage_line(answer).c_str(), stderr);
    if (answer.reason == FinishReason::kCancelled) return kInterruptedExit;
  }
  return 0;
}

}  // namespace

int run_run(const RunOptions& o) {
  Engine engine = Engine::open(o.model, engine_config(o));
  if (!o.has_prompt()) need_tokenizer(engine.tokenizer(), o.model);
  if (!o.cache_file.empty() && std::filesystem::exists(o.cache_file)) engine.load_cache(o.cache_file);
  const int code = o.has_prompt() ? answer_prompts(o, engine) : run_chat(o, engine);
  if (!o.cache_file.empty()) engine.save_cache(o.cache_file);
  return code;
}

}  // namespace hadal
