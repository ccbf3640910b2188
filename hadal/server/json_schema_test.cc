#include "hadal/server/json_schema.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "hadal/server/api_error.h"
#include "tests/support/constrained_walk.h"
#include "tests/support/schema_validator.h"

namespace hadal {
namespace {

const char* const kParam = "response_format.json_schema.schema";

// {"name", "schema", "accepts": [text], "refuses": [text]} or {"name", "schema", "error": part of the text,
// "param": how it begins}, one a line.
const std::vector<Json>& cases() {
  static const std::vector<Json> kCases = [] {
    std::vector<Json> out;
    std::ifstream file("tests/cases/json_schemas.jsonl");
    for (std::string line; std::getline(file, line);) out.push_back(parse_json(line, "json_schemas.jsonl"));
    return out;
  }();
  return kCases;
}

const WalkVocabulary& byte_vocabulary() {
  static const WalkVocabulary kBytes = trained_vocabulary(TokenizerKind::kByte, "");
  return kBytes;
}

// Learnt from the cases themselves: tokens span the marks of JSON.
const WalkVocabulary& bpe_vocabulary() {
  static const WalkVocabulary kBpe = [] {
    std::string text;
    for (const Json& c : cases()) {
      if (dump_json(c).size() < 20'000)
        text += dump_json(c["schema"]) + "\n" + dump_json(c["schema"], 2) + "\n";
      for (const Json& accepted : c.value("accepts", Json::array()))
        text += accepted.get<std::string>() + "\n";
    }
    return trained_vocabulary(TokenizerKind::kBpe, text);
  }();
  return kBpe;
}

bool accepts(const std::shared_ptr<const Constraint>& constraint, std::string_view text) {
  const WalkVocabulary& vocabulary = byte_vocabulary();
  ConstraintCursor cursor(constraint, vocabulary.trie);
  for (const int32_t id : vocabulary.tokenizer.encode(text, false)) {
    if (!is_allowed(cursor, id) || cursor.refuses(id)) return false;
    cursor.push(id);
  }
  return cursor.allowed().ends;
}

std::string refusal(const Json& schema, std::string* param = nullptr) {
  try {
    compile_json_schema(schema, kParam);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400);
    if (param) *param = error.param;
    return error.what();
  }
  return "accepted";
}

TEST(JsonSchema, AcceptsAndRefusesTheTextsOfEachCase) {
  ASSERT_GE(cases().size(), 150u);
  for (const Json& c : cases()) {
    if (c.contains("error")) continue;
    const auto constraint = compile_json_schema(c["schema"], kParam);
    for (const Json& text : c["accepts"])
      EXPECT_TRUE(accepts(constraint, text.get<std::string>())) << c["name"] << " " << text;
    for (const Json& text : c["refuses"])
      EXPECT_FALSE(accepts(constraint, text.get<std::string>())) << c["name"] << " " << text;
  }
}

TEST(JsonSchema, RandomAnswersParseAndConform) {
  int64_t walks = 0, ended = 0;
  for (const Json& c : cases()) {
    if (c.contains("error")) continue;
    const auto constraint = compile_json_schema(c["schema"], kParam);
    const SchemaValidator validator(c["schema"]);
    for (uint64_t seed = 0; seed < 6; ++seed) {
      const WalkVocabulary& vocabulary = seed % 2 ? bpe_vocabulary() : byte_vocabulary();
      const auto text = walk(constraint, vocabulary, seed, 1500);
      ++walks;
      if (!text) continue;
      ++ended;
      try {
        EXPECT_TRUE(validator.valid(parse_json(*text, "answer")))
            << c["name"] << " seed " << seed << ": " << *text;
      } catch (const std::exception& error) {
        ADD_FAILURE() << c["name"] << " seed " << seed << ": " << error.what() << " in " << *text;
      }
    }
  }
  EXPECT_GE(ended * 100, walks * 95) << ended << " of " << walks;
}

TEST(JsonSchema, WhatCannotBeHonouredIsRefusedByItsPlace) {
  for (const Json& c : cases()) {
    if (!c.contains("error")) continue;
    std::string param;
    const std::string text = refusal(c["schema"], &param);
    EXPECT_NE(text.find(c["error"].get<std::string>()), std::string::npos) << c["name"] << ": " << text;
    EXPECT_TRUE(param.starts_with(c["param"].get<std::string>())) << c["name"] << ": " << param;
  }
}

TEST(JsonSchema, HostileSchemasEndInAnErrorOrACompactConstraint) {
  // Ambiguity that doubles with each level: cut, and still only what conforms.
  const Json doubling = parse_json(
      R"({"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"},{"$ref":"#/$defs/c"},{"type":"null"}]},
      "b":{"type":"object","properties":{"x":{"$ref":"#/$defs/a"}},"required":["x"]},
      "c":{"type":"object","properties":{"x":{"$ref":"#/$defs/a"}},"required":["x"]}}})",
      "doubling");
  std::string nested = "null";
  for (int i = 0; i < 25; ++i) nested = "{\"x\":" + nested + "}";
  EXPECT_TRUE(accepts(compile_json_schema(doubling, kParam), nested));

  Json chain = {{"$ref", "#/$defs/d0"}};
  for (int i = 0; i < 3000; ++i)
    chain["$defs"]["d" + std::to_string(i)] = {{"$ref", "#/$defs/d" + std::to_string(i + 1)}};
  chain["$defs"]["d3000"] = {{"type", "null"}};
  EXPECT_NE(refusal(chain).find("references"), std::string::npos);

  Json wide = {{"type", "object"}, {"properties", Json::object()}};
  for (int i = 0; i < 6000; ++i) wide["properties"]["p" + std::to_string(i)] = Json::object();
  EXPECT_NE(refusal(wide).find("properties are listed"), std::string::npos);

  EXPECT_NE(refusal({{"description", std::string(600'000, 'x')}}).find("bytes"), std::string::npos);

  Json deep = {{"type", "null"}};
  for (int i = 0; i < 500; ++i) deep = {{"type", "array"}, {"items", deep}, {"minItems", 1}};
  EXPECT_NE(refusal(deep).find("nests"), std::string::npos);
}

TEST(JsonSchema, NoKeyOccursTwice) {
  const auto any = compile_json_object();
  EXPECT_TRUE(accepts(any, R"({"a":1,"b":{"a":1},"c":[{"a":1},{"a":2}]})"));
  EXPECT_FALSE(accepts(any, R"({"a":1,"a":2})"));
  EXPECT_FALSE(accepts(any, R"({"x":{"\"":1,"\"":2}})"));
  EXPECT_TRUE(accepts(any, R"({"x":{"a,\"":1},"a":"{\"a\":1,\"a\""})"));
}

TEST(JsonSchema, ForcedCallsAreMarkupAroundArgumentsThatConform) {
  const WalkVocabulary& vocabulary = bpe_vocabulary();
  const Json weather = parse_json(
      R"({"type":"object","properties":{"city":{"enum":["Oslo","Rome"]}},"required":["city"],"additionalProperties":false})",
      "weather");
  const std::vector<CallForm> calls = {{"weather\n", "\n", &weather, "tools[0].function.parameters"},
                                       {"now\n", "\n", nullptr, "tools[1].function.parameters"}};
  const CallsForm form{"<｜tool▁calls▁begin｜>", ";", "<｜tool▁calls▁end｜>", 1, 2};
  const auto constraint = compile_calls(calls, form, vocabulary.tokenizer);
  const auto follow = [&](std::string_view text) {
    ConstraintCursor cursor(constraint, vocabulary.trie);
    for (const int32_t id : vocabulary.tokenizer.encode(text)) {
      if (!is_allowed(cursor, id)) return false;
      cursor.push(id);
    }
    return cursor.allowed().ends;
  };
  const std::string begin = form.begin, end = form.end;
  EXPECT_TRUE(follow(begin + "weather\n{\"city\":\"Oslo\"}\n" + end));
  EXPECT_TRUE(follow(begin + "now\n{}\n;weather\n{\"city\": \"Rome\"}\n" + end));
  EXPECT_FALSE(follow(begin + "weather\n{\"city\":\"Bonn\"}\n" + end));
  EXPECT_FALSE(follow(begin + "now\n{}\n;now\n{}\n;now\n{}\n" + end));
  EXPECT_FALSE(follow(begin + end));
  EXPECT_FALSE(follow("weather\n{\"city\":\"Oslo\"}\n"));
  // The markup is its token, not the same text in pieces; and no text may hold the token.
  ConstraintCursor cursor(constraint, vocabulary.trie);
  EXPECT_EQ(cursor.allowed().num_tokens, 1);
  // A vocabulary without it is refused, and arguments must be objects.
  const Tokenizer& bytes = byte_vocabulary().tokenizer;
  EXPECT_TRUE(bytes.token_to_id(begin).has_value());
  const Json number = {{"type", "number"}};
  const std::vector<CallForm> wrong = {{"f", "", &number, "tools[0].function.parameters"}};
  try {
    compile_calls(wrong, form, vocabulary.tokenizer);
    ADD_FAILURE() << "accepted";
  } catch (const ApiError& error) {
    EXPECT_EQ(error.param, "tools[0].function.parameters");
  }
}

}  // namespace
}  // namespace hadal
