#include "hadal/server/api.h"

#include <strings.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "hadal/base/clock.h"
#include "hadal/base/text.h"
#include "hadal/server/json_fields.h"
#include "hadal/server/json_schema.h"
#include "hadal/server/tool_prompt.h"

namespace hadal {

extern const char kOpenApi[];  // made from openapi.json
extern const size_t kOpenApiSize;

struct Exchange {
  ResponseHead head;
  std::shared_ptr<Responder> responder;
  std::vector<AnswerChoice> choices;
  std::vector<JobId> jobs;
  std::vector<double> first_token;  // when; 0: not yet
  size_t num_finished = 0;
  bool stream = false, over = false;
  double started = 0, last_sent = 0;
};

namespace {

constexpr const char* kJsonType = "application/json";
constexpr double kKeepAliveSeconds = 10;

std::string random_id(const char* prefix) {
  static thread_local std::random_device device;
  std::string out = prefix;
  for (int i = 0; i < 24; ++i) out += "0123456789abcdefghijklmnopqrstuvwxyz"[device() % 36];
  return out;
}

uint64_t random_seed() {
  static thread_local std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

// Without a hint of how much was right.
bool equal_in_constant_time(std::string_view a, std::string_view b) {
  size_t wrong = a.size() ^ b.size();
  for (size_t i = 0; i < a.size(); ++i)
    wrong |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[b.empty() ? 0 : i % b.size()]);
  return wrong == 0;
}

// Answers to one prompt differ by their seeds; the first has the request's own.
uint64_t choice_seed(uint64_t seed, int64_t index) {
  return seed + static_cast<uint64_t>(index) * 0x9E3779B97F4A7C15ull;
}

// The description with what this server alone knows: its model's name and how many tokens there are.
std::string describe(const std::string& model, int64_t vocab_size,
                     const std::optional<Tokenizer>& tokenizer) {
  Json doc = parse_json({kOpenApi, kOpenApiSize}, "openapi.json");
  Json& schemas = doc["components"]["schemas"];
  schemas["ModelName"]["enum"] = Json::array({model, "", nullptr});
  schemas["TokenId"]["maximum"] = vocab_size - 1;
  schemas["SpelledTokenId"]["maximum"] = tokenizer ? tokenizer->vocab_size() - 1 : 0;
  return dump_json(doc);
}

void send_event(Exchange& exchange, std::string_view json) {
  exchange.responder->send(cat("data: ", json, "\n\n"));
  exchange.last_sent = now_seconds();
}

}  // namespace

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

Api::Api(ApiConfig config, EngineThread& engine)
    : config_(std::move(config)), engine_(engine), page_(web_page()), started_(std::time(nullptr)) {
  const std::optional<Tokenizer>& tokenizer = engine.tokenizer();
  openapi_ = describe(config_.model, engine.model().vocab_size, tokenizer);
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

Api::~Api() = default;

const std::vector<Api::Route>& Api::routes() {
  static const std::vector<Route> routes = {
      {"GET", "/", &Api::get_page, true},
      {"GET", "/health", &Api::get_health, true},
      {"GET", "/ready", &Api::get_ready, true},
      {"GET", "/metrics", &Api::get_metrics, false},
      {"GET", "/openapi.json", &Api::get_openapi, true},
      {"GET", "/v1/models", &Api::get_models, false},
      {"POST", "/v1/chat/completions", &Api::post_chat, false},
      {"POST", "/v1/completions", &Api::post_completion, false},
      {"POST", "/tokenize", &Api::post_tokenize, false},
      {"POST", "/detokenize", &Api::post_detokenize, false},
  };
  return routes;
}

std::shared_ptr<Exchange> Api::handle(const HttpRequest& request, std::shared_ptr<Responder> responder) {
  try {
    const Route* found = nullptr;
    std::string methods;
    for (const Route& route : routes()) {
      if (request.path != route.path) continue;
      methods = route.method;
      if (request.method == route.method || (request.method == "HEAD" && methods == "GET")) found = &route;
    }
    if (methods.empty()) throw ApiError(404, cat("There is nothing at ", request.path.substr(0, 128), "."));
    if (!found) {
      if (methods == "GET") methods = "GET, HEAD";
      responder->respond(405, kJsonType,
                         error_json(ApiError(405, cat(request.path, " takes ", methods, " only."))),
                         {{"Allow", methods}});
      return nullptr;
    }
    if (!found->open) check_key(request);
    return (this->*found->handler)(request, responder);
  } catch (const ApiError& error) {
    HttpHeaders headers;
    if (error.status == 401) headers.emplace_back("WWW-Authenticate", "Bearer");
    if (error.status == 429 || error.status == 503) headers.emplace_back("Retry-After", "1");
    responder->respond(error.status, kJsonType, error_json(error), headers);
  } catch (const Error& error) {
    responder->respond(http_status(error.code()), kJsonType,
                       error_json(ApiError(http_status(error.code()), error.what())));
  } catch (const std::exception& error) {  // out of memory
    responder->respond(500, kJsonType, error_json(ApiError(500, error.what())));
  }
  return nullptr;
}

void Api::check_key(const HttpRequest& request) const {
  if (config_.api_key.empty()) return;
  constexpr size_t kBearer = 7;
  const std::string_view sent = request.authorization;
  if (sent.size() < kBearer || ::strncasecmp(sent.data(), "Bearer ", kBearer) != 0)
    throw ApiError(401, "An API key is needed: send Authorization: Bearer KEY.", "", "missing_api_key");
  if (!equal_in_constant_time(sent.substr(kBearer), config_.api_key))
    throw ApiError(401, "The API key is wrong.", "", "invalid_api_key");
}

void Api::check_model(const std::string& model) const {
  if (model.empty() || model == config_.model) return;
  throw ApiError(
      404, cat("model: got \"", model.substr(0, 128), "\", but this server has \"", config_.model, "\"."),
      "model", "model_not_found");
}

const Tokenizer& Api::need_tokenizer() const {
  if (!engine_.tokenizer()) throw ApiError(400, "This model has no tokenizer: give token ids.");
  return *engine_.tokenizer();
}

Json Api::body_json(const HttpRequest& request) const {
  std::string_view type = std::string_view(request.content_type).substr(0, request.content_type.find(';'));
  while (type.ends_with(' ') || type.ends_with('\t')) type.remove_suffix(1);
  if (!type.empty() && type != kJsonType)
    throw ApiError(415, "Content-Type: need application/json (curl: -H 'Content-Type: application/json').");
  try {
    return parse_json(request.body, "request body");
  } catch (const Error& error) {
    throw ApiError(400, error.what());
  }
}

std::shared_ptr<Exchange> Api::get_page(const HttpRequest&, std::shared_ptr<Responder>& responder) {
  responder->respond(200, "text/html; charset=utf-8", std::string(page_.html),
                     {{"Content-Security-Policy", page_.policy}, {"Referrer-Policy", "no-referrer"}});
  return nullptr;
}

std::shared_ptr<Exchange> Api::get_health(const HttpRequest&, std::shared_ptr<Responder>& responder) {
  responder->respond(200, kJsonType, dump_json(Json{{"status", "ok"}}));
  return nullptr;
}

std::shared_ptr<Exchange> Api::get_ready(const HttpRequest&, std::shared_ptr<Responder>& responder) {
  if (draining_) throw ApiError(503, "The server is shutting down.");
  responder->respond(200, kJsonType, dump_json(Json{{"status", "ready"}}));
  return nullptr;
}

std::shared_ptr<Exchange> Api::get_metrics(const HttpRequest&, std::shared_ptr<Responder>& responder) {
  responder->respond(200, "text/plain; version=0.0.4; charset=utf-8",
                     metrics_text(metrics, engine_.stats(), engine_.queued_requests(), config_.model));
  return nullptr;
}

std::shared_ptr<Exchange> Api::get_openapi(const HttpRequest&, std::shared_ptr<Responder>& responder) {
  responder->respond(200, kJsonType, openapi_);
  return nullptr;
}

std::shared_ptr<Exchange> Api::get_models(const HttpRequest&, std::shared_ptr<Responder>& responder) {
  const ModelConfig& m = engine_.model();
  const EngineStats stats = engine_.stats();
  Json ours{{"chat", chat_.has_value()}, {"context", engine_.context()}};
  ours["chat_template"] = chat_ ? Json(chat_->name()) : Json(nullptr);
  ours["moe_layers"] = stats.expert_load.size();
  ours["experts"] = m.moe.num_experts;
  ours["experts_per_token"] = m.moe.top_k;
  ours["mtp"] = m.mtp_depth > 0;
  ours["layers"] = m.num_layers;
  ours["thinking"] = chat_ && chat_->name() == "v3.1";
  Json model{{"id", config_.model}, {"object", "model"}, {"created", started_}, {"owned_by", "hadal"}};
  model["max_model_len"] = engine_.context();
  model["hadal"] = std::move(ours);
  responder->respond(200, kJsonType, dump_json(Json{{"object", "list"}, {"data", Json::array({model})}}));
  return nullptr;
}

std::shared_ptr<Exchange> Api::post_tokenize(const HttpRequest& request,
                                             std::shared_ptr<Responder>& responder) {
  const TokenizeCall call = parse_tokenize_call(body_json(request));
  check_model(call.model);
  const Tokenizer& tokenizer = need_tokenizer();
  const std::vector<int32_t> ids =
      call.add_special_tokens ? tokenizer.encode_prompt(call.prompt) : tokenizer.encode(call.prompt);
  responder->respond(
      200, kJsonType,
      dump_json(Json{{"count", ids.size()}, {"max_model_len", engine_.context()}, {"tokens", ids}}));
  return nullptr;
}

std::shared_ptr<Exchange> Api::post_detokenize(const HttpRequest& request,
                                               std::shared_ptr<Responder>& responder) {
  const DetokenizeCall call = parse_detokenize_call(body_json(request));
  check_model(call.model);
  const Tokenizer& tokenizer = need_tokenizer();
  for (size_t i = 0; i < call.tokens.size(); ++i)
    if (!tokenizer.is_token(call.tokens[i]))
      bad_field(cat("tokens[", i, "]"), cat("got ", call.tokens[i], ", which is no token of this model."));
  responder->respond(200, kJsonType, dump_json(Json{{"prompt", tokenizer.decode(call.tokens)}}));
  return nullptr;
}

// Refuses a text that cannot fit before it is tokenised: that takes time in proportion to its length.
std::vector<int32_t> Api::encode(const std::string& text, const std::string& param) const {
  const Tokenizer& tokenizer = need_tokenizer();
  const auto context = static_cast<size_t>(engine_.context());
  if (longest_token_ > 0 && text.size() / longest_token_ > context)
    throw ApiError(400,
                   cat(param, ": got ", text.size(), " bytes of text, which cannot fit in the context of ",
                       context, " tokens."),
                   param, "context_length_exceeded");
  return tokenizer.encode_prompt(text);
}

std::vector<int32_t> Api::chat_prompt(const ChatCall& call, AnswerFormat& format) const {
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
std::shared_ptr<const Constraint> Api::constraint_of(const ChatCall& call) const {
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

Request Api::engine_request(const GenerationCall& call, std::vector<int32_t> prompt,
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

std::shared_ptr<Exchange> Api::post_chat(const HttpRequest& request, std::shared_ptr<Responder>& responder) {
  const ChatCall call = parse_chat_call(body_json(request), config_.caps);
  check_model(call.model);
  AnswerFormat format;
  std::vector<int32_t> prompt = chat_prompt(call, format);
  const std::shared_ptr<const Constraint> constraint = constraint_of(call);
  if (constraint && format.starts_in_reasoning)  // what is constrained is the answer: close the reasoning
    for (const int32_t id : need_tokenizer().encode("</think>\n\n")) prompt.push_back(id);
  if (constraint) format.reasoning = false;
  Request one = engine_request(call, std::move(prompt), "messages");
  one.constraint = constraint;
  std::vector<Request> requests;
  for (int64_t i = 0; i < call.n; ++i) requests.push_back(one);
  return begin(call, /*chat=*/true, format, std::move(requests), responder);
}

std::shared_ptr<Exchange> Api::post_completion(const HttpRequest& request,
                                               std::shared_ptr<Responder>& responder) {
  const CompletionCall call = parse_completion_call(body_json(request), config_.caps);
  check_model(call.model);
  if (!call.stops.empty() && !engine_.tokenizer()) bad_field("stop", "this model has no tokenizer.");
  std::vector<Request> requests;
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
    for (int64_t k = 0; k < call.n; ++k) requests.push_back(one);
  }
  return begin(call, /*chat=*/false, {.reasoning = false}, std::move(requests), responder);
}

std::shared_ptr<Exchange> Api::begin(const GenerationCall& call, bool chat, const AnswerFormat& format,
                                     std::vector<Request> requests, std::shared_ptr<Responder>& responder) {
  if (draining_) throw ApiError(503, "The server is shutting down.");
  auto exchange = std::make_shared<Exchange>();
  Exchange& e = *exchange;
  e.head = {.id = random_id(chat ? "chatcmpl-" : "cmpl-"),
            .model = config_.model,
            .created = std::time(nullptr),
            .chat = chat,
            .logprobs = call.top_logprobs >= 0,
            .trace = call.trace,
            .include_usage = call.include_usage,
            .experts_per_token = engine_.model().moe.top_k};
  e.responder = responder;
  e.stream = call.stream;
  e.started = e.last_sent = now_seconds();
  const uint64_t seed = call.seed.value_or(random_seed());
  for (size_t i = 0; i < requests.size(); ++i) {
    const int64_t of_prompt = static_cast<int64_t>(i) % call.n;
    requests[i].sampling.seed = choice_seed(seed, of_prompt);
    e.choices.push_back({.index = static_cast<int64_t>(i),
                         .first_of_prompt = of_prompt == 0,
                         .parser = AnswerParser(format)});
  }
  e.jobs = engine_.submit(std::move(requests));
  if (e.jobs.empty()) {
    ++metrics.rejected;
    throw ApiError(429, "The queue is full. Try again later.", "", "queue_full");
  }
  for (size_t i = 0; i < e.jobs.size(); ++i) jobs_[e.jobs[i]] = {exchange, i};
  e.first_token.resize(e.choices.size());
  exchanges_[exchange.get()] = exchange;
  if (e.stream) {
    responder->begin_stream("text/event-stream; charset=utf-8");
    for (AnswerChoice& choice : e.choices)
      if (const std::string json = begin_chunk_json(e.head, choice); !json.empty()) send_event(e, json);
  }
  return exchange;
}

void Api::deliver(std::vector<JobEvent> events) {
  for (JobEvent& event : events) {
    const auto it = jobs_.find(event.job);
    if (it == jobs_.end()) continue;
    const JobPlace place = it->second;
    if (!event.error.empty()) {
      fail(place.exchange, ApiError(http_status(event.code), event.error));
      continue;
    }
    if (event.delta.finished) jobs_.erase(it);
    take(place.exchange, place.choice, std::move(event));
  }
}

void Api::take(const std::shared_ptr<Exchange>& exchange, size_t index, JobEvent event) {
  Exchange& e = *exchange;
  if (e.over) return;
  AnswerChoice& choice = e.choices[index];
  Delta& delta = event.delta;
  if (!delta.tokens.empty() && e.first_token[index] == 0) {
    e.first_token[index] = now_seconds();
    metrics.first_token_seconds.add(e.first_token[index] - e.started);
  }
  choice.usage = delta.usage;
  ChoiceNews news{.pieces = choice.parser.push(delta.text), .first_token = choice.tokens.size()};
  if (delta.finished) {
    choice.finished = delta.finished;
    for (AnswerPiece& piece : choice.parser.finish()) news.pieces.push_back(std::move(piece));
  }
  if (e.head.logprobs || e.head.trace)
    for (NewToken& token : delta.tokens) {
      choice.tokens.push_back(std::move(token));
      choice.token_in_reasoning.push_back(choice.parser.in_reasoning());
    }
  if (e.stream) stream_news(e, choice, news);
  if (!e.stream)
    for (AnswerPiece& piece : news.pieces) {
      if (piece.kind == AnswerPiece::kToolCall)
        choice.calls.push_back(std::move(piece));
      else
        (piece.kind == AnswerPiece::kReasoning ? choice.reasoning : choice.content) += piece.text;
    }
  if (!choice.finished) return;
  count_finished(e, choice);
  if (++e.num_finished == e.choices.size()) complete(exchange);
}

void Api::stream_news(Exchange& e, AnswerChoice& choice, const ChoiceNews& news) {
  const Tokenizer* tokenizer = engine_.tokenizer() ? &*engine_.tokenizer() : nullptr;
  if (const std::string json = delta_chunk_json(e.head, choice, news, tokenizer); !json.empty())
    send_event(e, json);
  choice.tokens.clear();
  choice.token_in_reasoning.clear();
  if (choice.finished) send_event(e, end_chunk_json(e.head, choice));
}

void Api::complete(const std::shared_ptr<Exchange>& exchange) {
  Exchange& e = *exchange;
  const Tokenizer* tokenizer = engine_.tokenizer() ? &*engine_.tokenizer() : nullptr;
  if (e.stream) {
    if (e.head.include_usage) send_event(e, usage_chunk_json(e.head, e.choices));
    send_event(e, "[DONE]");
    e.responder->end_stream();
  } else {
    e.responder->respond(200, kJsonType, response_json(e.head, e.choices, tokenizer));
  }
  close(exchange);
}

void Api::fail(const std::shared_ptr<Exchange>& exchange, const ApiError& error) {
  Exchange& e = *exchange;
  if (e.over) return;
  if (e.stream) {
    send_event(e, error_json(error));
    send_event(e, "[DONE]");
    e.responder->end_stream();
  } else {
    e.responder->respond(error.status, kJsonType, error_json(error));
  }
  ++metrics.finished["error"];
  close(exchange);
}

void Api::abandon(const std::shared_ptr<Exchange>& exchange) {
  if (exchange->over) return;
  metrics.finished["abort"] += static_cast<int64_t>(exchange->choices.size() - exchange->num_finished);
  close(exchange);
}

void Api::abandon_all() {
  while (!exchanges_.empty()) abandon(std::shared_ptr<Exchange>(exchanges_.begin()->second));
}

// Forgets the exchange; what still runs of it is cancelled.
void Api::close(const std::shared_ptr<Exchange>& exchange) {
  exchange->over = true;
  exchange->responder.reset();
  for (const JobId job : exchange->jobs)
    if (jobs_.erase(job) > 0) engine_.cancel(job);
  exchanges_.erase(exchange.get());
}

void Api::count_finished(const Exchange& e, const AnswerChoice& choice) {
  const double now = now_seconds(), first = e.first_token[static_cast<size_t>(choice.index)];
  const Usage& usage = choice.usage;
  ++metrics.finished[openai_finish_reason(choice)];
  metrics.request_seconds.add(now - e.started);
  metrics.prompt_tokens.add(static_cast<double>(usage.prompt_tokens));
  metrics.answer_tokens.add(static_cast<double>(usage.generated_tokens));
  if (usage.generated_tokens > 1)
    metrics.token_seconds.add((now - first) / static_cast<double>(usage.generated_tokens - 1));
}

void Api::tick() {
  const double now = now_seconds();
  std::vector<std::shared_ptr<Exchange>> late;
  for (const auto& [key, exchange] : exchanges_) {
    if (config_.deadline_seconds > 0 && now - exchange->started > config_.deadline_seconds)
      late.push_back(exchange);
    else if (exchange->stream && now - exchange->last_sent > kKeepAliveSeconds)
      exchange->responder->send(": waiting\n\n"), exchange->last_sent = now;
  }
  for (const std::shared_ptr<Exchange>& exchange : late)
    fail(exchange,
         ApiError(504,
                  cat("The answer took longer than this server's ", config_.deadline_seconds, " seconds."),
                  "", "deadline_exceeded"));
}

void Api::drain() {
  draining_ = true;
}

}  // namespace hadal
