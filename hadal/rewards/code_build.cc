#include "hadal/rewards/code_build.h"

#include <unistd.h>

#include <filesystem>
#include <map>
#include <mutex>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/rewards/code_driver.h"

namespace hadal {
namespace {

constexpr const char* kCompiler = "/usr/bin/g++";
// Links in a third of the time of the usual linker: a small program's build takes 34 ms, not 60.
constexpr const char* kQuickLinker = "/usr/bin/ld.gold";
constexpr const char* kInterpreter = "/usr/bin/python3";
constexpr size_t kDetailBytes = 2048;
constexpr size_t kDriverObjects = 64;

void require_program(const char* path) {
  if (::access(path, X_OK) == 0) return;
  throw Error(ErrorCode::kUnsupported,
              cat("[rewards.code] there is no ", path, ", which tasks in this language need. Install it."));
}

// On a busy machine a second of work takes many on the clock: CPU time is what decides.
SandboxLimits compile_limits() {
  SandboxLimits limits;
  limits.cpu_seconds = 10, limits.wall_seconds = 90;
  limits.memory_bytes = int64_t{1} << 30;
  limits.processes = 16;
  limits.output_bytes = 64 << 10;
  limits.cut_output = true;
  limits.file_bytes = 64 << 20, limits.tmp_bytes = 256 << 20;
  limits.open_files = 64;
  return limits;
}

// Runs the compiler once more if the box failed.
SandboxResult compile(std::vector<BoxFile> files, std::vector<std::string> arguments) {
  require_program(kCompiler);
  SandboxSpec spec{.files = std::move(files), .readable = system_folders(), .limits = compile_limits()};
  spec.command = {kCompiler,
                  "-std=c++20",
                  "-O1",
                  "-pipe",
                  "-fmax-errors=3",
                  "-ftemplate-depth=200",
                  "-fconstexpr-ops-limit=10000000"};
  if (::access(kQuickLinker, X_OK) == 0) spec.command.push_back("-fuse-ld=gold");
  spec.command.insert(spec.command.end(), arguments.begin(), arguments.end());
  spec.environment = {"PATH=/usr/bin:/bin", "TMPDIR=/box", "LANG=C.UTF-8"};
  spec.artefacts = {"artefact"};
  SandboxResult result = run_sandboxed(spec);
  return result.status == SandboxStatus::kInternal ? run_sandboxed(spec) : result;
}

// The compiled driver of a signature. Most of the time of a build would be its headers, which are the same
// for all answers to a task and mostly for all tasks of a kind; "": it does not compile.
std::string driver_object(const CodeTask& task) {
  static std::mutex mutex;
  static std::map<std::string, std::string> objects;
  const std::string source = cpp_driver(task.signature, task.function);
  {
    const std::lock_guard lock(mutex);
    if (const auto found = objects.find(source); found != objects.end()) return found->second;
  }
  SandboxResult result = compile({{"driver.cc", source}}, {"-c", "-o", "artefact", "driver.cc"});
  if (result.status != SandboxStatus::kOk || !result.artefacts.contains("artefact")) return "";
  const std::lock_guard lock(mutex);
  if (objects.size() >= kDriverObjects) objects.clear();
  return objects[source] = std::move(result.artefacts["artefact"]);
}

Build build_cpp(const CodeTask& task, const std::string& source) {
  std::vector<BoxFile> files = {{"main.cc", source}};
  std::vector<std::string> arguments = {"-o", "artefact", "main.cc"};
  if (!task.function.empty()) {
    std::string object = driver_object(task);
    const char* const name = object.empty() ? "driver.cc" : "driver.o";  // the source says what is wrong
    files.push_back({name, object.empty() ? cpp_driver(task.signature, task.function) : std::move(object)});
    arguments.push_back(name);
  }
  SandboxResult result = compile(std::move(files), std::move(arguments));
  Build build;
  build.internal_error = result.status == SandboxStatus::kInternal;
  if (result.status == SandboxStatus::kOk && result.artefacts.contains("artefact")) {
    build.program = BuiltProgram{.command = {"/box/program"}, .readable = library_folders()};
    build.program->files = {{"program", std::move(result.artefacts["artefact"]), true}};
    return build;
  }
  build.detail = result.status == SandboxStatus::kNonZero ? result.err : cat("compiling: ", result.detail);
  if (build.detail.size() > kDetailBytes) build.detail.resize(kDetailBytes);
  return build;
}

Build build_python(const CodeTask& task, const std::string& source) {
  require_program(kInterpreter);
  BuiltProgram program{.readable = system_folders()};
  // Isolated: no site packages, nothing from the environment, no __pycache__.
  program.command = {kInterpreter, "-I", "-S", "-B", task.function.empty() ? "solution.py" : "driver.py"};
  program.files = {{"solution.py", source}};
  if (!task.function.empty()) program.files.push_back({"driver.py", python_driver(task.function)});
  Build build;
  build.program = std::move(program);
  return build;
}

}  // namespace

Build build_program(const CodeTask& task, const std::string& source) {
  return task.language == CodeLanguage::kCpp ? build_cpp(task, source) : build_python(task, source);
}

std::string toolchain() {
  std::string text;
  for (const char* path : {kCompiler, kInterpreter}) {
    std::error_code error;
    const std::filesystem::path real = std::filesystem::canonical(path, error);
    text += cat(real.string(), " ", error ? 0 : std::filesystem::file_size(real, error), "\n");
  }
  return text;
}

}  // namespace hadal
