// hadal run: text from a model, once or as a chat.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/compute/chat.h"
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/input.h"
#include "hadal/cli/output.h"
#include "hadal/engine/generate.h"
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

void print_json(const GenerateResult& r) {
  Json json;
  json["text"] = r.text;
  json["tokens"] = r.tokens;
  json["finish_reason"] = name(r.reason);
  json["prompt_tokens"] = r.prompt_tokens;
  json["generated_tokens"] = r.tokens.size();
  json["first_token_seconds"] = r.first_token_seconds;
  json["tokens_per_second"] = r.tokens_per_second();
  print(dump_json(json) + "\n");
}

}  // namespace

std::string usage_line(const GenerateResult& r) {
  char text[200];
  std::snprintf(text, sizeof text,
                "%lld prompt tokens (%lld reused), first token after %.3f s; %zu new tokens, %.1f tokens/s; "
                "ended: %s\n",
                static_cast<long long>(r.prompt_tokens), static_cast<long long>(r.reused_tokens),
                r.first_token_seconds, r.tokens.size(), r.tokens_per_second(), name(r.reason));
  return text;
}

int run_run(const RunOptions& o) {
  use_threads(o.threads);
  const Transformer model = open_model(o.model, o.dtype);
  use_threads_for(model, o.threads);
  const std::optional<Tokenizer> tokenizer = open_tokenizer(o.model);
  if (!o.has_prompt()) {
    need_tokenizer(tokenizer, o.model);
    return run_chat(o, model, *tokenizer);
  }
  Generator generator(model, tokenizer);
  GenerateRequest request{.max_tokens = o.max_tokens, .sampling = o.sampling, .stops = o.stop};
  const InterruptWatch watch;
  const auto stream = [](std::string_view piece) {
    print(piece);
    flush_output();
  };
  for (std::vector<int32_t>& prompt : read_prompts(o, tokenizer)) {
    request.prompt = std::move(prompt);
    const bool as_text = !o.json && tokenizer;
    const GenerateResult r = as_text ? generator.generate(request, stream, &watch.flag())
                                     : generator.generate(request, {}, &watch.flag());
    if (o.json) {
      print_json(r);
    } else if (!tokenizer) {
      for (const int32_t id : r.tokens) print(cat(id, " "));
    }
    if (!o.json) print("\n");
    std::fputs(usage_line(r).c_str(), stderr);
    if (r.reason == FinishReason::kCancelled) return kInterruptedExit;
  }
  return 0;
}

}  // namespace hadal
