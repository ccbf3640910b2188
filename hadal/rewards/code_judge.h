// Judges programs: compiles them in one box, runs them in others, one for each test, and compares outside. An
// exit code can fail a test and never pass one.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "hadal/rewards/code_task.h"

namespace hadal {

// Of one test, as contests name them.
enum class TestVerdict {
  kAccepted,
  kWrongAnswer,
  kTimeLimit,
  kMemoryLimit,
  kOutputLimit,
  kRuntimeError,   // a crash, or an exit code that is not 0
  kViolation,      // a forbidden system call
  kInternalError,  // the box or a checker failed, twice: nothing is known about the program
};

const char* name(TestVerdict verdict);  // "AC", "WA", "TLE", "MLE", "OLE", "RE", "SV", "IE"

struct CodeVerdict {
  bool no_code = false, compile_error = false;
  bool internal_error = false;  // unscorable; passed says nothing
  int64_t passed = 0, tests = 0;
  TestVerdict first_failure = TestVerdict::kAccepted;
  std::string detail;  // the failure in a line, or the compiler's words, at most 2 KiB

  bool right() const { return !internal_error && tests > 0 && passed == tests; }
};

struct CodeJudgeOptions {
  int64_t workers = 0;            // boxes at a time; 0: kAnswersPerThread for each core
  bool all_tests = false;         // go on after the first failure
  int64_t cache_entries = 65536;  // verdicts kept; programs kept: a sixteenth
};

struct CodeJudgeCounts {
  int64_t judged = 0, cached = 0, compiled = 0, runs = 0;
  int64_t internal_errors = 0;  // verdicts, after the second try
};

// Thread-safe. The same program for the same task is judged once, also when many ask at the same time.
class CodeJudge {
 public:
  explicit CodeJudge(const CodeJudgeOptions& options = {});
  ~CodeJudge();

  // `program`: source text. Throws unsupported without the walls of the sandbox or without compiler or
  // interpreter.
  CodeVerdict judge(const CodeTask& task, const std::string& program);
  CodeJudgeCounts counts() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
