#include "hadal/rewards/code_judge.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "hadal/base/random.h"
#include "hadal/base/sha256.h"
#include "hadal/base/text.h"
#include "hadal/rewards/code_build.h"
#include "hadal/rewards/code_checker.h"
#include "hadal/rewards/reward.h"
#include "hadal/sandbox/sandbox.h"

namespace hadal {
namespace {

// At most so many boxes at a time.
class Slots {
 public:
  explicit Slots(int64_t count) : free_(count) {}
  class Taken {
   public:
    explicit Taken(Slots& slots) : slots_(slots) {
      std::unique_lock lock(slots_.mutex_);
      slots_.changed_.wait(lock, [&] { return slots_.free_ > 0; });
      --slots_.free_;
    }
    ~Taken() {
      const std::lock_guard lock(slots_.mutex_);
      ++slots_.free_;
      slots_.changed_.notify_one();
    }

   private:
    Slots& slots_;
  };

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t free_;
};

// Values by key, each made once; who asks while it is being made waits. The oldest go first.
template <class Value>
class OnceCache {
 public:
  explicit OnceCache(size_t max_entries) : max_entries_(std::max<size_t>(1, max_entries)) {}

  // `keep(value)`: whether others may have it later. What `make` throws, all who wait for it get.
  template <class Make, class Keep>
  std::shared_ptr<const Value> get(const std::string& key, bool& was_there, Make make, Keep keep) {
    std::promise<std::shared_ptr<const Value>> promise;
    {
      std::unique_lock lock(mutex_);
      const auto found = values_.find(key);
      was_there = found != values_.end();
      if (was_there) {
        const auto future = found->second;
        lock.unlock();
        return future.get();
      }
      values_[key] = promise.get_future().share();
      order_.push_back(key);
    }
    try {
      auto value = std::make_shared<const Value>(make());
      promise.set_value(value);
      forget(keep(*value) ? "" : key);
      return value;
    } catch (...) {
      promise.set_exception(std::current_exception());
      forget(key);
      throw;
    }
  }

 private:
  // `key` if there is one, and what is too much. A key that is gone before its turn is skipped.
  void forget(const std::string& key) {
    const std::lock_guard lock(mutex_);
    if (!key.empty()) {
      values_.erase(key);
      order_.erase(std::find(order_.begin(), order_.end(), key));
    }
    while (order_.size() > max_entries_) {
      values_.erase(order_.front());
      order_.pop_front();
    }
  }

  size_t max_entries_;
  std::mutex mutex_;
  std::unordered_map<std::string, std::shared_future<std::shared_ptr<const Value>>> values_;
  std::deque<std::string> order_;
};

class Key {
 public:
  Key& add(std::string_view part) {
    hash_.update(cat(part.size(), ":"));
    hash_.update(part);
    return *this;
  }
  std::string text() { return hex(hash_.finish()); }

 private:
  Sha256 hash_;
};

std::string program_key(const CodeTask& task, const std::string& program) {
  static const std::string tools = toolchain();
  return Key()
      .add(tools)
      .add(cat(static_cast<int>(task.language)))
      .add(task.function)
      .add(task.signature)
      .add(program)
      .text();
}

std::string verdict_key(const CodeTask& task, const std::string& program) {
  Key key;
  key.add(program_key(task, program))
      .add(task.checker)
      .add(cat(task.time_limit_seconds, " ", task.memory_bytes));
  for (const CodeTest& test : task.tests) key.add(test.input).add(test.expected);
  return key.text();
}

SandboxLimits run_limits(const CodeTask& task, int64_t expected_bytes) {
  SandboxLimits limits;
  limits.cpu_seconds = task.time_limit_seconds;
  limits.wall_seconds = 8 * task.time_limit_seconds + 2;  // a busy machine is not the program's fault
  limits.memory_bytes = task.memory_bytes;
  limits.output_bytes = std::max<int64_t>(1 << 20, 2 * expected_bytes);
  limits.file_bytes = limits.output_bytes;
  return limits;
}

TestVerdict verdict_of(SandboxStatus status) {
  switch (status) {
    case SandboxStatus::kOk:
      return TestVerdict::kAccepted;
    case SandboxStatus::kNonZero:
    case SandboxStatus::kSignal:
      return TestVerdict::kRuntimeError;
    case SandboxStatus::kTimeout:
      return TestVerdict::kTimeLimit;
    case SandboxStatus::kMemory:
      return TestVerdict::kMemoryLimit;
    case SandboxStatus::kOutput:
      return TestVerdict::kOutputLimit;
    case SandboxStatus::kViolation:
      return TestVerdict::kViolation;
    case SandboxStatus::kInternal:
      break;
  }
  return TestVerdict::kInternalError;
}

// An order of the tests that the program's author cannot know and that is the same every time.
std::vector<size_t> shuffled(size_t count, const std::string& key) {
  std::vector<std::pair<Sha256Digest, size_t>> order;
  for (size_t i = 0; i < count; ++i) order.push_back({sha256(cat(key, " ", i)), i});
  std::sort(order.begin(), order.end());
  std::vector<size_t> indices;
  for (const auto& [digest, index] : order) indices.push_back(index);
  return indices;
}

int64_t worker_count(int64_t wanted) {
  return wanted > 0 ? wanted : kAnswersPerThread * std::max<int64_t>(1, std::thread::hardware_concurrency());
}

}  // namespace

const char* name(TestVerdict verdict) {
  constexpr const char* names[] = {"AC", "WA", "TLE", "MLE", "OLE", "RE", "SV", "IE"};
  return names[static_cast<int>(verdict)];
}

struct CodeJudge::State {
  explicit State(const CodeJudgeOptions& o)
      : options(o),
        slots(worker_count(o.workers)),
        verdicts(static_cast<size_t>(o.cache_entries)),
        builds(static_cast<size_t>(o.cache_entries / 16)) {}

  CodeVerdict judge(const CodeTask& task, const std::string& program) {
    CodeVerdict verdict{.tests = static_cast<int64_t>(task.tests.size())};
    const std::shared_ptr<const Build> build = built(task, program);
    if (!build->program) {
      verdict.internal_error = build->internal_error;
      verdict.compile_error = !build->internal_error;
      verdict.detail = build->detail;
      return verdict;
    }
    for (const size_t index : shuffled(task.tests.size(), program)) {
      std::string why;
      const TestVerdict test = run_test(task, *build->program, task.tests[index], why);
      if (test == TestVerdict::kInternalError) {
        verdict.internal_error = true;
        verdict.detail = why;
        return verdict;
      }
      if (test == TestVerdict::kAccepted) {
        ++verdict.passed;
        continue;
      }
      if (verdict.first_failure == TestVerdict::kAccepted) {
        verdict.first_failure = test;
        verdict.detail = cat("test ", index + 1, ": ", name(test), why.empty() ? "" : ", ", why);
      }
      if (!options.all_tests) break;
    }
    return verdict;
  }

  std::shared_ptr<const Build> built(const CodeTask& task, const std::string& program) {
    bool was_there = false;
    return builds.get(
        program_key(task, program), was_there,
        [&] {
          const Slots::Taken slot(slots);
          ++compiled;
          return build_program(task, program);
        },
        [](const Build& build) { return !build.internal_error; });
  }

  SandboxResult run(const BuiltProgram& program, SandboxSpec spec) {
    spec.command = program.command;
    spec.readable = program.readable;
    spec.files.insert(spec.files.end(), program.files.begin(), program.files.end());
    spec.environment = {"PATH=/usr/bin:/bin", "HOME=/box", "TMPDIR=/box", "LANG=C.UTF-8"};
    const Slots::Taken slot(slots);
    ++runs;
    SandboxResult result = run_sandboxed(spec);
    return result.status == SandboxStatus::kInternal ? run_sandboxed(spec) : result;
  }

  TestVerdict run_test(const CodeTask& task, const BuiltProgram& program, const CodeTest& test,
                       std::string& why) {
    SandboxSpec spec{.input = test.input};
    spec.limits = run_limits(task, static_cast<int64_t>(test.expected.size()));
    if (!task.function.empty()) spec.artefacts = {"result"};
    const SandboxResult result = run(program, spec);
    why = result.detail;
    if (const TestVerdict verdict = verdict_of(result.status); verdict != TestVerdict::kAccepted)
      return verdict;
    bool right = false;
    if (!task.function.empty()) {
      const auto found = result.artefacts.find("result");
      right = found != result.artefacts.end() && result_matches(found->second, test.expected);
    } else if (!is_program_checker(task.checker)) {
      right = output_matches(task.checker, result.out, test.expected);
    } else {
      return run_checker(task, test, result.out, why);
    }
    return right ? TestVerdict::kAccepted : TestVerdict::kWrongAnswer;
  }

  // The task's own checker, in a box of its own with the files input, expected and output. Its first word
  // decides.
  TestVerdict run_checker(const CodeTask& task, const CodeTest& test, const std::string& output,
                          std::string& why) {
    const size_t colon = task.checker.find(':');
    const bool cpp = task.checker.substr(0, colon) == "cpp";
    const CodeTask form{.language = cpp ? CodeLanguage::kCpp : CodeLanguage::kPython};
    const std::shared_ptr<const Build> checker = built(form, task.checker.substr(colon + 1));
    why = "the checker does not compile";
    if (!checker->program) return TestVerdict::kInternalError;
    SandboxSpec spec;
    spec.files = {{"input", test.input}, {"expected", test.expected}, {"output", output}};
    spec.limits.cpu_seconds = 10, spec.limits.wall_seconds = 60;
    const SandboxResult result = run(*checker->program, spec);
    why = "";
    const bool ended = result.status == SandboxStatus::kOk;
    if (ended && output_matches("tokens", result.out, "yes")) return TestVerdict::kAccepted;
    if (ended && output_matches("tokens", result.out, "no")) return TestVerdict::kWrongAnswer;
    why = cat("the checker said neither yes nor no: ", name(result.status), " ", result.detail,
              result.err.substr(0, 200));
    return TestVerdict::kInternalError;
  }

  CodeJudgeOptions options;
  Slots slots;
  OnceCache<CodeVerdict> verdicts;
  OnceCache<Build> builds;
  std::atomic<int64_t> judged = 0, cached = 0, compiled = 0, runs = 0, internal_errors = 0;
};

CodeJudge::CodeJudge(const CodeJudgeOptions& options) : state_(std::make_unique<State>(options)) {}
CodeJudge::~CodeJudge() = default;

CodeVerdict CodeJudge::judge(const CodeTask& task, const std::string& program) {
  ++state_->judged;
  if (program.empty()) return {.no_code = true, .tests = static_cast<int64_t>(task.tests.size())};
  bool was_there = false;
  const auto verdict = state_->verdicts.get(
      verdict_key(task, program), was_there, [&] { return state_->judge(task, program); },
      [](const CodeVerdict& v) { return !v.internal_error; });
  state_->cached += was_there;
  state_->internal_errors += verdict->internal_error;
  return *verdict;
}

CodeJudgeCounts CodeJudge::counts() const {
  return {state_->judged, state_->cached, state_->compiled, state_->runs, state_->internal_errors};
}

}  // namespace hadal
