// From source text to something that a box can run.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "hadal/rewards/code_task.h"
#include "hadal/sandbox/sandbox.h"

namespace hadal {

// Files and command of a run; limits are the caller's.
struct BuiltProgram {
  std::vector<std::string> command;
  std::vector<BoxFile> files;
  std::vector<std::string> readable;
};

struct Build {
  std::optional<BuiltProgram> program;  // none: it does not compile, or the box failed
  bool internal_error = false;
  std::string detail;
};

// Compiles what is to be compiled, in a box, with a driver for the task's function if it has one. Throws
// unsupported if there is neither compiler nor interpreter.
Build build_program(const CodeTask& task, const std::string& source);

// What the result of build_program depends on besides the task: which compiler and interpreter there are.
std::string toolchain();

}  // namespace hadal
