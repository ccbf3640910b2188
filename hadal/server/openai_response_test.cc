#include "hadal/server/openai_response.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "tests/support/server_model.h"

namespace hadal {
namespace {

ResponseHead chat_head() {
  return {.id = "chatcmpl-x", .model = "tiny", .created = 7, .experts_per_token = 2};
}

NewToken token(const Tokenizer& tokenizer, const std::string& text, float logprob,
               const std::vector<std::pair<std::string, float>>& top) {
  NewToken out{.id = tokenizer.encode(text).at(0)};
  out.logprobs.push_back({out.id, logprob});
  for (const auto& [other, value] : top) out.logprobs.push_back({tokenizer.encode(other).at(0), value});
  return out;
}

AnswerChoice finished(FinishReason reason, int64_t index = 0) {
  AnswerChoice choice{.index = index};
  choice.finished = reason;
  return choice;
}

TEST(OpenAiResponse, EndsAreSaidInTheApisWords) {
  EXPECT_STREQ(openai_finish_reason(AnswerChoice{}), "");
  EXPECT_STREQ(openai_finish_reason(finished(FinishReason::kEndToken)), "stop");
  EXPECT_STREQ(openai_finish_reason(finished(FinishReason::kStopString)), "stop");
  EXPECT_STREQ(openai_finish_reason(finished(FinishReason::kMaxTokens)), "length");
  EXPECT_STREQ(openai_finish_reason(finished(FinishReason::kContextFull)), "length");
  EXPECT_STREQ(openai_finish_reason(finished(FinishReason::kDeadEnd)), "length");
  AnswerChoice called = finished(FinishReason::kEndToken);
  called.calls.push_back({.kind = AnswerPiece::kToolCall, .text = "{}", .name = "f"});
  EXPECT_STREQ(openai_finish_reason(called), "tool_calls");
  called.finished = FinishReason::kMaxTokens;  // cut off
  EXPECT_STREQ(openai_finish_reason(called), "length");
}

TEST(OpenAiResponse, UsageCountsAPromptOnceForAllItsAnswers) {
  std::vector<AnswerChoice> choices;
  for (int64_t i = 0; i < 4; ++i) {  // two prompts, two answers to each
    AnswerChoice choice = finished(FinishReason::kEndToken, i);
    choice.first_of_prompt = i % 2 == 0;
    choice.usage = {.prompt_tokens = 10 + i / 2,
                    .reused_tokens = i,
                    .generated_tokens = 1 + i,
                    .drafted_tokens = 2,
                    .accepted_tokens = 1};
    choices.push_back(choice);
  }
  const Json usage = parse_json(response_json(chat_head(), choices, nullptr), "response")["usage"];
  EXPECT_EQ(usage["prompt_tokens"], 10 + 11);
  EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], 0 + 2);
  EXPECT_EQ(usage["completion_tokens"], 1 + 2 + 3 + 4);
  EXPECT_EQ(usage["total_tokens"], 21 + 10);
  EXPECT_EQ(usage["hadal"]["drafted_tokens"], 8);
  EXPECT_EQ(usage["hadal"]["accepted_tokens"], 4);
  const Json chunk = parse_json(usage_chunk_json(chat_head(), choices), "chunk");
  EXPECT_EQ(chunk["usage"], usage);
  EXPECT_TRUE(chunk["choices"].empty());
}

TEST(OpenAiResponse, AMessageHasNullContentOnlyBesideCalls) {
  const auto message = [](const AnswerChoice& choice) {
    return parse_json(response_json(chat_head(), {choice}, nullptr), "response")["choices"][0]["message"];
  };
  AnswerChoice choice = finished(FinishReason::kEndToken, 3);
  EXPECT_EQ(message(choice)["content"], "");
  EXPECT_FALSE(message(choice).contains("tool_calls"));
  EXPECT_FALSE(message(choice).contains("reasoning_content"));
  choice.reasoning = "hm";
  EXPECT_EQ(message(choice)["reasoning_content"], "hm");
  choice.calls.push_back({.kind = AnswerPiece::kToolCall, .text = "{\"a\": 1}", .name = "f"});
  choice.calls.push_back({.kind = AnswerPiece::kToolCall, .text = "{}", .name = "g"});
  EXPECT_TRUE(message(choice)["content"].is_null());
  const Json calls = message(choice)["tool_calls"];
  EXPECT_EQ(calls[0], (Json{{"id", "call_x_3_0"},
                            {"type", "function"},
                            {"function", {{"name", "f"}, {"arguments", "{\"a\": 1}"}}}}));
  EXPECT_EQ(calls[1]["id"], "call_x_3_1");
}

TEST(OpenAiResponse, LogprobsOfAChatListTheTokenItsBytesAndTheAlternatives) {
  const Tokenizer tokenizer = byte_tokenizer();
  ResponseHead head = chat_head();
  head.logprobs = true;
  AnswerChoice choice = finished(FinishReason::kMaxTokens);
  choice.tokens = {token(tokenizer, "a", -0.5f, {{"b", -0.25f}, {"a", -0.5f}})};
  choice.token_in_reasoning = {false};
  const Json content =
      parse_json(response_json(head, {choice}, &tokenizer), "response")["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 1u);
  EXPECT_EQ(content[0]["token"], "a");
  EXPECT_EQ(content[0]["bytes"], Json::array({97}));
  EXPECT_EQ(content[0]["logprob"], -0.5);
  ASSERT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(content[0]["top_logprobs"][0], (Json{{"token", "b"}, {"logprob", -0.25}, {"bytes", {98}}}));
}

TEST(OpenAiResponse, LogprobsOfATextSpellBytesThatAreNoTextAndCountOffsetsOn) {
  const Tokenizer tokenizer = byte_tokenizer();
  ResponseHead head = chat_head();
  head.chat = false, head.logprobs = true, head.id = "cmpl-x";
  AnswerChoice choice = finished(FinishReason::kMaxTokens);
  choice.content = "a\u00e9";
  choice.tokens = {token(tokenizer, "a", -1, {{"b", -2.0f}}), token(tokenizer, "\u00e9", -1, {})};
  const Json one = parse_json(response_json(head, {choice}, &tokenizer), "response")["choices"][0];
  EXPECT_EQ(one["text"], "a\u00e9");
  EXPECT_EQ(one["logprobs"]["tokens"], Json::array({"a", "bytes:\\xc3"}));
  EXPECT_EQ(one["logprobs"]["text_offset"], Json::array({0, 1}));
  EXPECT_EQ(one["logprobs"]["top_logprobs"][0], (Json{{"b", -2.0}}));

  // In a stream offsets go on where the last chunk ended.
  AnswerChoice streamed{.text_offset = 5};
  streamed.tokens = choice.tokens;
  const ChoiceNews news{.pieces = {{.kind = AnswerPiece::kContent, .text = "a"}}, .first_token = 0};
  const Json chunk = parse_json(delta_chunk_json(head, streamed, news, &tokenizer), "chunk")["choices"][0];
  EXPECT_EQ(chunk["logprobs"]["text_offset"], Json::array({5, 6}));
  EXPECT_EQ(streamed.text_offset, 7u);
}

TEST(OpenAiResponse, ATraceHasTheExpertsOfEachLayer) {
  const Tokenizer tokenizer = byte_tokenizer();
  ResponseHead head = chat_head();
  head.trace = true;
  AnswerChoice choice = finished(FinishReason::kMaxTokens);
  NewToken traced = token(tokenizer, "a", -1, {});
  traced.logprobs.clear();
  traced.guessed = true;
  traced.experts = {4, 1, 2, 7, 0, 3};  // three layers of two
  choice.tokens = {traced};
  choice.token_in_reasoning = {true};
  const Json tokens =
      parse_json(response_json(head, {choice}, &tokenizer), "response")["choices"][0]["hadal"]["tokens"];
  EXPECT_EQ(tokens[0]["experts"], Json::array({{4, 1}, {2, 7}, {0, 3}}));
  EXPECT_EQ(tokens[0]["guessed"], true);
  EXPECT_EQ(tokens[0]["part"], "reasoning");
  EXPECT_FALSE(tokens[0].contains("logprob"));
}

TEST(OpenAiResponse, AChunkWithNothingToSayIsNone) {
  AnswerChoice choice;
  EXPECT_EQ(delta_chunk_json(chat_head(), choice, {}, nullptr), "");
  ResponseHead text = chat_head();
  text.chat = false;
  EXPECT_EQ(begin_chunk_json(text, choice), "");  // text completions have no first chunk
  const Json first = parse_json(begin_chunk_json(chat_head(), choice), "chunk")["choices"][0];
  EXPECT_EQ(first["delta"]["role"], "assistant");
  EXPECT_TRUE(first["finish_reason"].is_null());
}

}  // namespace
}  // namespace hadal
