#include "hadal/server/answer_parser.h"

#include <gtest/gtest.h>

#include "hadal/base/random.h"
#include "hadal/base/text.h"

namespace hadal {
namespace {

#define CALLS "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define SEP "<｜tool▁sep｜>"

struct Whole {
  std::string reasoning, content, calls;  // calls: "name(arguments)" each
  bool operator==(const Whole&) const = default;
};

void PrintTo(const Whole& whole, std::ostream* out) {
  *out << "reasoning \"" << whole.reasoning << "\" content \"" << whole.content << "\" calls " << whole.calls;
}

void add(Whole& whole, const std::vector<AnswerPiece>& pieces) {
  for (const AnswerPiece& piece : pieces) {
    if (piece.kind == AnswerPiece::kToolCall)
      whole.calls += piece.name + "(" + piece.text + ")";
    else
      (piece.kind == AnswerPiece::kReasoning ? whole.reasoning : whole.content) += piece.text;
  }
}

// Parsed from parts that end at `cuts`.
Whole parse(const AnswerFormat& format, std::string_view text, std::vector<size_t> cuts = {}) {
  AnswerParser parser(format);
  Whole whole;
  size_t at = 0;
  cuts.push_back(text.size());
  for (const size_t cut : cuts) {
    add(whole, parser.push(text.substr(at, cut - at)));
    at = cut;
  }
  add(whole, parser.finish());
  return whole;
}

std::vector<size_t> every_byte(size_t n) {
  std::vector<size_t> cuts;
  for (size_t i = 1; i < n; ++i) cuts.push_back(i);
  return cuts;
}

constexpr AnswerFormat kPlain{.reasoning = false};
constexpr AnswerFormat kChat{};
constexpr AnswerFormat kThinking{.starts_in_reasoning = true};
constexpr AnswerFormat kTools{.tools = true};
constexpr AnswerFormat kThinkingTools{.starts_in_reasoning = true, .tools = true};

struct Case {
  AnswerFormat format;
  const char* text;
  Whole want;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {kPlain, " <think>a</think> " CALLS, {"", " <think>a</think> " CALLS, ""}},
      {kChat, "", {}},
      {kChat, "  \n", {"", "  \n", ""}},
      {kChat, "  Hi <th", {"", "  Hi <th", ""}},
      {kChat, "<th", {"", "<th", ""}},
      {kChat, "<think>\n a <b> \n</think>\n\nHi\n", {"a <b>", "Hi\n", ""}},
      {kChat, " \n<think>only", {"only", "", ""}},
      {kChat, "<think></think>x", {"", "x", ""}},
      {kChat, "say <think> and </think>", {"", "say <think> and </think>", ""}},
      {kThinking, "\nso\n</think>\n\nHi", {"so", "Hi", ""}},
      {kThinking, "so </thin k> </think>Hi</think>", {"so </thin k>", "Hi</think>", ""}},
      {kThinking, "so </thin", {"so </thin", "", ""}},
      {kTools, "Hi", {"", "Hi", ""}},
      {kTools, "a <｜tool b", {"", "a <｜tool b", ""}},
      {kTools,
       "Look:\n" CALLS CALL "function" SEP "f\n```json\n{\"x\": 1}\n```" CALL_END CALLS_END,
       {"", "Look:", "f({\"x\": 1})"}},
      {kTools, CALLS CALL "f" SEP "{\"x\": 1}" CALL_END CALLS_END, {"", "", "f({\"x\": 1})"}},
      {kTools,
       CALLS CALL "f" SEP CALL_END "\n" CALL " g " SEP " [1] " CALL_END CALLS_END " done",
       {"", "done", "f({})g([1])"}},
      {kTools,
       CALLS CALL "f" SEP "1" CALL_END CALLS_END CALLS CALL "g" SEP "2" CALL_END CALLS_END,
       {"", "", "f(1)g(2)"}},
      {kTools, CALLS CALL "f" SEP "1" CALL_END, {"", "", "f(1)"}},  // the outer end is missing
      {kTools, CALLS CALL "function" SEP "f\n```json\n\"```\"\n```" CALL_END, {"", "", "f(\"```\")"}},
      {kTools, CALLS CALL "function" SEP "{\"a\": \"```\"}" CALL_END, {"", "", "function({\"a\": \"```\"})"}},
      {kTools, CALLS CALLS_END, {"", "", ""}},
      {kThinkingTools, "why\n</think>\n\n" CALLS CALL "f" SEP "{}" CALL_END CALLS_END, {"why", "", "f({})"}},
      {kChat,
       CALLS CALL "f" SEP "{}" CALL_END CALLS_END,
       {"", CALLS CALL "f" SEP "{}" CALL_END CALLS_END, ""}},
      // Broken: content, as written.
      {kTools, "a \n" CALLS, {"", "a \n" CALLS, ""}},
      {kTools, "a\n" CALLS CALL "f" SEP "{\"x\"", {"", "a\n" CALLS CALL "f" SEP "{\"x\"", ""}},
      {kTools,
       CALLS CALL "no separator" CALL_END CALLS_END " b",
       {"", CALLS CALL "no separator" CALL_END CALLS_END "b", ""}},
      {kTools,
       CALLS CALL "function" SEP "f\n```json\n{}" CALL_END CALLS_END,
       {"", CALLS CALL "function" SEP "f\n```json\n{}" CALL_END CALLS_END, ""}},
      {kTools,
       CALLS CALL "function" SEP "f\n```json\n{}\n```more" CALL_END,
       {"", CALLS CALL "function" SEP "f\n```json\n{}\n```more" CALL_END, ""}},
      {kTools, CALLS CALL SEP "{}" CALL_END, {"", CALLS CALL SEP "{}" CALL_END, ""}},
      {kTools, CALLS " why " CALL "f" SEP "1" CALL_END CALLS_END, {"", CALLS " why ", "f(1)"}},
      {kTools, CALLS "nothing" CALLS_END, {"", CALLS "nothing" CALLS_END, ""}},
      {kTools, CALLS CALL "f" SEP "1" CALL_END CALL "g" SEP "2", {"", CALL "g" SEP "2", "f(1)"}},
      {kTools,
       CALLS CALL "f" SEP "1" CALL_END CALL "g" CALL_END CALLS_END,
       {"", CALL "g" CALL_END CALLS_END, "f(1)"}},
  };
  return all;
}

TEST(AnswerParser, TellsReasoningAnswerAndCallsApart) {
  for (const Case& c : cases()) EXPECT_EQ(parse(c.format, c.text), c.want) << c.text;
}

TEST(AnswerParser, PiecesDoNotDependOnHowTheTextIsCut) {
  for (const Case& c : cases()) {
    const size_t n = std::string_view(c.text).size();
    EXPECT_EQ(parse(c.format, c.text, every_byte(n)), c.want) << "byte by byte: " << c.text;
    for (size_t i = 0; i <= n; ++i)
      for (size_t k = i; k <= n; k += n < 80 ? 1 : 3)
        ASSERT_EQ(parse(c.format, c.text, {i, k}), c.want)
            << "cut at " << i << " and " << k << ": " << c.text;
  }
}

// Texts put together at random from markers and scraps of them.
std::string random_answer(uint64_t seed) {
  constexpr const char* kParts[] = {"<think>", "</think>", CALLS,         CALLS_END, CALL,         CALL_END,
                                    SEP,       "function", "\n```json\n", "\n```",   "{\"a\": 1}", " ",
                                    "\n",      "text",     "<",           "<｜",     "｜>",        "f"};
  std::string text;
  const uint32_t length = philox(seed, 0, 0)[0] % 14;
  for (uint32_t i = 0; i < length; ++i) text += kParts[philox(seed, 1, i)[0] % std::size(kParts)];
  return text;
}

TEST(AnswerParser, PiecesOfRandomAnswersDoNotDependOnHowTheyAreCut) {
  for (uint64_t seed = 0; seed < 1500; ++seed) {
    const std::string text = random_answer(seed);
    for (const AnswerFormat& format : {kChat, kThinking, kTools, kThinkingTools}) {
      const Whole want = parse(format, text);
      ASSERT_EQ(parse(format, text, every_byte(text.size())), want) << "seed " << seed << ": " << text;
      for (size_t i = 0; i <= text.size(); ++i)
        ASSERT_EQ(parse(format, text, {i}), want) << "seed " << seed << " cut at " << i << ": " << text;
    }
  }
}

TEST(AnswerParser, LosesNothingOfAnAnswerWithoutCalls) {
  int64_t with_markers = 0;
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    const std::string text = random_answer(seed);
    // What is left out by design: a pair of markers with only blanks between, blanks behind the outer end.
    bool plain = text.find(CALLS_END) == std::string::npos && text.find("<think>") == std::string::npos;
    AnswerParser parser(kTools);
    std::string content;
    for (const auto& pieces : {parser.push(text), parser.finish()})
      for (const AnswerPiece& piece : pieces) content += piece.text;
    if (!plain || parser.num_tool_calls() > 0) continue;
    with_markers += text.find(CALLS) != std::string::npos;
    ASSERT_EQ(content, text) << "seed " << seed;
  }
  EXPECT_GT(with_markers, 500);
}

TEST(AnswerParser, GivesPlainTextAtOnceAndCallsWhenWhole) {
  AnswerParser parser(kTools);
  auto pieces = parser.push("Hello the");
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].text, "Hello the");
  EXPECT_TRUE(parser.push("<").empty());
  EXPECT_EQ(parser.push("b>").at(0).text, "<b>");
  EXPECT_TRUE(parser.push(CALLS CALL "f" SEP "{").empty());
  EXPECT_EQ(parser.num_tool_calls(), 0u);
  pieces = parser.push("}" CALL_END);
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].kind, AnswerPiece::kToolCall);
  EXPECT_EQ(parser.num_tool_calls(), 1u);
}

TEST(AnswerParser, KnowsWhetherItIsInTheReasoning) {
  AnswerParser parser(kChat);
  EXPECT_FALSE(parser.in_reasoning());
  parser.push("<think>a");
  EXPECT_TRUE(parser.in_reasoning());
  parser.push("</think>");
  EXPECT_FALSE(parser.in_reasoning());
  EXPECT_TRUE(AnswerParser(kThinking).in_reasoning());
}

}  // namespace
}  // namespace hadal
