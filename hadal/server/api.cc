#include "hadal/server/api.h"

#include <strings.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "hadal/base/clock.h"
#include "hadal/base/text.h"

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
  bool stream = false;
  bool whole = false;  // all is there and is being written
  bool over = false;
  double started = 0, last_sent = 0;
};

namespace {

constexpr const char* kJsonType = "application/json";

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

// A pattern of the whole numbers from 0 to `last`, as they are spelled.
std::string numbers_up_to(int64_t last) {
  const std::string digits = std::to_string(last);
  std::string out = "^(" + digits;
  const auto more = [&](const std::string& before, char low, char high, size_t behind) {
    if (low <= high)
      out += cat("|", before, "[", low, "-", high, "]", behind > 0 ? cat("[0-9]{", behind, "}") : "");
  };
  for (size_t i = 0; i < digits.size(); ++i)  // as long, less from this digit on
    more(digits.substr(0, i), i == 0 && digits.size() > 1 ? '1' : '0', static_cast<char>(digits[i] - 1),
         digits.size() - i - 1);
  if (digits.size() > 1) out += cat("|0|[1-9][0-9]{0,", digits.size() - 2, "}");  // shorter
  return out + ")$";
}

// The description with what this server alone knows: its model's name, how many tokens there are, whether its
// chat format has a switch for thinking.
std::string describe(const std::string& model, int64_t vocab_size, const std::optional<Tokenizer>& tokenizer,
                     const std::optional<ChatTemplate>& chat) {
  Json doc = parse_json({kOpenApi, kOpenApiSize}, "openapi.json");
  Json& schemas = doc["components"]["schemas"];
  schemas["ModelName"]["enum"] = Json::array({model, "", nullptr});
  schemas["TokenId"]["maximum"] = vocab_size - 1;
  for (const char* request : {"ChatRequest", "CompletionRequest"})
    schemas[request]["properties"]["logit_bias"]["propertyNames"]["pattern"] = numbers_up_to(vocab_size - 1);
  if (tokenizer && tokenizer->encode_prompt("").empty()) schemas["PromptText"]["minLength"] = 1;
  if (!chat || chat->name() != "v3.1") {
    Json& options = schemas["ChatRequest"]["properties"]["chat_template_kwargs"]["anyOf"][0]["properties"];
    for (Json& option : options) option["enum"] = Json::array({false, nullptr});
  }
  schemas["SpelledTokenId"]["maximum"] = tokenizer ? tokenizer->vocab_size() - 1 : 0;
  return dump_json(doc);
}

void send_event(Exchange& exchange, std::string_view json) {
  exchange.responder->send(cat("data: ", json, "\n\n"));
  exchange.last_sent = now_seconds();
}

}  // namespace

Api::Api(ApiConfig config, EngineThread& engine)
    : config_(std::move(config)),
      engine_(engine),
      reader_(config_, engine),
      page_(web_page()),
      openapi_(
          describe(config_.model, engine.model().vocab_size, engine.tokenizer(), reader_.chat_template())),
      size_(model_size(engine.model())),
      started_(std::time(nullptr)) {}

Api::~Api() = default;

const std::vector<Api::Route>& Api::routes() {
  static const std::vector<Route> routes = {
      {.method = "GET", .path = "/", .handler = &Api::get_page, .open = true},
      {.method = "GET", .path = "/health", .handler = &Api::get_health, .open = true},
      {.method = "GET", .path = "/ready", .handler = &Api::get_ready, .open = true},
      {.method = "GET", .path = "/metrics", .handler = &Api::get_metrics},
      {.method = "GET", .path = "/openapi.json", .handler = &Api::get_openapi, .open = true},
      {.method = "GET", .path = "/v1/models", .handler = &Api::get_models},
      {.method = "POST", .path = "/v1/chat/completions", .reading = &RequestReader::chat, .generates = true},
      {.method = "POST", .path = "/v1/completions", .reading = &RequestReader::completion, .generates = true},
      {.method = "POST", .path = "/tokenize", .reading = &RequestReader::tokenize},
      {.method = "POST", .path = "/detokenize", .reading = &RequestReader::detokenize},
  };
  return routes;
}

std::shared_ptr<Exchange> Api::handle(HttpRequest request, std::shared_ptr<Responder> responder) {
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
    if (found->reading) return read(*found, std::move(request), responder);
    (this->*found->handler)(*responder);
  } catch (const ApiError& error) {
    respond_error(*responder, error);
  } catch (const std::exception& error) {  // out of memory
    respond_error(*responder, ApiError(500, error.what()));
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

void Api::get_page(Responder& responder) {
  responder.respond(200, "text/html; charset=utf-8", std::string(page_.html),
                    {{"Content-Security-Policy", page_.policy}, {"Referrer-Policy", "no-referrer"}});
}

void Api::get_health(Responder& responder) {
  responder.respond(200, kJsonType, dump_json(Json{{"status", "ok"}}));
}

void Api::get_ready(Responder& responder) {
  if (draining_) throw ApiError(503, "The server is shutting down.");
  responder.respond(200, kJsonType, dump_json(Json{{"status", "ready"}}));
}

void Api::get_metrics(Responder& responder) {
  responder.respond(200, "text/plain; version=0.0.4; charset=utf-8",
                    metrics_text(metrics, engine_.stats(), engine_.queued_requests(), config_.model));
}

void Api::get_openapi(Responder& responder) {
  responder.respond(200, kJsonType, openapi_);
}

void Api::get_models(Responder& responder) {
  const ModelConfig& m = engine_.model();
  const EngineStats stats = engine_.stats();
  const std::optional<ChatTemplate>& chat = reader_.chat_template();
  Json ours{{"chat", chat.has_value()}, {"context", engine_.context()}};
  ours["chat_template"] = chat ? Json(chat->name()) : Json(nullptr);
  ours["parameters"] = size_.main.total();
  ours["parameters_per_token"] = size_.active.total();
  ours["parameters_mtp"] = size_.mtp.total();
  ours["moe_layers"] = stats.expert_load.size();
  ours["experts"] = m.moe.num_experts;
  ours["experts_per_token"] = m.moe.top_k;
  ours["mtp"] = m.mtp_depth > 0;
  ours["layers"] = m.num_layers;
  ours["thinking"] = chat && chat->name() == "v3.1";
  Json model{{"id", config_.model}, {"object", "model"}, {"created", started_}, {"owned_by", "hadal"}};
  model["max_model_len"] = engine_.context();
  model["hadal"] = std::move(ours);
  responder.respond(200, kJsonType, dump_json(Json{{"object", "list"}, {"data", Json::array({model})}}));
}

// A body is read off this thread if there is another one; then the answer begins.
std::shared_ptr<Exchange> Api::read(const Route& route, HttpRequest request,
                                    std::shared_ptr<Responder>& responder) {
  if (route.generates) refuse_early();
  auto exchange = std::make_shared<Exchange>();
  exchange->responder = responder;
  exchange->head.chat = route.reading == &RequestReader::chat;
  exchange->started = exchange->last_sent = now_seconds();
  exchanges_[exchange.get()] = exchange;
  if (!tasks_) {
    begin(exchange, reader_.read(route.reading, request));
    return exchange->over ? nullptr : exchange;
  }
  const size_t bytes = request.body.size() + 1;
  auto work = [this, exchange, reading = route.reading,
               request = std::make_shared<HttpRequest>(std::move(request))] {
    auto read = std::make_shared<ReadRequest>(reader_.read(reading, *request));
    post_([this, exchange, read] { begin(exchange, std::move(*read)); });
  };
  if (!tasks_->run(bytes, std::move(work))) {
    ++metrics.rejected;
    fail(exchange, ApiError(429, "Too many requests are being read. Try again later.", "", "queue_full"));
    return nullptr;
  }
  return exchange;
}

// What needs no look at the body: so that a refusal costs next to nothing.
void Api::refuse_early() {
  if (draining_) throw ApiError(503, "The server is shutting down.");
  if (const auto retry = engine_.refuses_all()) throw queue_full(*retry);
}

ApiError Api::queue_full(double retry_seconds) {
  ++metrics.rejected;
  ApiError error(429, "The queue is full. Try again later.", "", "queue_full");
  error.retry_seconds = std::max<int64_t>(1, std::llround(std::ceil(retry_seconds)));
  return error;
}

void Api::begin(const std::shared_ptr<Exchange>& exchange, ReadRequest read) {
  Exchange& e = *exchange;
  if (e.over) return;  // its client left, or its time is up
  if (read.error) return fail(exchange, *read.error);
  if (read.requests.empty()) {
    e.responder->respond(200, kJsonType, std::move(read.reply));
    return close(exchange);
  }
  const GenerationCall& call = read.call;
  e.head = {.id = random_id(e.head.chat ? "chatcmpl-" : "cmpl-"),
            .model = config_.model,
            .created = std::time(nullptr),
            .chat = e.head.chat,
            .logprobs = call.top_logprobs >= 0,
            .trace = call.trace,
            .include_usage = call.include_usage,
            .experts_per_token = engine_.model().moe.top_k};
  const uint64_t seed = call.seed.value_or(random_seed());
  for (size_t i = 0; i < read.requests.size(); ++i) {
    const int64_t of_prompt = static_cast<int64_t>(i) % call.n;
    read.requests[i].sampling.seed = choice_seed(seed, of_prompt);
    e.choices.push_back({.index = static_cast<int64_t>(i),
                         .first_of_prompt = of_prompt == 0,
                         .parser = AnswerParser(read.format)});
  }
  Submission submission = engine_.submit(std::move(read.requests));
  if (submission.jobs.empty()) return fail(exchange, queue_full(submission.retry_seconds));
  e.jobs = std::move(submission.jobs);
  for (size_t i = 0; i < e.jobs.size(); ++i) jobs_[e.jobs[i]] = {exchange, i};
  e.first_token.resize(e.choices.size());
  e.stream = call.stream;
  if (!e.stream) return;
  e.responder->begin_stream("text/event-stream; charset=utf-8");
  for (AnswerChoice& choice : e.choices)
    if (const std::string json = begin_chunk_json(e.head, choice); !json.empty()) send_event(e, json);
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
    return close(exchange);
  }
  // With what is told of each token it may be large: written off this thread. Nothing changes it any more.
  if (tasks_ && (e.head.logprobs || e.head.trace)) {
    e.whole = true;
    auto work = [this, exchange, tokenizer] {
      auto body = std::make_shared<std::string>(response_json(exchange->head, exchange->choices, tokenizer));
      post_([this, exchange, body] { respond_whole(exchange, std::move(*body)); });
    };
    if (tasks_->run(1, std::move(work))) return;
  }
  respond_whole(exchange, response_json(e.head, e.choices, tokenizer));
}

void Api::respond_whole(const std::shared_ptr<Exchange>& exchange, std::string body) {
  if (exchange->over) return;
  exchange->responder->respond(200, kJsonType, std::move(body));
  close(exchange);
}

void Api::respond_error(Responder& responder, const ApiError& error) {
  HttpHeaders headers;
  if (error.status == 401) headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.status == 429 || error.status == 503)
    headers.emplace_back("Retry-After", cat(error.retry_seconds));
  responder.respond(error.status, kJsonType, error_json(error), headers);
}

void Api::fail(const std::shared_ptr<Exchange>& exchange, const ApiError& error) {
  Exchange& e = *exchange;
  if (e.over) return;
  if (e.stream) {
    send_event(e, error_json(error));
    send_event(e, "[DONE]");
    e.responder->end_stream();
  } else {
    respond_error(*e.responder, error);
  }
  if (!e.jobs.empty()) ++metrics.finished["error"];
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
    if (exchange->whole) continue;
    if (config_.deadline_seconds > 0 && now - exchange->started > config_.deadline_seconds)
      late.push_back(exchange);
    else if (exchange->stream && now - exchange->last_sent > config_.keep_alive_seconds)
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
