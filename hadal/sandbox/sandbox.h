// Runs a program that nobody trusts: no network, no files but its own, no other processes in sight, bounded
// in time, memory, processes and output. Each run is one helper process (hadal-box) that builds the walls,
// watches, and answers when all that ran inside is dead. docs/sandbox.md states the threat model.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

struct SandboxLimits {
  double wall_seconds = 3;
  double cpu_seconds = 1;            // of all processes together
  int64_t memory_bytes = 256 << 20;  // of all processes together, resident
  int64_t stack_bytes = 64 << 20;    // each process
  int64_t processes = 1;  // threads count. 1: no fork, no threads, and the shorter list of system calls
  int64_t output_bytes = 1 << 20;  // stdout and stderr, each
  bool cut_output = false;         // past output_bytes: true drops the rest, false ends the run
  int64_t file_bytes = 1 << 20;    // each file
  int64_t tmp_bytes = 16 << 20;    // all files that the program writes, and the names below
  int64_t tmp_files = 256;
  int64_t open_files = 16;
};

// A file put into /box before the program starts.
struct BoxFile {
  std::string name;  // no folder in it
  std::string content;
  bool executable = false;
};

struct SandboxSpec {
  std::vector<std::string> command;      // argv; command[0] is a path inside the box
  std::string input;                     // stdin
  std::vector<BoxFile> files;            // in /box, the program's folder
  std::vector<std::string> readable;     // files and folders of the host, seen read-only under their own path
  std::vector<std::string> environment;  // "NAME=value"; nothing is inherited
  std::vector<std::string> artefacts;    // names in /box to bring out afterwards
  int64_t artefact_bytes = 64 << 20;     // each
  SandboxLimits limits;
};

// What a compiler, an interpreter or a shell reads; what a compiled program reads.
std::vector<std::string> system_folders();
std::vector<std::string> library_folders();

enum class SandboxStatus {
  kOk,       // exit code 0
  kNonZero,  // another exit code
  kSignal,   // a crash
  kTimeout,  // wall or CPU time
  kMemory,
  kOutput,     // too much on stdout or stderr, or a file too large
  kViolation,  // a system call that is a reason to end the run
  kInternal,   // the box failed, not the program: nothing is known about it
};

const char* name(SandboxStatus status);

struct SandboxResult {
  SandboxStatus status = SandboxStatus::kInternal;
  int exit_code = 0;
  int signal = 0;
  double wall_seconds = 0, cpu_seconds = 0;
  int64_t peak_bytes = 0;  // resident, of all processes together as far as sampled
  std::string out, err;    // at most output_bytes each
  bool out_cut = false, err_cut = false;
  std::map<std::string, std::string>
      artefacts;       // those that are plain files of one name within artefact_bytes
  std::string detail;  // why it was ended, for people
};

// Output as it comes; stream 1 or 2. While it does not return, the limits are not looked at.
using OnOutput = std::function<void(int stream, std::string_view text)>;

// Blocks until nothing of the run is left. Thread-safe; runs of many threads do not see each other. A fault
// of the box is a result (kInternal), once the walls have been found to stand: throws Error{unsupported}
// where the system cannot give one of them, Error{invalid_argument} for a spec that makes no sense, not_found
// without hadal-box.
SandboxResult run_sandboxed(const SandboxSpec& spec, const OnOutput& on_output = {});

// One wall, as found by running into it.
struct SandboxWall {
  std::string name;
  bool stands = false;
  bool needed = true;  // without it nothing runs
  std::string detail;
};

// Builds a box and tries each wall from inside. Throws only not_found (no hadal-box).
std::vector<SandboxWall> probe_sandbox();

// probe_sandbox() once per process: "" if all needed walls stand, else which do not and why.
const std::string& sandbox_refusal();

}  // namespace hadal
