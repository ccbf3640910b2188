#include "hadal/server/openai_response.h"

#include <nlohmann/json.hpp>
#include <span>

#include "hadal/base/text.h"

namespace hadal {
namespace {

std::string token_text(const Tokenizer* tokenizer, int32_t id) {
  return tokenizer && tokenizer->is_token(id) ? tokenizer->token_bytes(id) : std::string();
}

// A token and its log probability, as chat completions give it.
Json token_json(const Tokenizer* tokenizer, const TokenLogprob& t) {
  const std::string text = token_text(tokenizer, t.id);
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return Json{{"token", text}, {"logprob", t.logprob}, {"bytes", std::move(bytes)}};
}

Json top_json(const Tokenizer* tokenizer, const NewToken& token) {
  Json top = Json::array();
  for (size_t i = 1; i < token.logprobs.size(); ++i) top.push_back(token_json(tokenizer, token.logprobs[i]));
  return top;
}

Json chat_logprobs(const Tokenizer* tokenizer, std::span<const NewToken> tokens) {
  Json content = Json::array();
  for (const NewToken& token : tokens) {
    if (token.logprobs.empty()) continue;
    Json one = token_json(tokenizer, token.logprobs[0]);
    one["top_logprobs"] = top_json(tokenizer, token);
    content.push_back(std::move(one));
  }
  return Json{{"content", std::move(content)}, {"refusal", nullptr}};
}

// A key for a token: its text, or its bytes spelled out where they are no text by themselves (the API's way),
// so that no two tokens have the same.
std::string token_key(const Tokenizer* tokenizer, int32_t id) {
  std::string text = token_text(tokenizer, id);
  if (text.empty()) return cat("token_id:", id);
  if (is_utf8(text)) return text;
  std::string out = "bytes:";
  for (const char c : text)
    out += cat("\\x", "0123456789abcdef"[static_cast<unsigned char>(c) >> 4], "0123456789abcdef"[c & 15]);
  return out;
}

// offset: of the first token's text in the answer; moved behind the last.
Json text_logprobs(const Tokenizer* tokenizer, std::span<const NewToken> tokens, size_t& offset) {
  Json names = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const NewToken& token : tokens) {
    if (token.logprobs.empty()) continue;
    const std::string text = token_text(tokenizer, token.id);
    names.push_back(token_key(tokenizer, token.id));
    values.push_back(token.logprobs[0].logprob);
    Json top = Json::object();
    for (size_t i = 1; i < token.logprobs.size(); ++i)
      top[token_key(tokenizer, token.logprobs[i].id)] = token.logprobs[i].logprob;
    tops.push_back(std::move(top));
    offsets.push_back(offset);
    offset += text.size();
  }
  return Json{{"tokens", std::move(names)},
              {"token_logprobs", std::move(values)},
              {"top_logprobs", std::move(tops)},
              {"text_offset", std::move(offsets)}};
}

// What only this engine can tell of tokens.
Json trace_json(const Tokenizer* tokenizer, const AnswerChoice& choice, size_t first,
                int64_t experts_per_token) {
  Json tokens = Json::array();
  for (size_t i = first; i < choice.tokens.size(); ++i) {
    const NewToken& token = choice.tokens[i];
    Json one{{"id", token.id}, {"text", token_text(tokenizer, token.id)}};
    one["part"] = choice.token_in_reasoning[i] ? "reasoning" : "content";
    if (!token.logprobs.empty()) {
      one["logprob"] = token.logprobs[0].logprob;
      Json top = Json::array();
      for (size_t k = 1; k < token.logprobs.size(); ++k)
        top.push_back(Json{{"token", token_text(tokenizer, token.logprobs[k].id)},
                           {"logprob", token.logprobs[k].logprob}});
      one["top_logprobs"] = std::move(top);
    }
    one["guessed"] = token.guessed;
    Json layers = Json::array();
    for (size_t k = 0; experts_per_token > 0 && k < token.experts.size(); ++k) {
      if (k % static_cast<size_t>(experts_per_token) == 0) layers.push_back(Json::array());
      layers.back().push_back(token.experts[k]);
    }
    one["experts"] = std::move(layers);
    tokens.push_back(std::move(one));
  }
  return Json{{"tokens", std::move(tokens)}};
}

Json call_json(const ResponseHead& head, const AnswerPiece& call, int64_t choice, size_t index) {
  return Json{{"id", cat("call_", head.id.substr(head.id.find('-') + 1), "_", choice, "_", index)},
              {"type", "function"},
              {"function", {{"name", call.name}, {"arguments", call.text}}}};
}

Json usage_json(const std::vector<AnswerChoice>& choices) {
  Usage sum;
  for (const AnswerChoice& choice : choices) {
    sum.generated_tokens += choice.usage.generated_tokens;
    sum.drafted_tokens += choice.usage.drafted_tokens;
    sum.accepted_tokens += choice.usage.accepted_tokens;
    if (choice.first_of_prompt) {
      sum.prompt_tokens += choice.usage.prompt_tokens;
      sum.reused_tokens += choice.usage.reused_tokens;
    }
  }
  return Json{{"prompt_tokens", sum.prompt_tokens},
              {"completion_tokens", sum.generated_tokens},
              {"total_tokens", sum.prompt_tokens + sum.generated_tokens},
              {"prompt_tokens_details", {{"cached_tokens", sum.reused_tokens}}},
              {"hadal", {{"drafted_tokens", sum.drafted_tokens}, {"accepted_tokens", sum.accepted_tokens}}}};
}

Json head_json(const ResponseHead& head, bool chunk) {
  const char* object = !head.chat ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
  return Json{{"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}};
}

Json message_json(const ResponseHead& head, const AnswerChoice& choice) {
  Json message{{"role", "assistant"}};
  message["content"] = choice.content.empty() && !choice.calls.empty() ? Json(nullptr) : Json(choice.content);
  if (!choice.reasoning.empty()) message["reasoning_content"] = choice.reasoning;
  message["refusal"] = nullptr;
  if (!choice.calls.empty()) {
    Json calls = Json::array();
    for (size_t i = 0; i < choice.calls.size(); ++i)
      calls.push_back(call_json(head, choice.calls[i], choice.index, i));
    message["tool_calls"] = std::move(calls);
  }
  return message;
}

std::string chunk(const ResponseHead& head, Json choices) {
  Json out = head_json(head, /*chunk=*/true);
  out["choices"] = std::move(choices);
  if (head.include_usage) out["usage"] = nullptr;
  return dump_json(out);
}

}  // namespace

const char* openai_finish_reason(const AnswerChoice& choice) {
  if (!choice.finished) return "";
  switch (*choice.finished) {
    case FinishReason::kMaxTokens:
    case FinishReason::kContextFull:
    case FinishReason::kDeadEnd:
      return "length";
    default:
      return choice.calls.empty() && choice.parser.num_tool_calls() == 0 ? "stop" : "tool_calls";
  }
}

std::string response_json(const ResponseHead& head, const std::vector<AnswerChoice>& choices,
                          const Tokenizer* tokenizer) {
  Json out = head_json(head, /*chunk=*/false);
  Json list = Json::array();
  for (const AnswerChoice& choice : choices) {
    Json one{{"index", choice.index}};
    if (head.chat)
      one["message"] = message_json(head, choice);
    else
      one["text"] = choice.content;
    size_t offset = choice.text_offset;
    one["logprobs"] = !head.logprobs ? Json(nullptr)
                      : head.chat    ? chat_logprobs(tokenizer, choice.tokens)
                                     : text_logprobs(tokenizer, choice.tokens, offset);
    one["finish_reason"] = openai_finish_reason(choice);
    if (head.trace) one["hadal"] = trace_json(tokenizer, choice, 0, head.experts_per_token);
    list.push_back(std::move(one));
  }
  out["choices"] = std::move(list);
  out["usage"] = usage_json(choices);
  return dump_json(out);
}

std::string begin_chunk_json(const ResponseHead& head, const AnswerChoice& choice) {
  if (!head.chat) return "";
  Json one{{"index", choice.index}};
  one["delta"] = Json{{"role", "assistant"}, {"content", ""}};
  one["logprobs"] = nullptr;
  one["finish_reason"] = nullptr;
  return chunk(head, Json::array({std::move(one)}));
}

std::string delta_chunk_json(const ResponseHead& head, AnswerChoice& choice, const ChoiceNews& news,
                             const Tokenizer* tokenizer) {
  Json delta = Json::object();
  std::string text;
  size_t call = choice.parser.num_tool_calls();
  for (const AnswerPiece& piece : news.pieces) call -= piece.kind == AnswerPiece::kToolCall;
  for (const AnswerPiece& piece : news.pieces) {
    if (piece.kind == AnswerPiece::kToolCall) {
      Json one = call_json(head, piece, choice.index, call);
      one["index"] = call++;
      delta["tool_calls"].push_back(std::move(one));
    } else {
      const char* key = piece.kind == AnswerPiece::kReasoning ? "reasoning_content" : "content";
      delta[key] = delta.value(key, "") + piece.text;
      text += piece.text;
    }
  }
  const std::span<const NewToken> tokens = std::span(choice.tokens).subspan(news.first_token);
  const bool says_tokens = (head.logprobs || head.trace) && !tokens.empty();
  if (news.pieces.empty() && !says_tokens) return "";
  Json one{{"index", choice.index}};
  if (head.chat)
    one["delta"] = std::move(delta);
  else
    one["text"] = text;
  one["logprobs"] = !head.logprobs ? Json(nullptr)
                    : head.chat    ? chat_logprobs(tokenizer, tokens)
                                   : text_logprobs(tokenizer, tokens, choice.text_offset);
  one["finish_reason"] = nullptr;
  if (head.trace) one["hadal"] = trace_json(tokenizer, choice, news.first_token, head.experts_per_token);
  return chunk(head, Json::array({std::move(one)}));
}

std::string end_chunk_json(const ResponseHead& head, const AnswerChoice& choice) {
  Json one{{"index", choice.index}};
  if (head.chat)
    one["delta"] = Json::object();
  else
    one["text"] = "";
  one["logprobs"] = nullptr;
  one["finish_reason"] = openai_finish_reason(choice);
  return chunk(head, Json::array({std::move(one)}));
}

std::string usage_chunk_json(const ResponseHead& head, const std::vector<AnswerChoice>& choices) {
  Json out = head_json(head, /*chunk=*/true);
  out["choices"] = Json::array();
  out["usage"] = usage_json(choices);
  return dump_json(out);
}

}  // namespace hadal
