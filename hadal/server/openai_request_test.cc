#include "hadal/server/openai_request.h"

#include <gtest/gtest.h>

#include "hadal/base/text.h"
#include "hadal/base/wide_json.h"
#include "hadal/error.h"
#include "hadal/server/api_error.h"
#include "tests/support/wrong_requests.h"

namespace hadal {
namespace {

ChatCall chat(const Json& body) {
  return parse_chat_call(body);
}
ChatCall chat_with(const char* field, const Json& value) {
  Json body{{"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  body[field] = value;
  return parse_chat_call(body);
}
CompletionCall completion(const Json& prompt) {
  return parse_completion_call(Json{{"prompt", prompt}});
}

void parse(const WrongRequest& request) {
  const Json body = parse_wide_json(request.body, "request body");
  if (request.route == "/v1/chat/completions") parse_chat_call(body);
  if (request.route == "/v1/completions") parse_completion_call(body);
  if (request.route == "/tokenize") parse_tokenize_call(body);
  if (request.route == "/detokenize") parse_detokenize_call(body);
}

// The ApiError of a call; fails if there is none.
template <class Call>
ApiError error_of(Call call) {
  try {
    call();
  } catch (const ApiError& error) {
    return error;
  }
  ADD_FAILURE() << "accepted";
  return {0, ""};
}

TEST(OpenAiRequest, AWrongFieldIsRefusedWithItsPathAsParam) {
  int64_t refused = 0;
  for (const WrongRequest& request : wrong_fields(1)) {
    if (request.about_model) {
      EXPECT_NO_THROW(parse(request)) << request.body.substr(0, 2000);
      continue;
    }
    try {
      parse(request);
      ADD_FAILURE() << "accepted, param should be " << request.param << ": " << request.body.substr(0, 2000);
    } catch (const ApiError& error) {
      EXPECT_EQ(error.param, request.param) << error.what() << "\n" << request.body.substr(0, 2000);
      EXPECT_EQ(error.status, request.status);
      EXPECT_NE(std::string(error.what()).find(request.param), std::string::npos);
      ++refused;
    }
  }
  EXPECT_GT(refused, 700);
}

TEST(OpenAiRequest, WhatIsNoJsonObjectIsRefused) {
  for (const WrongRequest& request : wrong_texts(1)) {
    bool refused = false;
    try {
      parse(request);
    } catch (const ApiError& error) {
      refused = true;
      EXPECT_EQ(error.param, "") << request.body.substr(0, 200);
    } catch (const Error& error) {
      refused = true;
    }
    EXPECT_TRUE(refused) << request.body.substr(0, 200);
  }
}

TEST(OpenAiRequest, NullIsTheSameAsAbsentForEveryOptionalField) {
  for (const Json& good : {good_chat(), good_completion()})
    for (const auto& [key, value] : good.items()) {
      if (key == "messages" || key == "prompt" || key == "logprobs" || key == "tools") continue;
      Json body = good, without = good;
      body[key] = nullptr;
      without.erase(key);
      for (const Json& each : {body, without})
        EXPECT_NO_THROW(good.contains("prompt") ? void(parse_completion_call(each))
                                                : void(parse_chat_call(each)))
            << key;
    }
}

TEST(OpenAiRequest, EveryFieldArrives) {
  Json body = good_chat();
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  body["hadal"]["trace"] = true;
  body["n"] = 3;
  const ChatCall call = chat(body);
  EXPECT_EQ(call.model, "tiny");
  EXPECT_EQ(call.sampling.temperature, 0.5);
  EXPECT_EQ(call.sampling.top_p, 0.9);
  EXPECT_EQ(call.sampling.top_k, 20);
  EXPECT_EQ(call.sampling.min_p, 0.1);
  EXPECT_EQ(call.sampling.repetition_penalty, 1.1);
  EXPECT_EQ(call.sampling.presence_penalty, 0.5);
  EXPECT_EQ(call.sampling.frequency_penalty, -0.5);
  ASSERT_EQ(call.sampling.logit_bias.size(), 1u);
  EXPECT_EQ(call.sampling.logit_bias[0].first, 20);
  EXPECT_EQ(call.seed, 7u);
  EXPECT_EQ(call.max_tokens, 1);
  EXPECT_EQ(call.n, 3);
  EXPECT_EQ(call.stops, std::vector<std::string>{"@@"});
  EXPECT_TRUE(call.stream && call.include_usage && call.trace && !call.ignore_end);
  EXPECT_EQ(call.top_logprobs, 2);
  EXPECT_EQ(call.thinking, false);
  ASSERT_EQ(call.messages.size(), 5u);
  EXPECT_EQ(call.messages[1].content, "Weather here?");
  EXPECT_FALSE(call.messages[2].content);
  ASSERT_EQ(call.messages[2].tool_calls.size(), 1u);
  EXPECT_EQ(call.messages[2].tool_calls[0].name, "weather");
  EXPECT_EQ(call.messages[2].tool_calls[0].arguments, "{\"at\": \"here\"}");
  ASSERT_EQ(call.tools.size(), 1u);
  EXPECT_EQ(call.tools[0].name, "weather");
  EXPECT_EQ(call.tools[0].description, "of a place");
  EXPECT_EQ(call.tool_choice, ToolChoice::kAuto);
}

TEST(OpenAiRequest, DefaultsAreThoseOfTheApi) {
  const ChatCall call = chat(Json{{"messages", {{{"role", "user"}, {"content", "Hi"}}}}});
  EXPECT_EQ(call.sampling.temperature, 1);
  EXPECT_EQ(call.sampling.top_p, 1);
  EXPECT_EQ(call.n, 1);
  EXPECT_FALSE(call.seed || call.max_tokens || call.stream || call.thinking);
  EXPECT_EQ(call.top_logprobs, -1);
  EXPECT_EQ(call.tool_choice, ToolChoice::kNone);
  EXPECT_EQ(call.format, ResponseFormat::kText);
}

TEST(OpenAiRequest, PromptsHaveFourShapes) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(std::get<std::string>(completion("a").prompts.at(0)), "a");
  EXPECT_EQ(std::get<Ids>(completion(Json{1, 2}).prompts.at(0)), (Ids{1, 2}));
  const CompletionCall texts = completion(Json{"a", "b"});
  ASSERT_EQ(texts.prompts.size(), 2u);
  EXPECT_EQ(std::get<std::string>(texts.prompts[1]), "b");
  const CompletionCall lists = completion(Json{{1}, {2, 3}});
  ASSERT_EQ(lists.prompts.size(), 2u);
  EXPECT_EQ(std::get<Ids>(lists.prompts[1]), (Ids{2, 3}));
  const CompletionCall mixed = completion(Json{"a", {2}});
  EXPECT_EQ(std::get<Ids>(mixed.prompts.at(1)), (Ids{2}));
}

TEST(OpenAiRequest, PromptsTimesChoicesAreLimited) {
  Json body{{"prompt", {"a", "b"}}, {"n", 8}};
  EXPECT_NO_THROW(parse_completion_call(body));
  body["n"] = 9;
  EXPECT_EQ(error_of([&] { parse_completion_call(body); }).param, "prompt");
}

TEST(OpenAiRequest, AMisspeltNameBringsTheNearestOne) {
  const auto message = [](const char* field) {
    return std::string(error_of([&] { chat_with(field, 1); }).what());
  };
  EXPECT_NE(message("temprature").find("did you mean \"temperature\"?"), std::string::npos);
  EXPECT_NE(message("max_token").find("did you mean \"max_tokens\"?"), std::string::npos);
  EXPECT_EQ(message("qqqqqqq").find("did you mean"), std::string::npos);
  Json body{{"messages", {{{"role", "usr"}, {"content", "Hi"}}}}};
  EXPECT_NE(std::string(error_of([&] { chat(body); }).what()).find("did you mean \"user\"?"),
            std::string::npos);
}

TEST(OpenAiRequest, ToolChoiceFollowsTheTools) {
  Json body{{"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  body["tool_choice"] = "auto";
  EXPECT_EQ(chat(body).tool_choice, ToolChoice::kNone);  // there is nothing to call
  body["tool_choice"] = "required";
  EXPECT_EQ(error_of([&] { chat(body); }).param, "tool_choice");
  body["tools"] = good_chat()["tools"];
  EXPECT_EQ(chat(body).tool_choice, ToolChoice::kRequired);
  body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "weather"}}}};
  EXPECT_EQ(chat(body).tool_choice, ToolChoice::kNamed);
  EXPECT_EQ(chat(body).tool_name, "weather");
  body["tool_choice"] = "none";
  EXPECT_EQ(chat(body).tool_choice, ToolChoice::kNone);
}

TEST(OpenAiRequest, ResponseFormatsArrive) {
  EXPECT_EQ(chat_with("response_format", {{"type", "json_object"}}).format, ResponseFormat::kJsonObject);
  const Json schema{{"type", "object"}};
  const ChatCall call = chat_with(
      "response_format",
      {{"type", "json_schema"}, {"json_schema", {{"name", "a"}, {"schema", schema}, {"strict", true}}}});
  EXPECT_EQ(call.format, ResponseFormat::kJsonSchema);
  EXPECT_EQ(call.schema_name, "a");
  EXPECT_EQ(call.schema, dump_json(schema));
}

TEST(OpenAiRequest, DeveloperMessagesAreSystemMessages) {
  EXPECT_EQ(chat(Json{{"messages", {{{"role", "developer"}, {"content", "x"}}}}}).messages[0].role, "system");
}

TEST(OpenAiRequest, StreamOptionsNeedAStream) {
  EXPECT_EQ(error_of([] { chat_with("stream_options", {{"include_usage", true}}); }).param, "stream_options");
  Json body{{"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"stream", true}};
  body["stream_options"] = {{"include_usage", 1}};
  EXPECT_EQ(error_of([&] { chat(body); }).param, "stream_options.include_usage");
}

TEST(OpenAiRequest, FieldsWithoutAMeaningHereAreTaken) {
  for (const char* field : {"user", "metadata", "store", "service_tier", "reasoning_effort", "modalities"})
    EXPECT_NO_THROW(chat_with(field, Json{{"any", 1}})) << field;
}

TEST(OpenAiRequest, LimitsAreTheCallers) {
  RequestCaps caps;
  caps.messages = 1, caps.stops = 1;
  Json body{{"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
  EXPECT_NO_THROW(parse_chat_call(body, caps));
  body["stop"] = {"a", "b"};
  EXPECT_EQ(error_of([&] { parse_chat_call(body, caps); }).param, "stop");
  body["messages"].push_back(body["messages"][0]);
  EXPECT_EQ(error_of([&] { parse_chat_call(body, caps); }).param, "messages");
}

TEST(OpenAiRequest, AnIntegerMayBeSpelledWithAPoint) {
  Json chat = good_chat();
  chat["seed"] = 12.0, chat["max_tokens"] = 3.0, chat["max_completion_tokens"] = 3.0;
  const ChatCall call = parse_chat_call(chat);
  EXPECT_EQ(call.seed, 12u);
  EXPECT_EQ(call.max_tokens, 3);
  EXPECT_EQ(parse_detokenize_call(Json{{"tokens", {7.0, 8}}}).tokens, (std::vector<int32_t>{7, 8}));
}

}  // namespace
}  // namespace hadal
