#include "hadal/server/request_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/base/wide_json.h"
#include "hadal/server/json_fields.h"
#include "hadal/server/json_schema.h"
#include "hadal/server/tool_prompt.h"

namespace hadal {

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
    case ErrorCode::kExhausted:  // a request that could never fit
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

RequestReader::RequestReader(const ApiConfig& config, const EngineThread& engine)
    : config_(config), engine_(engine) {
  const std::optional<Tokenizer>& tokenizer = engine.tokenizer();
  if (!tokenizer) {
    chat_problem_ = "This model has no tokenizer: give token ids to /v1/completions.";
    return;
  }
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id)
    if (tokenizer->is_token(id)) longest_token_ = std::max(longest_token_, tokenizer->token_bytes(id).size());
  try {
    chat_ = config_.chat_template.empty() ? ChatTemplate::detect(*tokenizer)
                                          : ChatTemplate::named(config_.chat_template);
  } catch (const Error& error) {
    if (!config_.chat_template.empty()) throw;
    chat_problem_ = "This model has no chat template that hadal knows: use /v1/completions.";
  }
}

ReadRequest RequestReader::read(Reading what, const HttpRequest& request) const {
  ReadRequest out;
  try {
    (this->*what)(body_json(request), out);
  } catch (const ApiError& error) {
    out.error = error;
  } catch (const Error& error) {
    out.error = ApiError(http_status(error.code()), error.what());
  } catch (const std::exception& error) {  // out of memory
    out.error = ApiError(500, error.what());
  }
  return out;
}

void RequestReader::check_model(const std::string& model) const {
  if (model.empty() || model == config_.model) return;
  throw ApiError(
      404, cat("model: got \"", model.substr(0, 128), "\", but this server has \"", config_.model, "\"."),
      "model", "model_not_found");
}

const Tokenizer& RequestReader::need_tokenizer() const {
  if (!engine_.tokenizer()) throw ApiError(400, "This model has no tokenizer: give token ids.");
  return *engine_.tokenizer();
}

Json RequestReader::body_json(const HttpRequest& request) const {
  std::string_view type = std::string_view(request.content_type).substr(0, request.content_type.find(';'));
  while (type.ends_with(' ') || type.ends_with('\t')) type.remove_suffix(1);
  if (!type.empty() && type != "application/json")
    throw ApiError(415, "Content-Type: need application/json (curl: -H 'Content-Type: application/json').");
  try {
    return parse_wide_json(request.body, "request body");
  } catch (const Error& error) {
    throw ApiError(400, error.what());
  }
}

void RequestReader::tokenize(const Json& body, ReadRequest& out) const {
  const TokenizeCall call = parse_tokenize_call(body);
  check_model(call.model);
  const Tokenizer& tokenizer = need_tokenizer();
  const std::vector<int32_t> ids =
      call.add_special_tokens ? tokenizer.encode_prompt(call.prompt) : tokenizer.encode(call.prompt);
  out.reply = dump_json(Json{{"count", ids.size()}, {"max_model_len", engine_.context()}, {"tokens", ids}});
}

void RequestReader::detokenize(const Json& body, ReadRequest& out) const {
  const DetokenizeCall call = parse_detokenize_call(body);
  check_model(call.model);
  const Tokenizer& tokenizer = need_tokenizer();
  for (size_t i = 0; i < call.tokens.size(); ++i)
    if (!tokenizer.is_token(call.tokens[i]))
      bad_field(cat("tokens[", i, "]"), cat("got ", call.tokens[i], ", which is no token of this model."));
  out.reply = dump_json(Json{{"prompt", tokenizer.decode(call.tokens)}});
}

// Refuses a text that cannot fit before it is tokenised: that takes time in proportion to its length.
std::vector<int32_t> RequestReader::encode(const std::string& text, const std::string& param) const {
  const Tokenizer& tokenizer = need_tokenizer();
  const auto context = static_cast<size_t>(engine_.context());
  if (longest_token_ > 0 && text.size() / longest_token_ > context)
    throw ApiError(400,
                   cat(param, ": got ", text.size(), " bytes of text, which cannot fit in the context of ",
                       context, " tokens."),
                   param, "context_length_exceeded");
  return tokenizer.encode_prompt(text);
}

std::vector<int32_t> RequestReader::chat_prompt(const ChatCall& call, AnswerFormat& format) const {
  if (!chat_) throw ApiError(400, chat_problem_, "messages");
  size_t bytes = 0;
  for (const ChatMessage& message : call.messages) bytes += message.content.value_or("").size();
  if (bytes / std::max<size_t>(1, longest_token_) > static_cast<size_t>(engine_.context()))
    throw ApiError(400,
                   cat("messages: got ", bytes, " bytes of text, which cannot fit in the context of ",
                       engine_.context(), " tokens."),
                   "messages", "context_length_exceeded");
  const bool tools = call.tool_choice != ToolChoice::kNone;
  const std::vector<ChatMessage> messages =
      tools ? with_tools(call.messages, call.tools, chat_->name()) : call.messages;
  const ChatOptions options{.thinking = call.thinking.value_or(false)};
  if (call.thinking == true && chat_->name() != "v3.1")
    bad_field("chat_template_kwargs.thinking", cat("the format ", chat_->name(), " has no such switch."));
  try {
    const std::string text = chat_->render(messages, options);
    std::string_view prompt = text;
    while (prompt.ends_with('\n')) prompt.remove_suffix(1);
    format = {.reasoning = true, .starts_in_reasoning = prompt.ends_with("<think>"), .tools = tools};
    return need_tokenizer().encode(text);
  } catch (const Error& error) {
    throw ApiError(400, error.what(), "messages");
  }
}

// What the answer may be: a schema's JSON, or calls of tools.
std::shared_ptr<const Constraint> RequestReader::constraint_of(const ChatCall& call) const {
  if (call.tool_choice == ToolChoice::kRequired || call.tool_choice == ToolChoice::kNamed) {
    const CallMarkup m = call_markup(chat_->name());
    std::vector<Json> schemas(call.tools.size());
    std::vector<CallForm> forms;
    for (size_t i = 0; i < call.tools.size(); ++i) {
      const ToolSpec& tool = call.tools[i];
      if (call.tool_choice == ToolChoice::kNamed && tool.name != call.tool_name) continue;
      if (!tool.parameters.empty()) schemas[i] = parse_json(tool.parameters, tool.name);
      forms.push_back({.before = cat(m.before_name, tool.name, m.after_name),
                       .after = m.after,
                       .parameters = tool.parameters.empty() ? nullptr : &schemas[i],
                       .param = cat("tools[", i, "].function.parameters")});
    }
    return compile_calls(forms, {.begin = m.begin, .between = m.between, .end = m.end}, need_tokenizer());
  }
  if (call.format == ResponseFormat::kJsonObject) return compile_json_object();
  if (call.format == ResponseFormat::kJsonSchema)
    return compile_json_schema(parse_json(call.schema, call.schema_name),
                               "response_format.json_schema.schema");
  return nullptr;
}

Request RequestReader::engine_request(const GenerationCall& call, std::vector<int32_t> prompt,
                                      const std::string& param) const {
  const int64_t length = static_cast<int64_t>(prompt.size()), context = engine_.context();
  if (length >= context)
    throw ApiError(400,
                   cat(param, ": got ", length, " tokens, need fewer than the context of ", context, "."),
                   param, "context_length_exceeded");
  for (const auto& [id, bias] : call.sampling.logit_bias)
    if (id >= engine_.model().vocab_size)
      bad_field(cat("logit_bias.", id), cat("need a token id below ", engine_.model().vocab_size, "."));
  Request request{.prompt = std::move(prompt)};
  request.max_tokens = std::min(call.max_tokens.value_or(context), context - length);
  request.sampling = call.sampling;
  request.stops = call.stops;
  request.ignore_end = call.ignore_end;
  request.top_logprobs = call.top_logprobs;
  request.want_experts = call.trace;
  return request;
}

void RequestReader::chat(const Json& body, ReadRequest& out) const {
  ChatCall call = parse_chat_call(body, config_.caps);
  check_model(call.model);
  std::vector<int32_t> prompt = chat_prompt(call, out.format);
  const std::shared_ptr<const Constraint> constraint = constraint_of(call);
  if (constraint && out.format.starts_in_reasoning)  // what is constrained is the answer: close the reasoning
    for (const int32_t id : need_tokenizer().encode("</think>\n\n")) prompt.push_back(id);
  if (constraint) {
    out.format.reasoning = false;
    // The vocabulary and the first mask are made here: on the engine's thread all other answers would wait.
    const ConstraintCursor first(constraint, engine_.vocabulary());
  }
  Request one = engine_request(call, std::move(prompt), "messages");
  one.constraint = constraint;
  for (int64_t i = 0; i < call.n; ++i) out.requests.push_back(one);
  out.call = std::move(call);
}

void RequestReader::completion(const Json& body, ReadRequest& out) const {
  CompletionCall call = parse_completion_call(body, config_.caps);
  check_model(call.model);
  if (!call.stops.empty() && !engine_.tokenizer()) bad_field("stop", "this model has no tokenizer.");
  for (size_t i = 0; i < call.prompts.size(); ++i) {
    const std::string param = call.prompts.size() == 1 ? "prompt" : cat("prompt[", i, "]");
    std::vector<int32_t> ids;
    if (const auto* text = std::get_if<std::string>(&call.prompts[i]))
      ids = encode(*text, param);
    else
      ids = std::get<std::vector<int32_t>>(call.prompts[i]);
    if (ids.empty()) bad_field(param, "is empty; this model needs at least one token.");
    for (const int32_t id : ids)
      if (id >= engine_.model().vocab_size)
        bad_field(param, cat("got token ", id, ", need ids below ", engine_.model().vocab_size, "."));
    const Request one = engine_request(call, std::move(ids), param);
    for (int64_t k = 0; k < call.n; ++k) out.requests.push_back(one);
  }
  out.format.reasoning = false;
  out.call = std::move(call);
}

}  // namespace hadal
