#include "hadal/server/api.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "tests/support/served_api.h"

namespace hadal {
namespace {

std::string streamed_content(const Kept& kept, int64_t choice = 0) {
  std::string text;
  for (const Json& event : kept.events())
    for (const Json& one : event["choices"])
      if (one["index"] == choice && one["delta"].contains("content"))
        text += one["delta"]["content"].get<std::string>();
  return text;
}

TEST(Api, AnswersAreFunctionsOfPromptAndSeed) {
  Served served;
  Json body = ask("Hello", 24);
  body["seed"] = 5, body["ignore_eos"] = true;
  const std::string alone = content(*served.post("/v1/chat/completions", body));
  EXPECT_EQ(content(*served.post("/v1/chat/completions", body)), alone);
  Json other = body;
  other["seed"] = 6;
  EXPECT_NE(content(*served.post("/v1/chat/completions", other)), alone);

  Json stream = body;
  stream["stream"] = true;
  EXPECT_EQ(streamed_content(*served.post("/v1/chat/completions", stream)), alone);

  std::vector<std::shared_ptr<Kept>> all;  // among others
  for (int i = 0; i < 12; ++i) {
    Json each = i % 3 ? ask(cat("Hello ", i), 8 + i) : body;
    each["stream"] = i % 2 == 0;
    all.push_back(served.begin("/v1/chat/completions", each).first);
  }
  served.finish(all);
  for (size_t i = 0; i < all.size(); i += 3)
    EXPECT_EQ(i % 2 ? content(*all[i]) : streamed_content(*all[i]), alone) << i;
}

TEST(Api, ChoicesDifferByTheirSeedsAndTheFirstHasTheRequestsOwn) {
  Served served;
  Json body = ask("Hello", 24);
  body["seed"] = 5, body["ignore_eos"] = true;
  const std::string alone = content(*served.post("/v1/chat/completions", body));
  body["n"] = 4;
  const auto kept = served.post("/v1/chat/completions", body);
  const Json answer = kept->json();
  ASSERT_EQ(answer["choices"].size(), 4u);
  EXPECT_EQ(content(*kept, 0), alone);
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_NE(content(*kept, i), content(*kept, i - 1));
  }
  EXPECT_EQ(answer["usage"]["completion_tokens"], 4 * 24);
  body["stream"] = true;
  const auto stream = served.post("/v1/chat/completions", body);
  for (int64_t i = 0; i < 4; ++i)
    EXPECT_EQ(streamed_content(*stream, i), content(*kept, static_cast<size_t>(i)));
}

TEST(Api, AStreamIsRoleTextEndUsageAndDone) {
  Served served;
  Json body = ask("Hello", 6);
  body["stream"] = true, body["stream_options"] = {{"include_usage", true}}, body["ignore_eos"] = true;
  const auto kept = served.post("/v1/chat/completions", body);
  EXPECT_EQ(kept->type, "text/event-stream; charset=utf-8");
  const std::vector<Json> events = kept->events();
  ASSERT_GE(events.size(), 4u);
  EXPECT_EQ(events[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(events[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(events[events.size() - 2]["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(events.back()["choices"].empty());
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], 6);
  for (const Json& event : events) {
    EXPECT_EQ(event["id"], events[0]["id"]);
    EXPECT_EQ(event["usage"].is_null(), &event != &events.back());
  }
}

TEST(Api, PromptsOfACompletionAreAnsweredInOrder) {
  Served served;
  const Json body{
      {"prompt", {"ab", {20, 21}, "cd"}}, {"n", 2}, {"max_tokens", 3}, {"seed", 1}, {"ignore_eos", true}};
  const Json answer = served.post("/v1/completions", body)->json();
  ASSERT_EQ(answer["choices"].size(), 6u);
  Json single = body;
  single["prompt"] = "cd";
  EXPECT_EQ(served.post("/v1/completions", single)->json()["choices"][1]["text"],
            answer["choices"][5]["text"]);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 3 + 2 + 3);  // each once, texts with their BOS
}

TEST(Api, AFullQueueIs429WithRetryAfterAndTakesAGroupWholeOrNotAtAll) {
  Served served({}, {.requests = 4, .tokens = 1 << 20}, /*start=*/false);
  EXPECT_TRUE(served.begin("/v1/chat/completions", ask("a")).second);
  Json group = ask("b");
  group["n"] = 4;
  const auto refused = served.post("/v1/chat/completions", group);
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->header("Retry-After"), "1");
  EXPECT_EQ(refused->json()["error"]["code"], "queue_full");
  EXPECT_EQ(refused->json()["error"]["type"], "rate_limit_error");
  EXPECT_EQ(served.engine.queued_requests(), 1);
  EXPECT_EQ(served.api.metrics.rejected, 1);
  group["n"] = 3;
  EXPECT_TRUE(served.begin("/v1/chat/completions", group).second);
  EXPECT_EQ(served.post("/v1/chat/completions", ask("c"))->status, 429);
  served.api.abandon_all();
  EXPECT_EQ(served.engine.queued_requests(), 0);
  group["n"] = 8;  // larger than the queue: alone
  EXPECT_TRUE(served.begin("/v1/chat/completions", group).second);
}

TEST(Api, TheQueueIsBoundedInPromptTokensToo) {
  Served served({}, {.requests = 100, .tokens = 100}, /*start=*/false);
  const Json body{{"prompt", std::string(60, 'x')}};  // without max_tokens: up to the context
  EXPECT_TRUE(served.begin("/v1/completions", body).second);
  EXPECT_EQ(served.post("/v1/completions", body)->status, 429);
  const auto ids = [](int64_t n) { return Json{{"prompt", std::vector<int>(static_cast<size_t>(n), 20)}}; };
  const int64_t left = 100 - 61;  // a text has its BOS
  EXPECT_EQ(served.begin("/v1/completions", ids(left + 1)).first->status, 429);
  EXPECT_TRUE(served.begin("/v1/completions", ids(left)).second);  // full to the last token
  EXPECT_EQ(served.begin("/v1/completions", ids(1)).first->status, 429);
}

TEST(Api, ARequestWithoutMaxTokensFitsASmallCache) {
  EngineThread engine(small_engine(/*cache_tokens=*/128), {});
  EXPECT_EQ(engine.context(), 128);
}

TEST(Api, AConstraintsFirstMaskIsMadeBeforeTheEngineSeesTheRequest) {
  Served served({}, {}, /*start=*/false);
  const std::shared_ptr<const VocabularyTrie> vocabulary = served.engine.vocabulary();
  ASSERT_TRUE(vocabulary);
  const int64_t holders = vocabulary.use_count();
  Json body = ask("a");
  EXPECT_TRUE(served.begin("/v1/chat/completions", body).second);
  EXPECT_EQ(vocabulary.use_count(), holders);
  body["response_format"] = parse_json(
      R"({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}})", "format");
  EXPECT_TRUE(served.begin("/v1/chat/completions", body).second);
  EXPECT_EQ(vocabulary.use_count(), holders + 1);  // the masks of the waiting request
}

TEST(Api, AnAbandonedAnswerFreesItsPages) {
  Served served;
  for (const bool stream : {false, true}) {
    Json body = ask("Hello", 3000);
    body["stream"] = stream, body["ignore_eos"] = true, body["n"] = 3;
    const auto [kept, exchange] = served.begin("/v1/chat/completions", body);
    ASSERT_TRUE(exchange);
    while (served.engine.queued_requests() > 0) served.pump();
    const int64_t cancelled = served.engine.stats().cancelled_requests;
    served.api.abandon(exchange);
    EXPECT_EQ(served.api.num_exchanges(), 0u);
    EXPECT_EQ(served.engine.jobs(), 0);
    const double give_up = now_seconds() + 30;
    while (served.engine.stats().cancelled_requests < cancelled + 3) ASSERT_LT(now_seconds(), give_up);
    EXPECT_EQ(served.engine.stats().pages_used, 0);
    EXPECT_EQ(served.engine.stats().running, 0);
    EXPECT_FALSE(kept->over);
    served.api.abandon(exchange);  // again: nothing
  }
  EXPECT_EQ(served.api.metrics.finished["abort"], 6);
}

TEST(Api, AnAnswerPastItsDeadlineIs504) {
  Served served({.deadline_seconds = 0.02}, {}, /*start=*/false);
  const auto plain = served.begin("/v1/chat/completions", ask("a")).first;
  Json body = ask("a");
  body["stream"] = true;
  const auto stream = served.begin("/v1/chat/completions", body).first;
  served.api.tick();
  EXPECT_FALSE(plain->over);
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  served.api.tick();
  EXPECT_EQ(plain->status, 504);
  EXPECT_EQ(plain->json()["error"]["code"], "deadline_exceeded");
  EXPECT_EQ(stream->events().back()["error"]["code"], "deadline_exceeded");
  EXPECT_EQ(served.api.num_exchanges(), 0u);
  EXPECT_EQ(served.engine.jobs(), 0);
}

TEST(Api, DrainingRefusesNewWorkAndFinishesTheOld) {
  Served served;
  const auto old = served.begin("/v1/chat/completions", ask("a")).first;
  EXPECT_EQ(served.get("/ready")->status, 200);
  served.api.drain();
  EXPECT_EQ(served.get("/ready")->status, 503);
  EXPECT_EQ(served.get("/health")->status, 200);
  const auto refused = served.post("/v1/chat/completions", ask("b"));
  EXPECT_EQ(refused->status, 503);
  EXPECT_EQ(refused->header("Retry-After"), "1");
  served.finish({old});
  EXPECT_EQ(old->status, 200);
}

TEST(Api, AnErrorOfTheEngineEndsEveryAnswerOfTheRequest) {
  Served served({}, {}, /*start=*/false);
  Json body = ask("a");
  body["n"] = 2;
  const auto plain = served.begin("/v1/chat/completions", body).first;
  body["stream"] = true;
  const auto stream = served.begin("/v1/chat/completions", body).first;
  for (JobId job = 1; job <= 4; ++job) {
    std::vector<JobEvent> events;
    events.push_back(
        {.job = job, .delta = {}, .error = "logits are not finite", .code = ErrorCode::kInternal});
    served.api.deliver(std::move(events));
  }
  EXPECT_EQ(plain->status, 500);
  EXPECT_EQ(plain->json()["error"]["type"], "server_error");
  EXPECT_EQ(stream->events().back()["error"]["message"], "logits are not finite");
  EXPECT_TRUE(stream->over);
  EXPECT_EQ(served.api.num_exchanges(), 0u);
}

// What the engine says of job `job`.
JobEvent said(JobId job, const std::string& text, std::optional<FinishReason> finished = {}) {
  JobEvent event{.job = job};
  event.delta.text = text, event.delta.finished = finished;
  if (!text.empty()) event.delta.tokens.push_back({.id = 20});
  event.delta.usage.generated_tokens = 1;
  return event;
}

TEST(Api, ToolCallsAndReasoningAreSplitOffTheAnswer) {
  for (const bool stream : {false, true}) {
    Served served({}, {}, /*start=*/false);
    Json body = ask("Weather?");
    body["tools"] = {{{"type", "function"}, {"function", {{"name", "weather"}}}}};
    body["stream"] = stream;
    const auto kept = served.begin("/v1/chat/completions", body).first;
    for (const char* text :
         {"<think>", "hm", "</think>\n", "Let me see.", "<｜tool▁calls▁begin｜>",
          "<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"at\": \"x\"}\n```",
          "<｜tool▁call▁end｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>two\n```json\n{}\n```",
          "<｜tool▁call▁end｜>"})
      served.api.deliver({said(1, text)});
    served.api.deliver({said(1, "<｜tool▁calls▁end｜>", FinishReason::kEndToken)});
    ASSERT_TRUE(kept->over);
    Json message, reason;
    if (stream) {
      message = {{"content", ""}, {"reasoning_content", ""}, {"tool_calls", Json::array()}};
      for (const Json& event : kept->events()) {
        const Json& choice = event["choices"][0];
        for (const char* key : {"content", "reasoning_content"})
          message[key] = message[key].get<std::string>() + choice["delta"].value(key, "");
        if (choice["delta"].contains("tool_calls"))
          for (const Json& call : choice["delta"]["tool_calls"]) {
            EXPECT_EQ(call["index"], message["tool_calls"].size());
            message["tool_calls"].push_back(call);
          }
        reason = choice["finish_reason"];
      }
    } else {
      message = kept->json()["choices"][0]["message"];
      reason = kept->json()["choices"][0]["finish_reason"];
    }
    EXPECT_EQ(message["content"], "Let me see.");
    EXPECT_EQ(message["reasoning_content"], "hm");
    EXPECT_EQ(reason, "tool_calls");
    ASSERT_EQ(message["tool_calls"].size(), 2u) << kept->body;
    EXPECT_EQ(message["tool_calls"][0]["type"], "function");
    EXPECT_EQ(message["tool_calls"][0]["function"]["name"], "weather");
    EXPECT_EQ(message["tool_calls"][0]["function"]["arguments"], "{\"at\": \"x\"}");
    EXPECT_NE(message["tool_calls"][0]["id"], message["tool_calls"][1]["id"]);
  }
}

TEST(Api, QuietStreamsAreKeptAlive) {
  Served served({.keep_alive_seconds = 0.05}, {}, /*start=*/false);
  Json body = ask("a");
  body["stream"] = true;
  const auto kept = served.begin("/v1/chat/completions", body).first;
  const auto plain = served.begin("/v1/chat/completions", ask("a")).first;
  const std::string before = kept->body;
  const double sent = now_seconds();
  served.api.tick();
  if (now_seconds() - sent < 0.05) {
    EXPECT_EQ(kept->body, before);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  served.api.tick();
  served.api.tick();  // at once: nothing more
  EXPECT_EQ(kept->body, before + ": waiting\n\n");
  EXPECT_EQ(plain->body, "");
}

TEST(Api, AStoppedTextEndsBeforeTheStop) {
  Served served;
  Json body{{"prompt", "Hello"}, {"max_tokens", 60}, {"seed", 3}, {"ignore_eos", true}};
  const std::string whole = served.post("/v1/completions", body)->json()["choices"][0]["text"];
  ASSERT_GT(whole.size(), 20u);
  size_t at = 6;
  while ((static_cast<unsigned char>(whole[at]) & 0x80) != 0 ||
         (static_cast<unsigned char>(whole[at + 1]) & 0x80) != 0)
    ++at;
  const std::string stop = whole.substr(at, 2);
  body["stop"] = stop;
  const Json choice = served.post("/v1/completions", body)->json()["choices"][0];
  EXPECT_EQ(choice["text"], whole.substr(0, whole.find(stop)));
  EXPECT_EQ(choice["finish_reason"], "stop");
}

TEST(Api, LogprobsAreThoseOfTheTokens) {
  Served served;
  Json body = ask("Hello", 5);
  body["logprobs"] = true, body["top_logprobs"] = 3, body["temperature"] = 0, body["ignore_eos"] = true;
  const Json choice = served.post("/v1/chat/completions", body)->json()["choices"][0];
  ASSERT_EQ(choice["logprobs"]["content"].size(), 5u);
  for (const Json& token : choice["logprobs"]["content"]) {
    ASSERT_EQ(token["top_logprobs"].size(), 3u);
    EXPECT_EQ(token["top_logprobs"][0]["bytes"], token["bytes"]);  // greedy
    EXPECT_LE(token["logprob"].get<double>(), 0);
  }
  body["stream"] = true;
  Json streamed = Json::array();
  for (const Json& event : served.post("/v1/chat/completions", body)->events())
    if (event["choices"][0]["logprobs"].is_object())
      for (const Json& token : event["choices"][0]["logprobs"]["content"]) streamed.push_back(token);
  EXPECT_EQ(streamed, choice["logprobs"]["content"]);
}

TEST(Api, TextLogprobsHaveOneKeyForEachAlternative) {
  Served served;
  const Json body{
      {"prompt", "Hello"}, {"max_tokens", 40}, {"logprobs", 20}, {"seed", 1}, {"ignore_eos", true}};
  const Json choice = served.post("/v1/completions", body)->json()["choices"][0];  // strict: no key twice
  for (const Json& top : choice["logprobs"]["top_logprobs"]) EXPECT_EQ(top.size(), 20u);
}

TEST(Api, TheKeyIsAskedForWhereItMatters) {
  Served served({.api_key = "secret"});
  EXPECT_EQ(served.get("/health")->status, 200);
  EXPECT_EQ(served.get("/")->status, 200);
  EXPECT_EQ(served.get("/v1/models")->status, 401);
  EXPECT_EQ(served.get("/metrics")->status, 401);
  for (const char* wrong : {"", "secret", "Bearer ", "Bearer", "Bearer secre", "Bearer secrets",
                            "Bearer Secret", "Basic secret", "Bearer secretsecret", "Bearer  secret"}) {
    const auto kept = served.post("/v1/chat/completions", ask("a"), wrong);
    EXPECT_EQ(kept->status, 401) << wrong;
    EXPECT_EQ(kept->header("WWW-Authenticate"), "Bearer");
    EXPECT_EQ(kept->json()["error"]["type"], "authentication_error");
  }
  EXPECT_EQ(served.post("/v1/chat/completions", ask("a", 1), "Bearer secret")->status, 200);
  EXPECT_EQ(served.post("/v1/chat/completions", ask("a", 1), "bearer secret")->status, 200);
}

TEST(Api, UnknownPathsAre404AndWrongMethods405) {
  Served served;
  EXPECT_EQ(served.get("/nothing")->status, 404);
  const auto kept = served.get("/v1/chat/completions");
  EXPECT_EQ(kept->status, 405);
  EXPECT_EQ(kept->header("Allow"), "POST");
  EXPECT_EQ(served.get("/health", "DELETE")->header("Allow"), "GET, HEAD");
  EXPECT_EQ(served.get("/health", "HEAD")->status, 200);
}

TEST(Api, OtherContentTypesAreRefused) {
  Served served;
  for (const auto& [type, status] :
       std::vector<std::pair<const char*, int>>{{"application/json", 200},
                                                {"application/json ; charset=utf-8", 200},
                                                {"", 200},
                                                {"text/plain", 415},
                                                {"application/x-www-form-urlencoded", 415},
                                                {"application/jsonx", 415}}) {
    auto kept = std::make_shared<Kept>();
    served.api.handle(
        {.method = "POST", .path = "/tokenize", .content_type = type, .body = R"({"prompt": "a"})"}, kept);
    EXPECT_EQ(kept->status, status) << type;
  }
}

TEST(Api, TokenizeAndDetokenizeAreInverse) {
  Served served;
  const Json tokens =
      served.post("/tokenize", Json{{"prompt", "Grüße"}, {"add_special_tokens", false}})->json();
  EXPECT_EQ(tokens["count"], 7);
  EXPECT_EQ(served.post("/detokenize", Json{{"tokens", tokens["tokens"]}})->json()["prompt"], "Grüße");
}

TEST(Api, TheDescriptionsKeysOfLogitBiasAreTheTokensOfTheModel) {
  Served served;
  const Json schemas = served.get("/openapi.json")->json()["components"]["schemas"];
  const int64_t W = served.engine.model().vocab_size;
  for (const char* request : {"ChatRequest", "CompletionRequest"}) {
    const std::string pattern = schemas[request]["properties"]["logit_bias"]["propertyNames"]["pattern"];
    const std::regex tokens(pattern, std::regex::ECMAScript);
    for (int64_t id = 0; id < 12 * W; ++id)
      ASSERT_EQ(std::regex_match(std::to_string(id), tokens), id < W) << id << " " << pattern;
    for (const char* other : {"", "00", "07", "-1", "1.0", "x"})
      EXPECT_FALSE(std::regex_match(other, tokens));
  }
}

TEST(Api, TokenIdsEndBelowTheVocabulary) {
  Served served;
  const int64_t W = served.engine.model().vocab_size;
  for (const auto& [id, status] : std::vector<std::pair<int64_t, int>>{{W - 1, 200}, {W, 400}}) {
    const auto prompt =
        served.post("/v1/completions", Json{{"prompt", Json::array({20, id})}, {"max_tokens", 1}});
    EXPECT_EQ(prompt->status, status) << id;
    const auto bias = served.post("/v1/completions",
                                  Json{{"prompt", "a"}, {"max_tokens", 1}, {"logit_bias", {{cat(id), 1}}}});
    EXPECT_EQ(bias->status, status) << id;
    if (status == 200) continue;
    EXPECT_EQ(prompt->json()["error"]["param"], "prompt");
    EXPECT_EQ(bias->json()["error"]["param"], cat("logit_bias.", id));
  }
}

TEST(Api, TheDescriptionAllowsThinkingWhereTheFormatHasTheSwitch) {
  Served served;  // v3
  Api thinking({.model = "tiny", .chat_template = "v3.1"}, served.engine);
  const auto described = [](Api& api) {
    auto kept = std::make_shared<Kept>();
    api.handle({.method = "GET", .path = "/openapi.json"}, kept);
    const Json schemas = kept->json()["components"]["schemas"];
    return schemas["ChatRequest"]["properties"]["chat_template_kwargs"]["anyOf"][0]["properties"];
  };
  for (const char* name : {"thinking", "enable_thinking"}) {
    Json body = ask("a", 1);
    body["chat_template_kwargs"] = {{name, true}};
    EXPECT_EQ(served.post("/v1/chat/completions", body)->status, 400);
    EXPECT_EQ(described(served.api)[name]["enum"], Json::array({false, nullptr}));
    EXPECT_FALSE(described(thinking)[name].contains("enum"));
  }
}

TEST(Api, ChatsFollowTheFormatThatTheTokenizerHasWhereNoneIsNamed) {
  Served served;  // a tokenizer with V3's tokens and without a template
  Api api({.model = "tiny"}, served.engine);
  auto kept = std::make_shared<Kept>();
  api.handle({.method = "GET", .path = "/v1/models"}, kept);
  EXPECT_EQ(kept->json()["data"][0]["hadal"]["chat_template"], "v3");
}

TEST(Api, ModelsSayHowLargeTheModelIs) {
  Served served;
  const Json model = served.get("/v1/models")->json()["data"][0];
  const ModelSize size = model_size(served.engine.model());
  EXPECT_GT(size.active.total(), 1000);
  EXPECT_EQ(model["hadal"]["parameters"], size.main.total());
  EXPECT_EQ(model["hadal"]["parameters_per_token"], size.active.total());
  EXPECT_EQ(model["hadal"]["parameters_mtp"], size.mtp.total());
}

TEST(Api, MetricsCountWhatHappened) {
  Served served;
  Json body = ask("Hello", 4);
  body["ignore_eos"] = true, body["n"] = 2;
  served.post("/v1/chat/completions", body);
  served.wait_until_idle();
  const std::string text = served.get("/metrics")->body;
  for (const char* line : {"hadal:request_success_total{finished_reason=\"length\"} 2\n",
                           "hadal:generation_tokens_total 8\n", "hadal:request_generation_tokens_count 2\n",
                           "hadal:time_to_first_token_seconds_count 2\n", "hadal:num_requests_running 0\n",
                           "hadal:cache_pages_used 0\n", "hadal:model_info{model_name=\"tiny\"} 1\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
}

TEST(Api, ARequestLongerThanTheContextIsRefusedByItsField) {
  Served served;
  const auto kept = served.post("/v1/chat/completions", ask(std::string(5000, 'x')));
  EXPECT_EQ(kept->status, 400);
  EXPECT_EQ(kept->json()["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(kept->json()["error"]["param"], "messages");
}

}  // namespace
}  // namespace hadal
