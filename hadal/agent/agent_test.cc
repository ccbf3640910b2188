#include "hadal/agent/agent.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "hadal/agent/builtin_tools.h"
#include "hadal/agent/calculator.h"
#include "hadal/agent/document_search.h"
#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/sandbox/sandbox.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

ModelTurn calls(std::vector<ToolCall> list) {
  return {.content = "", .calls = std::move(list), .num_tokens = 10};
}
ModelTurn says(const std::string& text) {
  return {.content = text, .num_tokens = 10};
}

// Gives its turns one after the other and keeps the last conversation it was shown.
struct Script {
  std::vector<ModelTurn> turns;
  size_t next = 0;
  std::vector<ChatMessage> shown;
  ChatModel model() {
    return [this](const std::vector<ChatMessage>& messages) {
      shown = messages;
      return turns[std::min(next++, turns.size() - 1)];
    };
  }
};

ToolBox with_calculator() {
  return builtin_tools({"calculator"});
}

TEST(Agent, TwoRoundsOfCallsLeadToTheAnswer) {
  Script script{
      {calls({{"calculator", R"({"expression": "123456 * 654321"})"}}),
       calls({{"calculator", R"({"expression": "1/3"})"}, {"calculator", R"({"expression": "2^10"})"}}),
       says("<answer>1024</answer>")}};
  const AgentResult result = run_agent(script.model(), with_calculator(), "What?");
  EXPECT_EQ(result.end, AgentEnd::kAnswered);
  EXPECT_EQ(result.answer, "<answer>1024</answer>");
  EXPECT_EQ(result.turns, 3);
  EXPECT_EQ(result.calls, 3);
  EXPECT_EQ(result.failed_calls, 0);
  EXPECT_EQ(result.tokens, 30);
  std::vector<std::string> roles, results;
  for (const ChatMessage& message : script.shown) {
    roles.push_back(message.role);
    if (message.role == "tool") results.push_back(*message.content);
  }
  EXPECT_EQ(roles,
            (std::vector<std::string>{"system", "user", "assistant", "tool", "assistant", "tool", "tool"}));
  EXPECT_EQ(results,
            (std::vector<std::string>{R"({"value":"80779853376"})", R"({"value":"1/3 = 0.333333333333..."})",
                                      R"({"value":"1024"})"}));
}

TEST(Agent, FailuresOfToolsGoBackToTheModel) {
  Script script{{calls({{"calculatr", "{}"},
                        {"calculator", "{"},
                        {"calculator", R"({"expression": 3})"},
                        {"calculator", R"({"expression": "1/0"})"}}),
                 says("done")}};
  const AgentResult result = run_agent(script.model(), with_calculator(), "t");
  EXPECT_EQ(result.end, AgentEnd::kAnswered);
  EXPECT_EQ(result.failed_calls, 4);
  const auto back = [&](size_t i) { return *script.shown[3 + i].content; };
  EXPECT_NE(back(0).find("did you mean"), std::string::npos);
  EXPECT_NE(back(1).find("byte"), std::string::npos);
  EXPECT_NE(back(2).find("arguments.expression is number, need string"), std::string::npos) << back(2);
  EXPECT_NE(back(3).find("division by zero"), std::string::npos);
}

TEST(Agent, EachBudgetEndsTheEpisode) {
  const auto end_with = [](const AgentBudget& budget) {
    int64_t n = 0;  // another call each time
    const ChatModel model = [&](const std::vector<ChatMessage>&) {
      ++n;
      return calls({{"calculator", cat(R"({"expression": ")", n, R"("})")}});
    };
    return run_agent(model, with_calculator(), "t", budget);
  };
  EXPECT_EQ(end_with({.turns = 3}).end, AgentEnd::kTurns);
  EXPECT_EQ(end_with({.turns = 3}).turns, 3);
  EXPECT_EQ(end_with({.turns = 9, .calls = 2}).end, AgentEnd::kCalls);
  EXPECT_EQ(end_with({.turns = 9, .calls = 2}).calls, 2);
  EXPECT_EQ(end_with({.turns = 9, .tokens = 25}).end, AgentEnd::kTokens);
  EXPECT_EQ(end_with({.turns = 9, .seconds = 1e-9}).end, AgentEnd::kSeconds);
}

TEST(Agent, TheSameCallThriceIsAnError) {
  Script script{{calls({{"calculator", R"({"expression": "1+1"})"}})}};
  const AgentResult result = run_agent(script.model(), with_calculator(), "t", {.turns = 3});
  EXPECT_EQ(result.failed_calls, 1);
  EXPECT_NE(result.messages.back().content->find("made 3 times"), std::string::npos);
}

TEST(Agent, ABrokenCallMayBeRepeatedOnce) {
  ModelTurn broken = says("<call");
  broken.broken_call = true;
  Script once{{broken, says("answer")}}, twice{{broken, broken, says("never")}};
  EXPECT_EQ(run_agent(once.model(), with_calculator(), "t").answer, "answer");
  EXPECT_EQ(run_agent(twice.model(), with_calculator(), "t").end, AgentEnd::kBrokenCalls);
}

TEST(Agent, ATurnThatIsCutIsNoAnswer) {
  ModelTurn cut = says("half an ans");
  cut.cut = true;
  Script script{{cut}};
  EXPECT_EQ(run_agent(script.model(), with_calculator(), "t").end, AgentEnd::kCut);
}

TEST(Agent, TranscriptsAreLinesOfJson) {
  Script script{{calls({{"calculator", R"({"expression": "6*7"})"}}), says("42")}};
  std::vector<std::string> kinds;
  run_agent(script.model(), with_calculator(), "t", {}, [&](const AgentEvent& event) {
    const Json line = parse_json(transcript_line(event), "line");
    kinds.push_back(line["event"]);
    if (line["event"] == "result") {
      EXPECT_EQ(line["result"], R"({"value":"42"})");
    }
    if (line["event"] == "end") {
      EXPECT_EQ(line["reason"], "answered");
    }
  });
  EXPECT_EQ(kinds, (std::vector<std::string>{"task", "turn", "result", "turn", "end"}));
}

TEST(Calculator, IsExactAndBounded) {
  const std::vector<std::pair<std::string, std::string>> cases = {{"1 + 2 * 3", "7"},
                                                                  {"(1+2)*3", "9"},
                                                                  {"-2^2", "-4"},
                                                                  {"2^-2", "1/4 = 0.25"},
                                                                  {"0.1 + 0.2", "3/10 = 0.3"},
                                                                  {"2^3^2", "512"},
                                                                  {"7/2", "7/2 = 3.5"},
                                                                  {"-7/2", "-7/2 = -3.5"},
                                                                  {"-7 % 3", "2"},
                                                                  {"999999*999999", "999998000001"},
                                                                  {"1/3-1/3", "0"}};
  for (const auto& [expression, value] : cases) EXPECT_EQ(calculate(expression), value) << expression;
  for (const char* wrong : {"", "1+", "(1", "1)", "a", "1 2", "1/0", "0^-1", "9^9^9", "2^1001", "1.2.3", ".",
                            "2^0.5", "5 % 0", "0.5 % 2", "1e5"})
    EXPECT_THROW(calculate(wrong), Error) << wrong;
  EXPECT_THROW(calculate(std::string(5000, '(')), Error);
  EXPECT_THROW(calculate(std::string(5000, '-') + "1"), Error);
  EXPECT_THROW(calculate(std::string(5000, '9')), Error);
}

class Documents : public testing::Test {
 protected:
  Documents() {
    std::filesystem::create_directory(folder_ / "deep");
    write_file(folder_ / "a.md", "The anglerfish lives\nin the deep sea.\n\nWhales breathe air.\n");
    write_file(folder_ / "deep" / "b.txt",
               "Sea, sea, sea.\n\nAn anglerfish has a lamp. The anglerfish hunts.\n");
    write_file(folder_ / "c.bin", "anglerfish");
    std::filesystem::create_symlink("/etc/passwd", folder_ / "link.txt");
  }
  TemporaryFolder folder_;
};

TEST_F(Documents, SearchRanksByRareWordsAndNamesThePlace) {
  const DocumentSearch search(folder_.path());
  EXPECT_EQ(search.num_passages(), 4u);
  const auto hits = search.find("Anglerfish lamp", 5);
  ASSERT_EQ(hits.size(), 2u);
  EXPECT_EQ(hits[0].passage->document, "deep/b.txt");
  EXPECT_EQ(hits[0].passage->first_line, 3);
  EXPECT_EQ(hits[1].passage->document, "a.md");
  EXPECT_GT(hits[0].score, hits[1].score);
  // "sea" stands there three times, but in two passages.
  EXPECT_EQ(search.find("sea whales", 1)[0].passage->text, "Whales breathe air.\n");
  EXPECT_TRUE(search.find("zebra", 5).empty());
  EXPECT_THROW(DocumentSearch("/no/such/folder"), Error);
}

TEST_F(Documents, ReadStaysInTheFolder) {
  const ToolBox box = builtin_tools({"read", "search"}, {.documents = folder_.path()});
  EXPECT_EQ(box.call("read", R"({"document": "a.md", "line": 2, "count": 1})"),
            R"({"lines":4,"text":"in the deep sea.\n"})");
  for (const char* path : {"link.txt", "../a", "/etc/passwd", "deep/../../x", "deep", "", "none"}) {
    bool failed = false;
    const std::string result = box.call("read", dump_json(Json{{"document", path}}), &failed);
    EXPECT_TRUE(failed) << path;
    EXPECT_NE(result.find("there is no document"), std::string::npos) << result;
  }
  EXPECT_NE(box.call("search", R"({"query": "lamp", "count": 1})").find("deep/b.txt"), std::string::npos);
}

TEST(Tools, CodeRunsInTheSandbox) {
  if (!sandbox_refusal().empty()) {
    EXPECT_THROW(builtin_tools({"shell"}), Error);
    GTEST_SKIP() << sandbox_refusal();
  }
  const ToolBox box = builtin_tools({"shell", "python"}, {.seconds = 2});
  EXPECT_EQ(box.call("shell", R"({"code": "echo $((6*7)); ls /etc"})").substr(0, 16), R"({"stdout":"42\n")");
  EXPECT_NE(box.call("shell", R"({"code": "sleep 100"})").find("wall time is over"), std::string::npos);
  if (std::filesystem::exists("/usr/bin/python3")) {
    EXPECT_EQ(box.call("python", R"x({"code": "print(2**64)"})x"),
              R"x({"stdout":"18446744073709551616\n","stderr":"","exit_code":0})x");
  }
}

TEST(Tools, LongResultsLoseTheirMiddle) {
  ToolBox box;
  box.add(
      {"long", "", Json{{"type", "object"}}, [](const Json&) -> Json { return std::string(100000, 'x'); }});
  const std::string result = box.call("long", "{}");
  EXPECT_LE(result.size(), box.max_result_bytes);
  EXPECT_NE(result.find("100002 bytes"), std::string::npos);
}

TEST(Tools, NamesAreUniqueWords) {
  ToolBox box = builtin_tools({"note"});
  EXPECT_EQ(box.call("note", R"({"text": "a"})"), R"({"notes":["a"]})");
  EXPECT_EQ(box.call("note", R"({"text": "b"})"), R"({"notes":["a","b"]})");
  EXPECT_THROW(box.add({.name = "note"}), Error);
  EXPECT_THROW(box.add({.name = "two words"}), Error);
  EXPECT_THROW(builtin_tools({"calculater"}), Error);
  EXPECT_THROW(builtin_tools({"search"}), Error);
}

TEST(SchemaFault, NamesThePlace) {
  const Json schema =
      parse_json(R"({"type": "object", "required": ["a"], "additionalProperties": false, "properties": {
      "a": {"type": "array", "items": {"type": "integer", "minimum": 2, "maximum": 5}}, "b": {"enum": ["x", "y"]},
      "c": {"type": "string", "maxLength": 2}}})",
                 "schema");
  const auto fault = [&](const char* text) { return schema_fault(schema, parse_json(text, "value")); };
  EXPECT_EQ(fault(R"({"a": [2, 5], "b": "y", "c": "ab"})"), "");
  EXPECT_EQ(fault(R"([])"), "arguments is array, need object");
  EXPECT_EQ(fault(R"({})"), "arguments lack \"a\"");
  EXPECT_EQ(fault(R"({"a": [2, "x"]})"), "arguments.a[1] is string, need integer");
  EXPECT_EQ(fault(R"({"a": [1]})"), "arguments.a[0] is below 2");
  EXPECT_EQ(fault(R"({"a": [6]})"), "arguments.a[0] is above 5");
  EXPECT_EQ(fault(R"({"a": [], "b": "z"})"), "arguments.b is \"z\", need one of [\"x\",\"y\"]");
  EXPECT_EQ(fault(R"({"a": [], "c": "abc"})"), "arguments.c is too long");
  EXPECT_EQ(fault(R"({"a": [], "aa": 1})").substr(0, 22), "arguments have no \"aa\"");
}

}  // namespace
}  // namespace hadal
