#include "hadal/rewards/code_task.h"

#include <gtest/gtest.h>

#include "hadal/error.h"
#include "hadal/rewards/code_checker.h"
#include "tests/support/error_of.h"

namespace hadal {
namespace {

std::string refusal_of(const std::string& columns) {
  return error_of([&] {
    parse_code_task(parse_task(R"({"prompt": "p", "verifier": "code", "id": "7", )" + columns + "}", "test"));
  });
}

TEST(CodeTask, ReadsLimitsTestsAndChecker) {
  const CodeTask task = parse_code_task(parse_task(
      R"({"prompt": "p", "verifier": "code", "language": "python", "time_limit_ms": 1500, "memory_limit_mb": 64,
          "tests": [{"input": "1", "output": "2"}, {"output": "3"}], "checker": "float:1e-6"})",
      "test"));
  EXPECT_EQ(task.language, CodeLanguage::kPython);
  EXPECT_EQ(task.time_limit_seconds, 1.5);
  EXPECT_EQ(task.memory_bytes, 64 << 20);
  ASSERT_EQ(task.tests.size(), 2u);
  EXPECT_EQ(task.tests[1].input, "");
  EXPECT_EQ(task.tests[1].expected, "3");
  EXPECT_EQ(task.checker, "float:1e-6");
}

TEST(CodeTask, FunctionsGetArgumentsAndResultsAsJson) {
  const CodeTask task = parse_code_task(parse_task(
      R"({"prompt": "p", "verifier": "code", "language": "python", "function": "f",
          "tests": [{"args": [[1, 2], "x"], "result": {"a": null}}]})",
      "test"));
  EXPECT_EQ(task.tests[0].input, R"([[1,2],"x"])");
  EXPECT_EQ(task.tests[0].expected, R"({"a":null})");
}

TEST(CodeTask, WhatIsWrongIsNamed) {
  const std::string tests = R"("tests": [{"input": "1", "output": "2"}])";
  EXPECT_NE(refusal_of(R"("language": "rust", )" + tests).find("task 7: \"language\" is \"rust\""),
            std::string::npos);
  EXPECT_NE(refusal_of(R"("tests": [])").find("no \"tests\""), std::string::npos);
  EXPECT_NE(refusal_of(R"("tests": [{"input": "1"}])").find("no \"output\""), std::string::npos);
  EXPECT_NE(refusal_of(R"("tests": [3])").find("no JSON object"), std::string::npos);
  EXPECT_NE(refusal_of(R"("time_limit_ms": -1, )" + tests).find("above 0"), std::string::npos);
  EXPECT_NE(refusal_of(R"("checker": "float:x", )" + tests).find("none of tokens"), std::string::npos);
  EXPECT_NE(refusal_of(R"("function": "f", )" + tests).find("needs its \"signature\""), std::string::npos);
  EXPECT_NE(refusal_of(R"("language": "python", "function": "f(", )" + tests).find("need a name"),
            std::string::npos);
  EXPECT_NE(refusal_of(R"("language": "python", "function": "f", )" + tests).find("\"args\""),
            std::string::npos);
}

TEST(FindProgram, TakesTheLastBlockOfTheLanguage) {
  const std::string text = "```cpp\nfirst\n```\nno:\n```C++ \nsecond\nline\n```\n```python\nthird\n```\n";
  EXPECT_EQ(find_program(text, CodeLanguage::kCpp), "second\nline\n");
  EXPECT_EQ(find_program(text, CodeLanguage::kPython), "third\n");
}

TEST(FindProgram, IgnoresReasoningAndWhatIsCutOff) {
  EXPECT_EQ(find_program("<think>\n```cpp\na\n```\n</think>\nnothing", CodeLanguage::kCpp), "");
  EXPECT_EQ(find_program("<think>\n```cpp\na\n```\n", CodeLanguage::kCpp), "");
  EXPECT_EQ(find_program("```cpp\nint main() {", CodeLanguage::kCpp), "");
  EXPECT_EQ(find_program("```\nuntagged\n```", CodeLanguage::kCpp), "");
  EXPECT_EQ(find_program("```cpp\n```", CodeLanguage::kCpp), "");
  EXPECT_EQ(find_program("no code", CodeLanguage::kCpp), "");
}

TEST(CodeChecker, TokensCountTheirNumber) {
  EXPECT_TRUE(output_matches("tokens", " 1\n2 \n", "1 2"));
  EXPECT_FALSE(output_matches("tokens", "1", "1 2"));
  EXPECT_FALSE(output_matches("tokens", "1 2 3", "1 2"));
  EXPECT_FALSE(output_matches("tokens", "1.0", "1"));
  EXPECT_FALSE(output_matches("tokens", "", "1"));
}

TEST(CodeChecker, ExactForgivesTheLastLineBreakAlone) {
  EXPECT_TRUE(output_matches("exact", "a b\n", "a b"));
  EXPECT_FALSE(output_matches("exact", "a  b", "a b"));
  EXPECT_FALSE(output_matches("exact", " a b", "a b"));
}

TEST(CodeChecker, FloatsMayDifferByTheirTolerance) {
  EXPECT_TRUE(output_matches("float:1e-3", "1.0004 x", "1 x"));
  EXPECT_TRUE(output_matches("float:1e-3", "2000.9", "2000"));
  EXPECT_FALSE(output_matches("float:1e-3", "1.002", "1"));
  EXPECT_FALSE(output_matches("float:1e-3", "nan", "1"));
  EXPECT_FALSE(output_matches("float:1e-3", "inf", "1"));
  EXPECT_FALSE(output_matches("float:1e-3", "x", "1"));
}

TEST(CodeChecker, ResultsAreComparedAsValues) {
  EXPECT_TRUE(result_matches("[1, 2.0000000001, \"x\"]", "[1,2.0,\"x\"]"));
  EXPECT_TRUE(result_matches("3", "3.0"));
  EXPECT_TRUE(result_matches(R"({"b": 1, "a": [true]})", R"({"a": [true], "b": 1})"));
  for (const char* wrong : {"true", "\"3\"", "[3]", "3 3", "4", "", "NaN", "null", "3.1"})
    EXPECT_FALSE(result_matches(wrong, "3")) << wrong;
  EXPECT_FALSE(result_matches("1", "true"));
  EXPECT_FALSE(result_matches("9007199254740993", "9007199254740992"));
}

}  // namespace
}  // namespace hadal
