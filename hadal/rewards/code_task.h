// Programming tasks: what a program is asked for and how it is tested. docs/sandbox.md has the form.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/rewards/task.h"

namespace hadal {

enum class CodeLanguage { kCpp, kPython };

// One test. The expected output never enters the box: whoever wants to match it has to compute it.
struct CodeTest {
  std::string input;     // stdin; in a task with a function its arguments as a JSON array
  std::string expected;  // stdout; or the result as JSON
};

struct CodeTask {
  CodeLanguage language = CodeLanguage::kCpp;
  double time_limit_seconds = 1;  // CPU, each test
  int64_t memory_bytes = 256 << 20;
  std::vector<CodeTest> tests;
  std::string checker = "tokens";  // tokens, exact, float:<eps>, or "cpp:"/"python:" and a program
  std::string function;            // "": a whole program, stdin to stdout; else tests call it
  std::string signature;           // of the function in C++: "int add(int a, int b)"
};

// Of a record {"language", "tests": [{"input", "output"}], "time_limit_ms", "memory_limit_mb", "checker"} or,
// with "function" (and "signature" in C++), "tests": [{"args": [...], "result": ...}]. Throws
// invalid_argument.
CodeTask parse_code_task(const Task& task);

// The last fenced block of the language behind the reasoning. Empty: there is none.
std::string find_program(std::string_view completion, CodeLanguage language);

}  // namespace hadal
