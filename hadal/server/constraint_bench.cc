// What constrained answers cost over a large vocabulary: the vocabulary's trie, and each token of JSON texts
// pushed through a fresh constraint, its next mask included. One thread. The last line is one JSON object.
// Usage: constraint_bench [folder with a tokenizer.json; .deps/tokenizer]
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/base/clock.h"
#include "hadal/base/text.h"
#include "hadal/engine/constraint.h"
#include "hadal/error.h"
#include "hadal/server/json_schema.h"

namespace hadal {
namespace {

struct BenchCase {
  const char* name;
  const char* schema;  // "": any object
  const char* text;
};

const BenchCase kCases[] = {
    {"any object", "",
     R"({"title": "The old man and the sea", "pages": 127, "tags": ["novel", "sea", "Cuba"], "author": {"name":
      "Ernest Hemingway", "born": 1899, "prizes": [{"name": "Pulitzer", "year": 1953}, {"name": "Nobel", "year": 1954}]},
      "text": "He was an old man who fished alone in a skiff in the Gulf Stream. Ein alter Mann; 老人与海。"})"},
    {"flat schema",
     R"({"type":"object","properties":{"name":{"type":"string"},"city":{"type":"string"},"age":{"type":"integer"},
      "email":{"type":"string"},"summary":{"type":"string"}},"required":["name","city","age","email","summary"],
      "additionalProperties":false})",
     R"({"name": "Ada Lovelace", "city": "London", "age": 36, "email": "ada@example.com",
      "summary": "Wrote the first program for a machine that was never built, and saw that it could do more than sums."})"},
    {"nested schema",
     R"({"type":"object","properties":{"steps":{"type":"array","items":{"type":"object","properties":{
      "explanation":{"type":"string"},"output":{"type":"string"},"kind":{"enum":["algebra","sum","proof"]}},
      "required":["explanation","output","kind"],"additionalProperties":false}},"answer":{"type":"string"}},
      "required":["steps","answer"],"additionalProperties":false})",
     R"({"steps": [{"explanation": "Subtract 7 from both sides of the equation.", "output": "8x = -30", "kind": "algebra"},
      {"explanation": "Divide both sides by 8, which is not zero.", "output": "x = -3.75", "kind": "algebra"}],
      "answer": "x = -3.75"})"},
    {"bounded string",
     R"({"type":"object","properties":{"slogan":{"type":"string","maxLength":80},"code":{"type":"string",
      "pattern":"^[A-Z]{3}-[0-9]{4}$"}},"required":["slogan","code"],"additionalProperties":false})",
     R"({"slogan": "Small models, written from nothing, answer well.", "code": "ABC-2026"})"}};

// Without the line breaks of this file.
std::string one_line(const char* text) {
  std::string out;
  for (const char* c = text; *c != '\0'; ++c)
    if (*c != '\n' && !(*c == ' ' && (out.empty() || out.back() == ' '))) out += *c;
  return out;
}

// Milliseconds of each token, the first mask first. Throws if the text is not allowed.
std::vector<double> push_times(const BenchCase& c, const Tokenizer& tokenizer,
                               const std::shared_ptr<const VocabularyTrie>& vocabulary) {
  const auto constraint =
      *c.schema == '\0' ? compile_json_object() : compile_json_schema(parse_json(c.schema, c.name), "schema");
  const std::vector<int32_t> ids = tokenizer.encode(one_line(c.text), false);
  std::vector<double> out;
  double start = now_seconds();
  const auto lap = [&] { out.push_back((now_seconds() - start) * 1e3); };
  ConstraintCursor cursor(constraint, vocabulary);
  lap();
  for (const int32_t id : ids) {
    if (!(cursor.allowed().bits[static_cast<size_t>(id / 64)] >> (id % 64) & 1))
      throw Error(ErrorCode::kInternal, cat("[bench.constraint] ", c.name, ": \"", tokenizer.token_bytes(id),
                                            "\" is not allowed at token ", out.size(), "."));
    start = now_seconds();
    cursor.push(id);
    lap();
  }
  return out;
}

Json measure(const BenchCase& c, const Tokenizer& tokenizer,
             const std::shared_ptr<const VocabularyTrie>& vocabulary) {
  constexpr int kRepeats = 15;
  std::vector<double> each;  // of a token the median of the repeats
  std::vector<std::vector<double>> runs;
  for (int i = 0; i < kRepeats; ++i) runs.push_back(push_times(c, tokenizer, vocabulary));
  for (size_t t = 0; t < runs[0].size(); ++t) {
    std::vector<double> of_token;
    for (const std::vector<double>& run : runs) of_token.push_back(run[t]);
    std::nth_element(of_token.begin(), of_token.begin() + kRepeats / 2, of_token.end());
    each.push_back(of_token[kRepeats / 2]);
  }
  double sum = 0;
  for (const double ms : each) sum += ms;
  std::sort(each.begin(), each.end());
  const auto at = [&](double share) {
    return each[static_cast<size_t>(share * static_cast<double>(each.size() - 1))];
  };
  const double mean = sum / static_cast<double>(each.size());
  std::printf("%-16s %4zu tokens  mean %.3f  p50 %.3f  p90 %.3f  p99 %.3f  max %.3f ms\n", c.name,
              each.size(), mean, at(0.5), at(0.9), at(0.99), each.back());
  return {{"case", c.name},    {"tokens", each.size()}, {"mean_ms", mean},
          {"p50_ms", at(0.5)}, {"p90_ms", at(0.9)},     {"max_ms", each.back()}};
}

int run(int argc, char** argv) {
  const Tokenizer tokenizer = Tokenizer::load(argc > 1 ? argv[1] : ".deps/tokenizer");
  const double start = now_seconds();
  const auto vocabulary = std::make_shared<const VocabularyTrie>(tokenizer, std::vector<int64_t>{});
  const double build = now_seconds() - start;
  std::printf("%lld tokens, %zu nodes, made in %.1f ms\n", static_cast<long long>(vocabulary->size()),
              vocabulary->nodes().size(), build * 1e3);
  Json out{{"vocabulary", vocabulary->size()}, {"trie_ms", build * 1e3}, {"cases", Json::array()}};
  for (const BenchCase& c : kCases) out["cases"].push_back(measure(c, tokenizer, vocabulary));
  std::printf("%s\n", dump_json(out).c_str());
  return 0;
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) {
  try {
    return hadal::run(argc, argv);
  } catch (const hadal::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
