#include "hadal/rewards/code_judge.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/rewards/rule_rewards.h"
#include "hadal/sandbox/sandbox.h"
#include "tests/support/host_snapshot.h"
#include "tests/support/right_programs.h"

namespace hadal {
namespace {

const char* const kSum =
    "#include <cstdio>\nint main() { long s = 0, x; while (scanf(\"%ld\", &x) == 1) s += x; "
    "printf(\"%ld\\n\", s); }\n";

CodeTask sum_task(CodeLanguage language) {
  CodeTask task{.language = language, .time_limit_seconds = 0.4, .memory_bytes = 64 << 20};
  task.tests = {{"1 2 3", "6"}, {"100 -7 4", "97"}, {"5", "5"}};
  return task;
}

CodeTask add_task(CodeLanguage language) {
  CodeTask task = sum_task(language);
  task.function = "add", task.signature = "int add(int a, int b)";
  task.tests = {{"[1,2]", "3"}, {"[-5,10]", "5"}};
  return task;
}

class Code : public testing::Test {
 protected:
  void SetUp() override {
    if (!sandbox_refusal().empty()) GTEST_SKIP() << sandbox_refusal();
    for (const char* tool : {"/usr/bin/g++", "/usr/bin/python3"})
      if (::access(tool, X_OK) != 0) GTEST_SKIP() << "no " << tool;
  }
  CodeJudge judge_{{.workers = 2}};
};

// Both cores at work on `count` cases.
template <class Work>
void side_by_side(size_t count, Work work) {
  std::atomic<size_t> next = 0;
  const auto loop = [&] {
    for (size_t i; (i = next++) < count;) work(i);
  };
  std::thread other(loop);
  loop();
  other.join();
}

TEST_F(Code, RightProgramsOfBothLanguagesAndFormsPass) {
  const std::string add_cpp = "int add(int a, int b) { return a + b; }",
                    add_python = "def add(a, b):\n  print('noise')\n  return a + b\n";
  EXPECT_TRUE(judge_.judge(sum_task(CodeLanguage::kCpp), kSum).right());
  EXPECT_TRUE(judge_
                  .judge(sum_task(CodeLanguage::kPython),
                         "import sys\nprint(sum(map(int, sys.stdin.read().split())))")
                  .right());
  EXPECT_TRUE(judge_.judge(add_task(CodeLanguage::kCpp), add_cpp).right());
  EXPECT_TRUE(judge_.judge(add_task(CodeLanguage::kPython), add_python).right());
}

TEST_F(Code, FunctionsInCppTakeAndGiveNestedValues) {
  CodeTask task{
      .function = "f",
      .signature = "vector<vector<string>> f(const vector<string>& words, double x, bool b, char c)"};
  task.tests = {{R"([["a \"b\"","\u000a"],2.5,true,"z"])", R"([["a \"b\"","\n","2.500000"],["z","1"],[]])"}};
  const CodeVerdict verdict =
      judge_.judge(task,
                   "#include <string>\n#include <vector>\nusing namespace std;\n"
                   "vector<vector<string>> f(const vector<string>& words, double x, bool b, char c) {\n"
                   "  vector<vector<string>> all{words, {string(1, c), to_string(b)}, {}};\n"
                   "  all[0].push_back(to_string(x));\n  return all;\n}\n");
  EXPECT_TRUE(verdict.right()) << verdict.detail;
}

TEST_F(Code, EachWayToFailHasItsName) {
  const auto failure = [&](const char* body) {
    const CodeVerdict verdict =
        judge_.judge(sum_task(CodeLanguage::kCpp),
                     cat("#include <cstdio>\n#include <cstdlib>\n#include <cstring>\n#include "
                         "<unistd.h>\n#include <sys/socket.h>\nint main() { ",
                         body, " }\n"));
    return std::string(name(verdict.first_failure));
  };
  EXPECT_EQ(failure("puts(\"7\");"), "WA");
  EXPECT_EQ(failure("for (;;) asm volatile(\"\");"), "TLE");
  EXPECT_EQ(failure("for (;;) memset(malloc(1 << 20), 1, 1 << 20);"), "MLE");
  EXPECT_EQ(failure("for (;;) puts(\"6\");"), "OLE");
  EXPECT_EQ(failure("abort();"), "RE");
  EXPECT_EQ(failure("return 1;"), "RE");
  EXPECT_EQ(failure("return socket(AF_INET, SOCK_STREAM, 0) < 0;"), "SV");
}

TEST_F(Code, WhatDoesNotCompileSaysWhyInTwoKib) {
  const CodeVerdict verdict =
      judge_.judge(sum_task(CodeLanguage::kCpp), "int main() { return undefined_name; }");
  EXPECT_TRUE(verdict.compile_error);
  EXPECT_NE(verdict.detail.find("undefined_name"), std::string::npos);
  EXPECT_LE(verdict.detail.size(), 2048u);
  EXPECT_TRUE(judge_.judge(sum_task(CodeLanguage::kCpp), "").no_code);
}

TEST_F(Code, TheSameProgramIsJudgedOnceEvenWhenManyAsk) {
  CodeTask other = sum_task(CodeLanguage::kCpp);
  other.tests.pop_back();
  side_by_side(8, [&](size_t) { EXPECT_TRUE(judge_.judge(sum_task(CodeLanguage::kCpp), kSum).right()); });
  EXPECT_EQ(judge_.counts().compiled, 1);
  EXPECT_EQ(judge_.counts().cached, 7);
  EXPECT_EQ(judge_.counts().runs, 3);
  EXPECT_TRUE(judge_.judge(other, kSum).right());  // other tests: another verdict, the same program
  EXPECT_EQ(judge_.counts().compiled, 1);
  EXPECT_EQ(judge_.counts().runs, 5);
}

TEST_F(Code, AllTestsAreRunWhereTheShareCounts) {
  CodeJudge all({.workers = 1, .all_tests = true});
  const CodeVerdict verdict = all.judge(sum_task(CodeLanguage::kPython), "print(5)");
  EXPECT_EQ(verdict.passed, 1);
  EXPECT_EQ(verdict.tests, 3);
  EXPECT_FALSE(verdict.right());
}

TEST_F(Code, AProgramCanBeTheCheckerAndItsFaultsAreNotTheAnswers) {
  CodeTask task = sum_task(CodeLanguage::kPython);
  task.checker =
      "python:a, b = (sum(map(int, open(n).read().split())) for n in ('output', 'input'))\nprint('yes' if a "
      "== b else 'no')\n";
  EXPECT_TRUE(judge_.judge(task, "print(*input().split()[::-1])").right());
  EXPECT_EQ(judge_.judge(task, "print(1000)").first_failure, TestVerdict::kWrongAnswer);
  const CodeVerdict confused = judge_.judge(task, "print('yes')");  // the checker fails on it
  EXPECT_TRUE(confused.internal_error);
  EXPECT_FALSE(confused.right());
  EXPECT_EQ(judge_.counts().internal_errors, 1);
}

TEST_F(Code, RewardScalesAreThoseOfTheirNames) {
  const Task task = parse_task(R"({"prompt": "p", "verifier": "code", "language": "python",
      "tests": [{"input": "1", "output": "1"}, {"input": "2", "output": "2"}]})",
                               "test");
  const auto value = [&](const char* scale, const std::string& text) {
    return code_reward(Json{{"scale", scale}})->score(task, {.text = text}).value;
  };
  const std::string right = "```python\nprint(input())\n```", half = "```python\nprint(1)\n```";
  EXPECT_EQ(value("pass_fail", right), 1);
  EXPECT_EQ(value("pass_fail", half), 0);
  EXPECT_EQ(value("partial", half), 0.5);
  EXPECT_DOUBLE_EQ(value("weighted", right), 1.1);
  EXPECT_DOUBLE_EQ(value("weighted", half), 0.05);
  EXPECT_EQ(value("weighted", "nothing"), -1);
  EXPECT_EQ(value("partial", "nothing"), 0);
}

TEST_F(Code, ABadRecordIsUnscorableAndNotWrong) {
  const Task task = parse_task(R"({"prompt": "p", "verifier": "code", "tests": []})", "test");
  const RewardScore score = code_reward(Json::object())->score(task, {.text = "```cpp\nint main() {}\n```"});
  EXPECT_TRUE(std::isnan(score.value));
  EXPECT_EQ(score.verdict, "bad_reference");
}

TEST_F(Code, AFaultOfTheBoxIsUnscorableAndNotKept) {
  CodeTask task = sum_task(CodeLanguage::kPython);
  task.tests = {{"", "x"}};
  const std::string program = "print('x')\n";
  // A descriptor limit under which no box can be started, as on a machine that is out of something.
  rlimit old{}, none{};
  ::getrlimit(RLIMIT_NOFILE, &old);
  none = {0, old.rlim_max};
  ASSERT_TRUE(judge_.judge(sum_task(CodeLanguage::kPython), "print(1)").tests >
              0);  // walls and tools are known
  ::setrlimit(RLIMIT_NOFILE, &none);
  const CodeVerdict verdict = judge_.judge(task, program);
  ::setrlimit(RLIMIT_NOFILE, &old);
  EXPECT_TRUE(verdict.internal_error);
  EXPECT_EQ(judge_.counts().internal_errors, 1);
  EXPECT_TRUE(judge_.judge(task, program).right());
}

TEST_F(Code, AnswersScoredTogetherKeepTheirOrder) {
  const Task task = parse_task(R"({"prompt": "p", "verifier": "code", "language": "python",
      "tests": [{"input": "1", "output": "1"}]})",
                               "test");
  std::vector<const Task*> tasks;
  std::vector<std::string> texts;
  std::vector<Completion> answers;
  for (int i = 0; i < 6; ++i) texts.push_back(cat("```python\nprint(", i, ")\n```"));
  for (const std::string& text : texts) tasks.push_back(&task), answers.push_back({.text = text});
  const std::vector<RewardResult> results = reward_set({"code"}).score_all(tasks, answers, /*threads=*/2);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(results[i].total, i == 1 ? 1 : 0);
}

TEST_F(Code, CheatsScoreZero) {
  std::vector<Json> cheats;
  std::istringstream lines(read_file("tests/cases/code_cheats.jsonl"));
  for (std::string line; std::getline(lines, line);) cheats.push_back(parse_json(line, "code_cheats.jsonl"));
  ASSERT_GE(cheats.size(), 80u);
#ifdef __SANITIZE_ADDRESS__
  cheats.resize(10);  // the judge is under test there, not the walls
#endif
  side_by_side(cheats.size(), [&](size_t i) {
    const std::string task = cheats[i].at("task");
    const auto language = task.ends_with("cpp") ? CodeLanguage::kCpp : CodeLanguage::kPython;
    const CodeTask code = task.starts_with("sum") ? sum_task(language) : add_task(language);
    const CodeVerdict verdict = judge_.judge(code, cheats[i].at("code"));
    EXPECT_FALSE(verdict.right()) << cheats[i].at("name");
    EXPECT_FALSE(verdict.internal_error) << cheats[i].at("name") << ": " << verdict.detail;
  });
}

// HADAL_FULL=1: 500 programs, each judged 20 times.
TEST_F(Code, RightProgramsAreAlwaysRight) {
  const bool full = std::getenv("HADAL_FULL") != nullptr;
  const size_t programs = full ? 500 : 24, repeats = full ? 20 : 2;
  const auto before = host_snapshot("none");
  std::mutex mutex;
  side_by_side(programs, [&](size_t i) {
    RightProgram program = right_program(i, i % 2 ? CodeLanguage::kCpp : CodeLanguage::kPython);
    for (size_t repeat = 0; repeat < repeats; ++repeat) {
      program.task.time_limit_seconds =
          2 + 0.001 * static_cast<double>(repeat);  // another verdict, the same build
      const CodeVerdict verdict = judge_.judge(program.task, program.source);
      const std::lock_guard lock(mutex);
      EXPECT_TRUE(verdict.right()) << "seed " << i << ": " << verdict.detail << "\n" << program.source;
    }
  });
  EXPECT_EQ(judge_.counts().cached, 0);
  EXPECT_EQ(host_snapshot("none"), before);
}

}  // namespace
}  // namespace hadal
