// Engine and constraint together: a model whose weights know nothing of JSON answers in JSON.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "hadal/engine.h"
#include "hadal/engine/grammar.h"
#include "hadal/engine/open_network.h"
#include "hadal/error.h"
#include "hadal/server/json_schema.h"
#include "tests/support/golden.h"
#include "tests/support/schema_validator.h"

namespace hadal {
namespace {

// ASCII and a few pairs, within the 256 rows of the model; token 1 ends.
Tokenizer ascii_tokenizer(const std::string& without = "") {
  Json vocab;
  vocab["<|begin|>"] = 0, vocab["<|end|>"] = 1;
  int32_t id = 2;
  for (char c = '!'; c <= '~'; ++c)
    if (without.find(c) == without.npos) vocab[std::string(1, c)] = id++;
  for (const char* text : {"\u0120", "\u010a", "{\"", "\":", "\",\u0120\"", "\"}", "tr", "},{"})
    if (without.empty() || std::string(text).find_first_of(without) == std::string::npos) vocab[text] = id++;
  const Json level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  Json added = Json::array();
  for (const char* name : {"<|begin|>", "<|end|>"})
    added.push_back({{"id", vocab[name]},
                     {"content", name},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  const Json file = {{"version", "1.0"},
                     {"added_tokens", added},
                     {"pre_tokenizer", level},
                     {"decoder", level},
                     {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
  return Tokenizer::parse(dump_json(file));
}

Engine engine_of(const EngineConfig& config, const Tokenizer& tokenizer = ascii_tokenizer()) {
  return Engine(open_network(golden_dir("v3-mtp")), tokenizer, config);
}

const std::vector<Json>& schemas() {
  static const std::vector<Json> kSchemas = [] {
    std::vector<Json> out;
    for (
        const char* text :
        {R"({"type":"object","properties":{"name":{"type":"string","maxLength":8},"age":{"type":"integer","minimum":0,"maximum":130}},"required":["name","age"],"additionalProperties":false})",
         R"({"type":"array","items":{"enum":["red","green","blue"]},"minItems":2,"maxItems":5})",
         R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"v":{"type":"boolean"},"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}}})",
         R"({"type":"string","format":"date-time"})",
         R"({"type":"object","properties":{"p":{"type":"number","minimum":0,"maximum":1},"tag":{"type":["string","null"],"maxLength":5}},"additionalProperties":false})",
         R"({"type":"object","additionalProperties":{"type":"integer","minimum":0,"maximum":9},"minProperties":2,"maxProperties":4})"})
      out.push_back(parse_json(text, "schema"));
    return out;
  }();
  return kSchemas;
}

std::vector<Request> requests() {
  std::vector<Request> out;
  for (uint64_t i = 0; i < 3 * schemas().size(); ++i) {
    Request request;
    request.prompt = {2 + static_cast<int32_t>(i), 40, 41};
    request.max_tokens = 450;
    request.sampling.temperature = i % 3 == 0 ? 0.0 : i % 3 == 1 ? 1.0 : 4.0;
    request.sampling.seed = i;
    request.top_logprobs = 0;
    request.constraint = compile_json_schema(schemas()[i % schemas().size()], "schema");
    out.push_back(request);
  }
  return out;
}

struct Outcome {
  std::string text;
  std::vector<float> logprobs;
  FinishReason reason = FinishReason::kCancelled;
  bool operator==(const Outcome&) const = default;
};

std::map<RequestId, Outcome> run_together(Engine& engine, const std::vector<Request>& all) {
  std::map<RequestId, Outcome> out;
  for (const Request& request : all) engine.submit(request);
  while (!engine.idle())
    for (const Delta& delta : engine.step()) {
      Outcome& outcome = out[delta.request];
      outcome.text += delta.text;
      for (const NewToken& token : delta.tokens) outcome.logprobs.push_back(token.logprobs[0].logprob);
      if (delta.finished) outcome.reason = *delta.finished;
    }
  return out;
}

TEST(ConstrainedAnswer, ConformsAndDependsNeitherOnBatchNorOnSpeculation) {
  const std::vector<Request> all = requests();
  Engine alone = engine_of(
      {.threads = 1, .cache_tokens = 4096, .reuse_prefixes = false, .speculation = Speculation::kOff});
  std::map<RequestId, Outcome> want;
  for (size_t i = 0; i < all.size(); ++i) {
    const Answer answer = alone.generate(all[i]);
    Outcome& outcome = want[i + 1];
    outcome = {.text = answer.text, .reason = answer.reason};
    for (const NewToken& token : answer.tokens) outcome.logprobs.push_back(token.logprobs[0].logprob);
    // Greedy choices may go on to a limit of the schema and past max_tokens; what ended conforms.
    EXPECT_TRUE(answer.reason == FinishReason::kEndToken || answer.reason == FinishReason::kMaxTokens)
        << name(answer.reason);
    if (answer.reason != FinishReason::kEndToken) continue;
    const Json& schema = schemas()[i % schemas().size()];
    EXPECT_TRUE(SchemaValidator(schema).valid(parse_json(answer.text, "answer"))) << answer.text;
  }
  const auto ended = std::count_if(want.begin(), want.end(),
                                   [](const auto& o) { return o.second.reason == FinishReason::kEndToken; });
  EXPECT_GE(ended, static_cast<int64_t>(all.size()) - 3);
  for (const Speculation speculation : {Speculation::kOff, Speculation::kOn}) {
    Engine engine =
        engine_of({.threads = 2, .cache_tokens = 16384, .max_sequences = 8, .speculation = speculation});
    EXPECT_TRUE(run_together(engine, all) == want) << "speculation " << static_cast<int>(speculation);
    if (speculation == Speculation::kOn) {
      EXPECT_GT(engine.stats().accepted_tokens, 0);
    }
  }
}

TEST(ConstrainedAnswer, MaxTokensStillCuts) {
  Engine engine = engine_of({.threads = 1, .cache_tokens = 1024});
  Request request = requests()[3];
  request.max_tokens = 4;
  EXPECT_EQ(engine.generate(request).reason, FinishReason::kMaxTokens);
}

TEST(ConstrainedAnswer, AVocabularyThatCannotGoOnEndsTheAnswer) {
  const auto constraint = compile_json_schema({{"const", "ab~c"}}, "schema");
  Engine engine = engine_of({.threads = 1, .cache_tokens = 1024}, ascii_tokenizer("~"));
  const Answer answer = engine.generate({.prompt = {5, 6}, .max_tokens = 20, .constraint = constraint});
  EXPECT_EQ(answer.text, "\"ab");
  EXPECT_EQ(answer.reason, FinishReason::kDeadEnd);
  EXPECT_STREQ(name(answer.reason), "dead_end");
  EXPECT_EQ(engine.stats().pages_used, 0);
}

TEST(ConstrainedAnswer, RefusesWhatContradictsAConstraint) {
  const auto constraint = compile_json_object();
  Engine engine = engine_of({.threads = 1, .cache_tokens = 1024});
  EXPECT_THROW(engine.submit({.prompt = {5}, .ignore_end = true, .constraint = constraint}), Error);
  Engine silent = Engine::open(golden_dir("v3-mtp"), {.threads = 1, .cache_tokens = 1024});
  EXPECT_THROW(silent.submit({.prompt = {5}, .constraint = constraint}), Error);
  Engine brackets = engine_of({.threads = 1, .cache_tokens = 1024}, ascii_tokenizer("{"));
  EXPECT_THROW(brackets.submit({.prompt = {5}, .constraint = constraint}), Error);
  EXPECT_TRUE(brackets.idle());
}

}  // namespace
}  // namespace hadal
