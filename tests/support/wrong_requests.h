// Requests to the server that are wrong in one place, with the status and the `param` that must be answered.
// Made from tables of fields and of values that each must refuse; a seed moves everything that does not
// matter. For models of up to kVocabulary tokens and kContext positions.
#pragma once
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/base/random.h"
#include "hadal/base/text.h"

namespace hadal {

inline constexpr int64_t kVocabulary = 100'000, kContext = 4096;

struct WrongRequest {
  std::string route, body;
  int status = 400;
  std::string param;         // "": null
  bool about_model = false;  // right as a request of the API, wrong for the model
};

// A request that uses most fields and asks for one token.
inline Json good_chat() {
  return Json::parse(R"({
    "model": "tiny",
    "messages": [
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": [{"type": "text", "text": "Weather "}, {"type": "text", "text": "here?"}]},
      {"role": "assistant", "content": null, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"at\": \"here\"}"}}]},
      {"role": "tool", "tool_call_id": "call_1", "content": "dry"},
      {"role": "user", "content": "So?", "name": "me"}],
    "tools": [{"type": "function", "function": {"name": "weather", "description": "of a place",
      "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}, "strict": false}}],
    "tool_choice": "auto", "parallel_tool_calls": true,
    "response_format": {"type": "text"},
    "max_tokens": 1, "max_completion_tokens": 1, "n": 1, "seed": 7, "temperature": 0.5, "top_p": 0.9,
    "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": -0.5,
    "stop": ["@@"], "logit_bias": {"20": 1.5}, "logprobs": true, "top_logprobs": 2, "ignore_eos": false,
    "stream": false, "user": "u", "chat_template_kwargs": {"thinking": false}, "hadal": {"trace": false}})");
}

inline Json good_completion() {
  return Json::parse(R"({"model": "tiny", "prompt": "Once", "max_tokens": 1, "n": 1, "best_of": 1, "seed": 7,
    "temperature": 0.5, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1,
    "presence_penalty": 0.5, "frequency_penalty": -0.5, "stop": "@@", "logit_bias": {"20": 1.5}, "logprobs": 2,
    "ignore_eos": false, "stream": false, "echo": false, "suffix": "", "user": "u", "hadal": {"trace": false}})");
}

// A place in a request and values that it must refuse; "" as param: the place's own path.
struct FieldRule {
  std::string pointer, param;
  std::vector<Json> wrong;
  bool about_model = false;
  int status = 400;
};

inline std::vector<Json> not_a_number() {
  return {Json("1"), Json(true), Json::array(), Json::array({1}), Json::object(), Json("")};
}
inline std::vector<Json> not_a_string() {
  return {Json(1), Json(1.5), Json(false), Json::object({{"a", 1}}), Json::array(), Json::array({"a"})};
}
inline std::vector<Json> not_a_boolean() {
  return {Json(0), Json(1), Json("true"), Json(""), Json::array(), Json::object()};
}
inline std::vector<Json> not_an_object() {
  return {Json(0), Json(1.5), Json("x"), Json(true), Json::array(), Json::array({1})};
}
inline std::vector<Json> not_a_list() {
  return {Json(0), Json(1.5), Json("x"), Json(true), Json::object(), Json::object({{"0", 1}})};
}
inline std::vector<Json> joined(std::vector<Json> a, const std::vector<Json>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline FieldRule number_rule(const char* name, double low, double high) {
  return {cat("/", name), name,
          joined(not_a_number(), {low - 0.01, high + 0.01, low - 1e9, high + 1e9, -1e300, 1e300})};
}
inline FieldRule integer_rule(const char* name, int64_t low, int64_t high) {
  return {
      cat("/", name), name,
      joined(not_a_number(), {1.5, low - 0.5, 1e19, low - 1, high + 1, low - 1000000, INT64_MIN, INT64_MAX})};
}

// Of both kinds of completion.
inline std::vector<FieldRule> generation_rules() {
  std::vector<FieldRule> rules = {
      number_rule("temperature", 0, 2),
      number_rule("top_p", 0, 1),
      number_rule("min_p", 0, 1),
      number_rule("repetition_penalty", 1e-6, 1e6),
      number_rule("presence_penalty", -2, 2),
      number_rule("frequency_penalty", -2, 2),
      integer_rule("top_k", -1, INT32_MAX),
      integer_rule("max_tokens", 1, INT32_MAX),
      integer_rule("n", 1, 16),
      {"/seed", "seed", joined(not_a_number(), {1.5, -0.5, 1e19, -1e19, UINT64_MAX})},
      {"/model", "model", not_a_string()},
      {"/model", "model", {"tin", "tiny ", "gpt-4o", "\n", "Tiny"}, true, 404},
      {"/ignore_eos", "ignore_eos", not_a_boolean()},
      {"/stream", "stream", not_a_boolean()},
      {"/stop",
       "stop",
       {1, 1.5, true, Json::object(), "", std::string(1025, 'x'), Json(std::vector<std::string>(17, "x"))}},
      {"/stop",
       "stop[0]",
       {Json::array({1}), Json::array({nullptr}), Json::array({""}), Json::array({Json::array()})}},
      {"/stop",
       "stop[2]",
       {Json::array({"a", "b", 3}), Json::array({"a", "b", ""}), Json::array({"a", "b", {{"c", 1}}})}},
      {"/logit_bias", "logit_bias", {1, "x", true, Json::array(), Json::array({1})}},
      {"/logit_bias", "logit_bias.x", {{{"x", 1}}}},
      {"/logit_bias", "logit_bias.-1", {{{"-1", 1}}}},
      {"/logit_bias", "logit_bias.", {{{"", 1}}}},
      {"/logit_bias", "logit_bias.1.5", {{{"1.5", 1}}}},
      {"/logit_bias", "logit_bias.07", {{{"07", 1}}}},
      {"/logit_bias", "logit_bias.99999999999", {{{"99999999999", 1}}}},
      {"/logit_bias/20", "logit_bias.20", {100.5, -101, 1e30, "1", true, nullptr, Json::array()}},
      {"/logit_bias/2000000", "logit_bias.2000000", {1, 0.5}, true},
      {"/stream_options",
       "stream_options",
       {Json::object(), {{"include_usage", true}}, 1}},  // without stream
      {"/hadal", "hadal", not_an_object()},
      {"/hadal/trace", "hadal.trace", not_a_boolean()},
      {"/hadal/trance", "hadal.trance", {true, nullptr, 1}},
  };
  for (const char* name :
       {"temprature", "max_token", "Stream", "functions", "x", "größe", "a b", "__proto__"})
    rules.push_back({cat("/", name), name, {1, nullptr, "x", Json::object()}});
  return rules;
}

inline std::vector<FieldRule> message_rules() {
  const Json long_name = std::string(300, 'f');
  return {
      {"/messages", "messages", joined(not_a_list(), {nullptr, Json::array()})},
      {"/messages/1", "messages[1]", joined(not_an_object(), {nullptr})},
      {"/messages/0/role", "messages[0].role",
       joined(not_a_string(), {nullptr, "", "User", "sistem", "function"})},
      {"/messages/4/content", "messages[4].content", {1, 1.5, true, Json::object(), nullptr}},
      {"/messages/1/content/0", "messages[1].content[0]", joined(not_an_object(), {nullptr})},
      {"/messages/1/content/1/type", "messages[1].content[1].type",
       joined(not_a_string(), {nullptr, "image_url", "input_audio", "Text"})},
      {"/messages/1/content/1/text", "messages[1].content[1].text", joined(not_a_string(), {nullptr})},
      {"/messages/1/content/1/image_url", "messages[1].content[1].image_url", {"x", 1}},
      {"/messages/4/colour", "messages[4].colour", {1, nullptr}},
      {"/messages/4/contents", "messages[4].contents", {"x"}},
      {"/messages/2/tool_calls", "messages[2].tool_calls", not_a_list()},
      {"/messages/4/tool_calls", "messages[4].tool_calls", {Json::array(), 1, "x"}},
      {"/messages/2/tool_calls/0", "messages[2].tool_calls[0]", joined(not_an_object(), {nullptr})},
      {"/messages/2/tool_calls/0/type", "messages[2].tool_calls[0].type", joined(not_a_string(), {"tool"})},
      {"/messages/2/tool_calls/0/function", "messages[2].tool_calls[0].function",
       joined(not_an_object(), {nullptr})},
      {"/messages/2/tool_calls/0/function/name", "messages[2].tool_calls[0].function.name",
       joined(not_a_string(), {nullptr, long_name})},
      {"/messages/2/tool_calls/0/function/arguments",
       "messages[2].tool_calls[0].function.arguments",
       {nullptr}},
      {"/messages/2/tool_calls/0/function/args", "messages[2].tool_calls[0].function.args", {"{}"}},
      {"/messages/2/tool_calls/0/cost", "messages[2].tool_calls[0].cost", {"{}"}},
      {"/messages/2/reasoning_content", "messages[2].reasoning_content", not_a_string()},
  };
}

inline std::vector<FieldRule> tool_rules() {
  const Json tool = good_chat()["tools"][0];
  const auto twice = [&] { return Json::array({tool, tool}); };
  return {
      {"/tools", "tools", joined(not_a_list(), {Json(std::vector<Json>(129, tool))})},
      {"/tools", "tools[1].function.name", {twice()}},
      {"/tools/0", "tools[0]", joined(not_an_object(), {nullptr})},
      {"/tools/0/type", "tools[0].type", joined(not_a_string(), {nullptr, "retrieval", "Function"})},
      {"/tools/0/function", "tools[0].function", joined(not_an_object(), {nullptr})},
      {"/tools/0/function/name", "tools[0].function.name",
       joined(not_a_string(), {nullptr, "", "a b", "größe", "a\nb", std::string(65, 'x'), "<｜tool▁sep｜>"})},
      {"/tools/0/function/description", "tools[0].function.description",
       joined(not_a_string(), {std::string(65537, 'x')})},
      {"/tools/0/function/parameters", "tools[0].function.parameters", not_an_object()},
      {"/tools/0/function/strict", "tools[0].function.strict", not_a_boolean()},
      {"/tools/0/function/parameter", "tools[0].function.parameter", {Json::object()}},
      {"/tools/0/extra", "tools[0].extra", {1, nullptr}},
      {"/tool_choice", "tool_choice", {1, true, Json::array(), "any", "Auto", ""}},
      {"/tool_choice",
       "tool_choice.type",
       {Json::object(), {{"type", "tool"}}, {{"type", 1}}, {{"type", nullptr}}}},
      {"/tool_choice",
       "tool_choice.function",
       {{{"type", "function"}},
        {{"type", "function"}, {"function", 1}},
        {{"type", "function"}, {"function", "weather"}}}},
      {"/tool_choice",
       "tool_choice.function.name",
       {{{"type", "function"}, {"function", Json::object()}},
        {{"type", "function"}, {"function", {{"name", 1}}}},
        {{"type", "function"}, {"function", {{"name", "wether"}}}}}},
      {"/response_format", "response_format", not_an_object()},
      {"/response_format/type", "response_format.type",
       joined(not_a_string(), {nullptr, "json", "JSON", "xml"})},
      {"/response_format",
       "response_format.json_schema",
       {{{"type", "json_schema"}}, {{"type", "json_schema"}, {"json_schema", 1}}}},
      {"/response_format",
       "response_format.json_schema.name",
       {{{"type", "json_schema"}, {"json_schema", {{"schema", Json::object()}}}},
        {{"type", "json_schema"}, {"json_schema", {{"name", 1}, {"schema", Json::object()}}}},
        {{"type", "json_schema"},
         {"json_schema", {{"name", std::string(65, 'n')}, {"schema", Json::object()}}}}}},
      {"/response_format",
       "response_format.json_schema.schema",
       {{{"type", "json_schema"}, {"json_schema", {{"name", "a"}}}},
        {{"type", "json_schema"}, {"json_schema", {{"name", "a"}, {"schema", nullptr}}}}}},
      {"/response_format/extra", "response_format.extra", {1, nullptr}},
  };
}

inline std::vector<FieldRule> chat_rules() {
  std::vector<FieldRule> rules = generation_rules();
  for (const auto& more : {message_rules(), tool_rules()})
    rules.insert(rules.end(), more.begin(), more.end());
  rules.push_back({"/max_completion_tokens", "max_completion_tokens",
                   joined(not_a_number(), {0, -1, 2, 1.5, int64_t{INT32_MAX} + 1})});
  rules.push_back({"/logprobs", "logprobs", not_a_boolean()});
  rules.push_back({"/logprobs", "top_logprobs", {false, nullptr}});
  rules.push_back(integer_rule("top_logprobs", 0, 20));
  rules.push_back({"/chat_template_kwargs", "chat_template_kwargs", not_an_object()});
  rules.push_back({"/chat_template_kwargs/thinking", "chat_template_kwargs.thinking", not_a_boolean()});
  rules.push_back({"/chat_template_kwargs/think", "chat_template_kwargs.think", {true, 1}});
  rules.push_back({"/prompt", "prompt", {"x", 1}});
  rules.push_back({"/messages/4/content", "messages", {std::string(2 * kContext, 'x')}, true});
  return rules;
}

inline std::vector<FieldRule> completion_rules() {
  std::vector<FieldRule> rules = generation_rules();
  const auto ids = [](std::vector<int64_t> list) { return Json(list); };
  for (FieldRule rule : std::vector<FieldRule>{
           {"/prompt", "prompt", {nullptr, 1, 1.5, true, Json::object(), Json::array()}},
           {"/prompt",
            "prompt[0]",
            {ids({-1}), Json::array({1.5}), ids({int64_t{1} << 40}), Json::array({nullptr}),
             Json::array({true}), Json::array({Json::array()}), Json::array({Json::object()})}},
           {"/prompt",
            "prompt[1]",
            {Json::array({1, "a"}), Json::array({"a", 1}), Json::array({"a", nullptr}),
             Json::array({Json::array({1}), Json::array()}), ids({3, -3})}},
           {"/prompt",
            "prompt[1][1]",
            {Json::array({ids({1}), Json::array({2, "x"})}), Json::array({ids({1}), ids({2, -1, 3})})}},
           {"/prompt", "prompt", {Json(std::vector<std::string>(17, "a"))}},
           {"/prompt",
            "prompt",
            {ids({2'000'000}), ids({5, 2'000'000}), Json(std::vector<int64_t>(kContext, 20)),
             std::string(2 * kContext, 'x')},
            true},
           {"/prompt",
            "prompt[1]",
            {Json::array({ids({5}), ids({2'000'000})}), Json::array({"a", std::string(2 * kContext, 'x')})},
            true},
           {"/logprobs", "logprobs", joined(not_a_number(), {1.5, -1, 21})},
           {"/echo", "echo", joined(not_a_boolean(), {true})},
           {"/suffix", "suffix", joined(not_a_string(), {"x"})},
           {"/best_of", "best_of", joined(not_a_number(), {0, 2, 17, 1.5})},
           {"/messages", "messages", {Json::array(), 1}},
       })
    rules.push_back(std::move(rule));
  return rules;
}

// The same object with its members in another order, recursively not.
inline Json shuffled(const Json& object, uint64_t seed) {
  std::vector<std::pair<uint32_t, std::string>> order;
  for (const auto& [key, value] : object.items()) order.emplace_back(philox(seed, 5, order.size())[0], key);
  std::sort(order.begin(), order.end());
  Json out = Json::object();
  for (const auto& [rank, key] : order) out[key] = object[key];
  return out;
}

inline void add_wrong_fields(std::vector<WrongRequest>& out, const std::string& route, const Json& good,
                             const std::vector<FieldRule>& rules, uint64_t seed) {
  for (const FieldRule& rule : rules)
    for (const Json& wrong : rule.wrong) {
      Json body = good;
      body[Json::json_pointer(rule.pointer)] = wrong;
      const uint64_t key = seed * 100'003 + out.size();
      const int indent = static_cast<int>(philox(key, 1, 0)[0] % 4) - 1;
      out.push_back(
          {route, dump_json(shuffled(body, key), indent), rule.status, rule.param, rule.about_model});
    }
}

inline std::vector<WrongRequest> wrong_fields(uint64_t seed) {
  std::vector<WrongRequest> out;
  add_wrong_fields(out, "/v1/chat/completions", good_chat(), chat_rules(), seed);
  add_wrong_fields(out, "/v1/completions", good_completion(), completion_rules(), seed);
  add_wrong_fields(out, "/tokenize", Json{{"model", "tiny"}, {"prompt", "x"}},
                   {{"/prompt", "prompt", joined(not_a_string(), {nullptr})},
                    {"/model", "model", {"other"}, true, 404},
                    {"/add_special_tokens", "add_special_tokens", not_a_boolean()},
                    {"/text", "text", {"x"}}},
                   seed);
  add_wrong_fields(out, "/detokenize", Json{{"tokens", {20, 21}}},
                   {{"/tokens", "tokens", joined(not_a_list(), {nullptr})},
                    {"/tokens/1", "tokens[1]", {-1, "1", 1.5, nullptr, true, INT64_MAX}},
                    {"/tokens/1", "tokens[1]", {2'000'000, INT32_MAX}, true},
                    {"/token", "token", {1}}},
                   seed);
  return out;
}

// Bodies that are no JSON object: 400, no param.
inline std::vector<WrongRequest> wrong_texts(uint64_t seed) {
  std::vector<WrongRequest> out;
  const std::string good = dump_json(good_chat());
  const auto add = [&](std::string body) { out.push_back({"/v1/chat/completions", std::move(body)}); };
  for (const char* text : {"",
                           " ",
                           "null",
                           "true",
                           "1",
                           "\"x\"",
                           "[]",
                           "[{}]",
                           "{",
                           "}",
                           "{}}",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{'a': 1}",
                           "{\"a\": 1,}",
                           "{a: 1}",
                           "{\"a\": NaN}",
                           "{\"a\": Infinity}",
                           "{\"a\": 01}",
                           "{\"a\": +1}",
                           "{\"a\": .5}",
                           "{\"a\": 1.}",
                           "{\"a\": 0x10}",
                           "{\"a\": 1e999}",
                           "{\"a\": -1e999}",
                           "{\"a\": 1} // no",
                           "/* no */ {}",
                           "{\"a\": \"\t\"}",
                           "{\"a\": \"\\x\"}",
                           "{\"a\": \"\\ud800\"}",
                           "{\"a\": \"\\udc00x\"}",
                           "{\"a\": \"\\u12\"}",
                           "{\"seed\": 1, \"seed\": 2}",
                           "{\"a\": {\"b\": 1, \"b\": 1}}",
                           "\xEF\xBB\xBF",
                           "{\"a\": \"\xff\"}",
                           "{\"\xc3\x28\": 1}",
                           "{\"a\": \"\xed\xa0\x80\"}",
                           "{\"a\": \"\xf4\x90\x80\x80\"}",
                           "{\"a\": \"\xc0\xaf\"}",
                           "{\"a\": \"\xe2\x82\"}",
                           "data: {}",
                           "a=1&b=2",
                           "<xml/>",
                           "{} {}",
                           "{\"a\": tru}"})
    add(text);
  add(std::string("{\"a\": 1}\0", 9));
  add(std::string("\0", 1));
  for (const char* open : {"[", "{\"a\":", "[[{\"b\":["})
    for (const int depth : {65, 100, 1000, 100'000}) {
      std::string deep = "{\"stop\":";
      for (int i = 0; i < depth; ++i) deep += open;
      add(deep);
    }
  add("{\"stop\":" + std::string(70, '[') + std::string(70, ']') + "}");
  for (uint64_t i = 0; i < 150; ++i) {  // cut off; never whole, since the last byte is the closing brace
    const size_t length = philox(seed, 2, i)[0] % good.size();
    if (good.substr(0, length).find_first_not_of(" ") != std::string::npos) add(good.substr(0, length));
  }
  for (uint64_t i = 0; i < 150; ++i) {  // a byte that may stand nowhere
    std::string text = good;
    const auto random = philox(seed, 3, i);
    text.insert(text.begin() + random[0] % text.size(), "\x01\x00\x1f\xff\xc0\xfe"[random[1] % 6]);
    add(text);
  }
  for (uint64_t i = 0; i < 60; ++i)
    add(good + "]}x,:0\""[philox(seed, 4, i)[0] % 7] + std::string(i % 3, ' '));
  return out;
}

}  // namespace hadal
