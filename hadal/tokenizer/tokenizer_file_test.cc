// Broken and foreign tokenizer files: each is refused with an error that names the field; none crashes.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tokenizer.h"
#include "hadal/tokenizer/bpe_train.h"

namespace hadal {
namespace {

const TrainedTokenizer& small() {
  static const TrainedTokenizer trained = [] {
    const std::array<std::string_view, 1> texts = {"the cat and the hat and the bat, 123 and 12"};
    return train_tokenizer({.vocab_size = 300}, texts);
  }();
  return trained;
}

struct Refusal {
  bool refused = false;
  ErrorCode code = ErrorCode::kInternal;
  std::string text;
};

Refusal refusal(std::string_view json, std::string_view config = "") {
  try {
    Tokenizer::parse(json, config, "model/tokenizer.json");
  } catch (const Error& e) {
    return {true, e.code(), e.what()};
  }
  return {};
}

using Edit = std::function<void(Json&)>;

struct Case {
  const char* name;
  ErrorCode code;
  const char* text;  // must be in the error
  Edit edit;
};

constexpr ErrorCode kCorrupt = ErrorCode::kCorrupt;
constexpr ErrorCode kUnsupported = ErrorCode::kUnsupported;

Edit set(const char* pointer, Json value) {
  return [=](Json& json) { json[Json::json_pointer(pointer)] = value; };
}
Edit remove(const char* parent, const char* key) {
  return [=](Json& json) { json.at(Json::json_pointer(parent)).erase(key); };
}
Edit push(const char* pointer, Json value) {
  return [=](Json& json) { json[Json::json_pointer(pointer)].push_back(value); };
}

Json added(int64_t id, const char* content) {
  return {{"id", id}, {"content", content}, {"special", true}};
}
Json pattern(const char* regex) {
  return Json::object({{"Regex", regex}});
}

constexpr const char* kFirst = "/pre_tokenizer/pretokenizers/0";

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases = {
      {"top level array", kCorrupt, "the top level is not an object", [](Json& j) { j = Json::array(); }},
      {"no model", kCorrupt, "model is missing", remove("", "model")},
      {"model null", kCorrupt, "model is missing", set("/model", nullptr)},
      {"model string", kCorrupt, "model is not an object", set("/model", "BPE")},
      {"model WordPiece", kUnsupported, "model.type \"WordPiece\"", set("/model/type", "WordPiece")},
      {"model Unigram", kUnsupported, "model.type \"Unigram\"", set("/model/type", "Unigram")},
      {"model type number", kCorrupt, "model.type is not a string", set("/model/type", 3)},
      {"dropout", kUnsupported, "model.dropout 0.1", set("/model/dropout", 0.1)},
      {"dropout string", kCorrupt, "model.dropout is not a number", set("/model/dropout", "x")},
      {"unk_token", kUnsupported, "model.unk_token \"<unk>\"", set("/model/unk_token", "<unk>")},
      {"prefix", kUnsupported, "model.continuing_subword_prefix \"##\"",
       set("/model/continuing_subword_prefix", "##")},
      {"suffix", kUnsupported, "model.end_of_word_suffix \"</w>\"", set("/model/end_of_word_suffix", "</w>")},
      {"byte_fallback", kUnsupported, "model.byte_fallback true", set("/model/byte_fallback", true)},
      {"byte_fallback string", kCorrupt, "model.byte_fallback is not true or false",
       set("/model/byte_fallback", "no")},
      {"ignore_merges number", kCorrupt, "model.ignore_merges is not true or false",
       set("/model/ignore_merges", 1)},
      {"no vocab", kCorrupt, "model.vocab is missing", remove("/model", "vocab")},
      {"vocab array", kCorrupt, "model.vocab is not an object", set("/model/vocab", Json::array())},
      {"vocab empty", kCorrupt, "model.vocab is empty", set("/model/vocab", Json::object())},
      {"id string", kCorrupt, "model.vocab[\"a\"] is not an integer", set("/model/vocab/a", "7")},
      {"id negative", kCorrupt, "model.vocab[\"a\"] is -1", set("/model/vocab/a", -1)},
      {"id huge", kCorrupt, "model.vocab[\"a\"] is 4294967296", set("/model/vocab/a", int64_t{1} << 32)},
      {"id beyond 2^24", kCorrupt, "need an id from 0 to 16777215", set("/model/vocab/a", 16777216)},
      {"id fraction", kCorrupt, "is not an integer", set("/model/vocab/a", 1.5)},
      {"id twice", kCorrupt, "as has", set("/model/vocab/a", 8)},
      {"no merges", kCorrupt, "model.merges is missing", remove("/model", "merges")},
      {"merges object", kCorrupt, "model.merges is not an array", set("/model/merges", Json::object())},
      {"merge of one", kCorrupt, "model.merges[0] is \"ab\"", set("/model/merges/0", "ab")},
      {"merge of three", kCorrupt, "need two tokens and one space", set("/model/merges/0", "a b c")},
      {"merge number", kCorrupt, "model.merges[0] is neither", set("/model/merges/0", 5)},
      {"merge pair of one", kCorrupt, "model.merges[1] is neither",
       set("/model/merges/1", Json::array({"a"}))},
      {"merge pair of numbers", kCorrupt, "model.merges[1] is not a string",
       set("/model/merges/1", Json::array({1, 2}))},
      {"merge of an unknown token", kCorrupt, "names \"zqx\", which is not in model.vocab",
       set("/model/merges/1", "zqx a")},
      {"merge into an unknown token", kCorrupt, "makes \"xq\", which is not in model.vocab",
       set("/model/merges/1", "x q")},
      {"merge of an empty token", kCorrupt, "model.merges[0] names \"\"", set("/model/merges/0", " a")},
      {"merge outside the alphabet", kCorrupt, "names \"中\"", set("/model/merges/0", "中 a")},
      {"added tokens object", kCorrupt, "added_tokens is not an array", set("/added_tokens", Json::object())},
      {"added token number", kCorrupt, "added_tokens[0] is not an object", set("/added_tokens/0", 4)},
      {"added token without id", kCorrupt, "added_tokens[0].id is missing", remove("/added_tokens/0", "id")},
      {"added token id string", kCorrupt, "added_tokens[0].id is not an integer",
       set("/added_tokens/0/id", "0")},
      {"added token without content", kCorrupt, "added_tokens[0].content is missing",
       remove("/added_tokens/0", "content")},
      {"added token empty", kCorrupt, "added_tokens[5].content is empty",
       push("/added_tokens", added(300, ""))},
      {"added token long", kUnsupported, "added_tokens[5].content of 2000 bytes",
       push("/added_tokens", added(300, std::string(2000, 'x').c_str()))},
      {"added token of another id", kCorrupt, "but it has 0", set("/added_tokens/0/id", 7)},
      {"added token on a taken id", kCorrupt, "has id 9, as has", push("/added_tokens", added(9, "<new>"))},
      {"added token twice", kCorrupt, "twice", push("/added_tokens", added(0, "<｜begin▁of▁sentence｜>"))},
      {"added token id huge", kCorrupt, "added_tokens[5].id is 2000000000",
       push("/added_tokens", added(2000000000, "<n>"))},
      {"flag number", kCorrupt, "added_tokens[0].lstrip is not true or false",
       set("/added_tokens/0/lstrip", 1)},
      {"normalizer NFC", kUnsupported, "normalizer \"NFC\"", set("/normalizer", {{"type", "NFC"}})},
      {"normalizer in a sequence", kUnsupported, "\"Lowercase\"",
       set("/normalizer",
           {{"type", "Sequence"}, {"normalizers", Json::array({Json{{"type", "Lowercase"}}})}})},
      {"normalizer without type", kCorrupt, "normalizer.type is missing", set("/normalizer", Json::object())},
      {"no pre_tokenizer", kUnsupported, "pre_tokenizer null", set("/pre_tokenizer", nullptr)},
      {"pre_tokenizer Whitespace", kUnsupported, "pre_tokenizer \"Whitespace\"",
       set("/pre_tokenizer", {{"type", "Whitespace"}})},
      {"pre_tokenizer string", kCorrupt, "pre_tokenizer is not an object",
       set("/pre_tokenizer", "ByteLevel")},
      {"no ByteLevel", kUnsupported, "without a ByteLevel",
       [](Json& j) { j["pre_tokenizer"]["pretokenizers"].erase(3); }},
      {"Split after ByteLevel", kUnsupported, "after ByteLevel",
       [](Json& j) {
         j["pre_tokenizer"]["pretokenizers"].push_back(j["pre_tokenizer"]["pretokenizers"][0]);
       }},
      {"bad regex", kCorrupt, "pretokenizers[0].pattern: missing ]",
       set("/pre_tokenizer/pretokenizers/0/pattern", pattern("[a"))},
      {"foreign regex", kUnsupported, "(?<",
       set("/pre_tokenizer/pretokenizers/0/pattern", pattern("(?<=a)b"))},
      {"pattern string", kCorrupt, "pattern is not an object",
       set("/pre_tokenizer/pretokenizers/0/pattern", "a")},
      {"pattern empty", kCorrupt, "has neither Regex nor String",
       set("/pre_tokenizer/pretokenizers/0/pattern", Json::object())},
      {"behaviour unknown", kCorrupt, "behavior is \"Glued\"",
       set("/pre_tokenizer/pretokenizers/0/behavior", "Glued")},
      {"behaviour missing", kCorrupt, "behavior is missing", remove(kFirst, "behavior")},
      {"invert string", kCorrupt, "invert is not true or false",
       set("/pre_tokenizer/pretokenizers/0/invert", "no")},
      {"step without type", kCorrupt, "pretokenizers[0].type is missing", remove(kFirst, "type")},
      {"step Punctuation", kUnsupported, "\"Punctuation\"",
       set("/pre_tokenizer/pretokenizers/0", {{"type", "Punctuation"}})},
      {"no decoder", kUnsupported, "decoder null", set("/decoder", nullptr)},
      {"decoder Metaspace", kUnsupported, "decoder \"Metaspace\"", set("/decoder", {{"type", "Metaspace"}})},
      {"processor Bert", kUnsupported, "post_processor \"BertProcessing\"",
       set("/post_processor", {{"type", "BertProcessing"}})},
      {"template without single", kCorrupt, "post_processor.single is missing",
       set("/post_processor", {{"type", "TemplateProcessing"}})},
      {"template of an unknown token", kCorrupt, "special_tokens[\"<s>\"] is missing",
       set("/post_processor", Json::parse(R"({"type":"TemplateProcessing","special_tokens":{},
          "single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]})"))},
      {"template of an id that is no token", kCorrupt, "has 5000, which is no token",
       set("/post_processor", Json::parse(R"({"type":"TemplateProcessing",
          "special_tokens":{"<s>":{"id":"<s>","ids":[5000],"tokens":["<s>"]}},
          "single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]})"))},
  };
  return kCases;
}

TEST(TokenizerFile, EachMalformedFieldIsNamed) {
  ASSERT_FALSE(refusal(small().tokenizer_json).refused);
  EXPECT_GE(cases().size(), 60u);
  for (const Case& c : cases()) {
    Json json = parse_json(small().tokenizer_json, "small");
    c.edit(json);
    const Refusal got = refusal(dump_json(json));
    EXPECT_TRUE(got.refused) << c.name;
    EXPECT_EQ(name(got.code), std::string(name(c.code))) << c.name << ": " << got.text;
    EXPECT_NE(got.text.find(c.text), std::string::npos) << c.name << ": " << got.text;
    EXPECT_NE(got.text.find("model/tokenizer.json"), std::string::npos) << c.name << ": " << got.text;
  }
}

TEST(TokenizerFile, TruncationAnywhereIsCorruptAndNamesAByte) {
  const std::string& whole = small().tokenizer_json;
  const size_t end = whole.find_last_of('}');
  for (size_t cut = 0; cut <= 60; ++cut) {
    const Refusal got = refusal(std::string_view(whole).substr(0, end * cut / 60));
    EXPECT_TRUE(got.refused) << cut;
    EXPECT_EQ(got.code, ErrorCode::kCorrupt) << got.text;
    EXPECT_NE(got.text.find("byte "), std::string::npos) << got.text;
  }
}

TEST(TokenizerFile, BrokenTextIsCorrupt) {
  const std::string whole = small().tokenizer_json;
  const auto replaced = [&](std::string_view from, std::string_view to) {
    std::string text = whole;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  EXPECT_NE(refusal(replaced("\"version\"", "\"ver\xFF\"")).text.find("invalid UTF-8"), std::string::npos);
  EXPECT_EQ(refusal(replaced("{\n", "{{\n")).code, ErrorCode::kCorrupt);
  EXPECT_EQ(refusal(whole + "x").code, ErrorCode::kCorrupt);
  EXPECT_NE(refusal(replaced("\"a\": ", "\"b\": ")).text.find("model.vocab has \"b\" twice"),
            std::string::npos);
  EXPECT_NE(refusal(replaced("\"padding\"", "\"model\"")).text.find("has the key \"model\" twice"),
            std::string::npos);
  EXPECT_NE(refusal(replaced("\"fuse_unk\"", "\"merges\"")).text.find("model has the key \"merges\" twice"),
            std::string::npos);
  EXPECT_TRUE(refusal(std::string(200, '[')).refused);
  EXPECT_TRUE(refusal(std::string(100000, '[')).refused);
  EXPECT_TRUE(refusal(std::string_view("\0\0\0", 3)).refused);
  EXPECT_TRUE(refusal("null").refused);
}

TEST(TokenizerFile, AFlippedByteIsLoadedOrRefusedNeverACrash) {
  const std::string& whole = small().tokenizer_json;
  int refused = 0;
  for (uint64_t i = 0; i < 1500; ++i) {
    std::string text = whole;
    const auto draw = philox(7, 0, i);
    text[draw[0] % text.size()] = static_cast<char>(i % 3 ? draw[1] % 256 : "{}[]\",:0-e\\ "[draw[1] % 12]);
    const Refusal got = refusal(text);
    refused += got.refused;
    if (got.refused) {
      EXPECT_TRUE(got.code == ErrorCode::kCorrupt || got.code == ErrorCode::kUnsupported) << got.text;
    }
  }
  EXPECT_GT(refused, 300);
}

TEST(TokenizerFile, EachMalformedConfigFieldIsNamed) {
  const struct {
    const char *config, *text;
    ErrorCode code;
  } kConfigs[] = {
      {"[1]", "the top level is not an object", ErrorCode::kInvalidConfig},
      {"{", "byte 1", kCorrupt},
      {R"({"bos_token": "<nope>"})", "bos_token is \"<nope>\", which is not a token",
       ErrorCode::kInvalidConfig},
      {R"({"bos_token": 3})", "bos_token is neither", ErrorCode::kInvalidConfig},
      {R"({"eos_token": {"content": 3}})", "eos_token is neither", ErrorCode::kInvalidConfig},
      {R"({"add_bos_token": "yes"})", "add_bos_token is not true or false", ErrorCode::kInvalidConfig},
      {R"({"add_bos_token": true})", "add_bos_token is true without a bos_token", ErrorCode::kInvalidConfig},
      {R"({"add_eos_token": true})", "add_eos_token is true without an eos_token", ErrorCode::kInvalidConfig},
      {R"({"chat_template": 3})", "chat_template is neither", ErrorCode::kInvalidConfig},
      {R"({"chat_template": [{"name": "default"}]})", "without name and template", ErrorCode::kInvalidConfig},
  };
  for (const auto& c : kConfigs) {
    const Refusal got = refusal(small().tokenizer_json, c.config);
    EXPECT_TRUE(got.refused) << c.config;
    EXPECT_EQ(got.code, c.code) << got.text;
    EXPECT_NE(got.text.find(c.text), std::string::npos) << got.text;
  }
}

TEST(TokenizerFile, AMissingFileIsNotFound) {
  try {
    Tokenizer::load("/nonexistent/model");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(e.what()).find("/nonexistent/model"), std::string::npos);
  }
}

TEST(TokenizerFile, MergesAsPairsAreTheSameAsMergesAsText) {
  Json json = parse_json(small().tokenizer_json, "small");
  for (Json& merge : json["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    const size_t space = text.find(' ');
    merge = Json::array({text.substr(0, space), text.substr(space + 1)});
  }
  const Tokenizer pairs = Tokenizer::parse(dump_json(json)), texts = Tokenizer::parse(small().tokenizer_json);
  const std::string text = "the hat and the cat 12 the bat";
  EXPECT_EQ(pairs.encode(text), texts.encode(text));
  EXPECT_LT(pairs.encode(text).size(), text.size() * 2 / 3);  // merges do merge
}

// The V2 way: TemplateProcessing puts BOS first; tokenizer_config.json may overrule it.
TEST(TokenizerFile, PromptsGetBosOnceAsTheFilesSay) {
  Json json = parse_json(small().tokenizer_json, "small");
  json["post_processor"] = Json::parse(R"({"type":"TemplateProcessing",
      "special_tokens":{"B":{"id":"B","ids":[0],"tokens":["B"]}},
      "single":[{"SpecialToken":{"id":"B","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]})");
  const std::string file = dump_json(json);
  const Tokenizer by_template = Tokenizer::parse(file);
  EXPECT_TRUE(by_template.adds_bos());
  EXPECT_EQ(by_template.encode_prompt("a").front(), 0);
  EXPECT_NE(by_template.encode("a").front(), 0);
  EXPECT_EQ(by_template.encode_prompt("<｜begin▁of▁sentence｜>a"), by_template.encode_prompt("a"));
  EXPECT_NE(Tokenizer::parse(file, R"({"add_bos_token": false})").encode_prompt("a").front(), 0);
  const Tokenizer by_config = Tokenizer::parse(
      small().tokenizer_json,
      R"({"add_bos_token": true, "bos_token": {"content": "<｜begin▁of▁sentence｜>"}, "eos_token": "<｜end▁of▁sentence｜>",
          "add_eos_token": true})");
  EXPECT_EQ(by_config.encode_prompt("a").front(), 0);
  EXPECT_EQ(by_config.encode_prompt("a").back(), 1);
  EXPECT_TRUE(by_config.adds_eos());
}

TEST(TokenizerFile, IgnoreMergesKeepsAPieceThatIsAToken) {
  Json json = parse_json(small().tokenizer_json, "small");
  json["model"]["vocab"]["xyz"] = 300;  // no merge leads to it
  EXPECT_EQ(Tokenizer::parse(dump_json(json)).encode("xyz").size(), 3u);
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(Tokenizer::parse(dump_json(json)).encode("xyz"), (std::vector<int32_t>{300}));
}

// Expected ids: HF tokenizers 0.23 on the same flags.
TEST(TokenizerFile, AddedTokenFlagsDecideWhatTheySwallow) {
  const auto with = [](const char* flag) {
    Json json = parse_json(small().tokenizer_json, "small");
    json["added_tokens"].push_back({{"id", 300}, {"content", "<m>"}, {flag, true}});
    return Tokenizer::parse(dump_json(json));
  };
  const auto text_around = [](const Tokenizer& tokenizer, std::string_view text) {
    std::string out;
    for (const int32_t id : tokenizer.encode(text)) out += id == 300 ? "#" : tokenizer.token_bytes(id);
    return out;
  };
  EXPECT_EQ(text_around(with("special"), "a <m> b"), "a # b");
  EXPECT_EQ(text_around(with("lstrip"), "a \n<m> b"), "a# b");
  EXPECT_EQ(text_around(with("rstrip"), "a <m> \nb"), "a #b");
  EXPECT_EQ(text_around(with("single_word"), "a<m> <m>_ <m> (<m>)"), "a<m> <m>_ # (#)");
}

}  // namespace
}  // namespace hadal
