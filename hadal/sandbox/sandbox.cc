#include "hadal/sandbox/sandbox.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/sandbox/box_cgroup.h"
#include "hadal/sandbox/box_wire.h"
#include "hadal/sandbox/descriptor.h"
#include "hadal/sandbox/wall_trial.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

std::string find_box() {
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& place :
       {folder / "hadal-box", folder / "../libexec/hadal/hadal-box", folder / "../../bin/hadal-box"})
    if (!error && ::access(place.c_str(), X_OK) == 0) return place.lexically_normal().string();
  throw Error(ErrorCode::kNotFound,
              "[sandbox.run] hadal-box, which builds the sandbox, is neither beside this program nor in "
              "../libexec/hadal. Build it: ./dev build.");
}

SandboxResult box_failed(const std::string& why) {
  SandboxResult result;
  result.detail = why;
  return result;
}

std::string file_text(const char* path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// A folder given by the user, else our own cgroup if it is delegated to us.
const std::string& cgroup_folder() {
  static const std::string folder = [] {
    const char* given = std::getenv("HADAL_SANDBOX_CGROUP");
    return given ? std::string(given)
                 : delegated_cgroup(file_text("/proc/self/cgroup"), file_text("/proc/self/mountinfo"));
  }();
  return folder;
}

// hadal-box with one end of a socket as its only descriptor beside stderr, and no environment.
pid_t start_box(int socket, std::string& fault) {
  static const std::string program = find_box();
  char* argv[] = {const_cast<char*>("hadal-box"), nullptr};
  char* environment[] = {nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, socket, kBoxSocket);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, program.c_str(), &actions, nullptr, argv, environment);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) fault = cat("cannot start ", program, ": ", std::strerror(error));
  return error == 0 ? pid : -1;
}

SandboxResult talk(int socket, const BoxRequest& request, const OnOutput& on_output) {
  if (!send_frame(socket, FrameKind::kRequest, encode(request))) return box_failed("hadal-box is gone");
  std::string out, err, body;
  FrameKind kind;
  while (receive_frame(socket, kind, body)) {
    if (kind == FrameKind::kResult) {
      SandboxResult result = decode_result(body);
      result.out = std::move(out), result.err = std::move(err);
      return result;
    }
    (kind == FrameKind::kOut ? out : err) += body;
    if (on_output) on_output(kind == FrameKind::kOut ? 1 : 2, body);
  }
  return box_failed("hadal-box is gone");
}

SandboxResult run_box(const BoxRequest& request, const OnOutput& on_output) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
    return box_failed(cat("cannot make a socket: ", std::strerror(errno)));
  Descriptor ours(pair[0]), theirs(pair[1]);
  std::string fault;
  const pid_t box = start_box(theirs.get(), fault);
  if (box < 0) return box_failed(fault);
  theirs.close();
  SandboxResult result;
  try {
    result = talk(ours.get(), request, on_output);
  } catch (...) {  // of on_output: the box ends with its socket
    ours.close();
    ::waitpid(box, nullptr, 0);
    throw;
  }
  ours.close();
  while (::waitpid(box, nullptr, 0) < 0 && errno == EINTR) {
  }
  return result;
}

[[noreturn]] void bad_spec(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "[sandbox.run] " + what);
}

void check_names(const SandboxSpec& spec) {
  std::set<std::string> names;
  const auto check_name = [](const std::string& name) {
    if (name.empty() || name == "." || name == ".." || name.size() > 200 ||
        name.find('/') != std::string::npos || name.find('\0') != std::string::npos)
      bad_spec(cat("a file of the box is named \"", name, "\", need a name without a folder."));
  };
  for (const BoxFile& file : spec.files) {
    check_name(file.name);
    if (!names.insert(file.name).second) bad_spec(cat("two files are named \"", file.name, "\"."));
  }
  for (const std::string& name : spec.artefacts) check_name(name);
  for (const std::string& path : spec.readable)
    if (!path.starts_with('/') || path.size() < 2 || path.ends_with('/') ||
        path.find("/.") != std::string::npos || path.find("//") != std::string::npos || path == "/box" ||
        path == "/tmp" || path.starts_with("/box/"))
      bad_spec(cat("cannot show \"", path,
                   "\": need an absolute path without a dot or a slash at its end, not /box or /tmp."));
}

void check(const SandboxSpec& spec) {
  if (spec.command.empty() || !spec.command[0].starts_with('/'))
    bad_spec("the command must be an absolute path inside the box, like /box/program or /usr/bin/python3.");
  for (const std::string& word : spec.command)
    if (word.find('\0') != std::string::npos) bad_spec("an argument holds a zero byte.");
  check_names(spec);
  const SandboxLimits& l = spec.limits;
  if (!(l.wall_seconds > 0 && l.wall_seconds <= 86400) || !(l.cpu_seconds > 0 && l.cpu_seconds <= 86400))
    bad_spec(cat("wall and CPU time are ", l.wall_seconds, " and ", l.cpu_seconds,
                 " s, need more than 0 and at most a day."));
  for (const int64_t limit :
       {l.memory_bytes, l.stack_bytes, l.processes, l.file_bytes, l.tmp_bytes, l.tmp_files, l.open_files})
    if (limit < 1 || limit > int64_t{1} << 50) bad_spec(cat("a limit is ", limit, ", need 1 to 2^50."));
  if (l.output_bytes < 0) bad_spec(cat("output_bytes is ", l.output_bytes, ", need 0 or more."));
  if (l.processes > 4096) bad_spec(cat("processes is ", l.processes, ", need at most 4096."));
}

}  // namespace

std::vector<std::string> system_folders() {
  return {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
}

std::vector<std::string> library_folders() {
  return {"/usr/lib", "/usr/lib64", "/lib", "/lib64"};
}

const char* name(SandboxStatus status) {
  switch (status) {
    case SandboxStatus::kOk:
      return "ok";
    case SandboxStatus::kNonZero:
      return "nonzero";
    case SandboxStatus::kSignal:
      return "signal";
    case SandboxStatus::kTimeout:
      return "timeout";
    case SandboxStatus::kMemory:
      return "memory";
    case SandboxStatus::kOutput:
      return "output";
    case SandboxStatus::kViolation:
      return "violation";
    case SandboxStatus::kInternal:
      return "internal";
  }
  return "internal";
}

SandboxResult run_sandboxed(const SandboxSpec& spec, const OnOutput& on_output) {
  check(spec);
  if (const std::string& refusal = sandbox_refusal(); !refusal.empty())
    throw Error(ErrorCode::kUnsupported, "[sandbox.run] " + refusal);
  return run_box({.spec = spec, .cgroup = cgroup_folder()}, on_output);
}

std::vector<SandboxWall> probe_sandbox() {
  BoxRequest request{.probe = true, .cgroup = cgroup_folder()};
  request.spec.command = {"/box/none"};
  request.spec.readable = system_folders();
  request.spec.limits = {
      .wall_seconds = 5, .cpu_seconds = 5, .processes = 6, .file_bytes = 64 << 20, .tmp_bytes = 1 << 20};
  const SandboxResult result = run_box(request, {});
  std::vector<SandboxWall> walls = read_trial(result.out);
  constexpr size_t num_walls = 11;
  if (result.status != SandboxStatus::kOk || walls.size() != num_walls)
    walls.push_back(
        {"box", false, true, result.detail.empty() ? "the trial of the walls ended early" : result.detail});
  const std::string& folder = cgroup_folder();
  walls.push_back({"cgroup", !folder.empty(), false,
                   folder.empty()
                       ? "none with memory and pids is delegated to us: rlimits and samples stand without it"
                       : folder});
  return walls;
}

const std::string& sandbox_refusal() {
  static const std::string refusal = [] {
    std::string missing;
    for (const SandboxWall& wall : probe_sandbox())
      if (wall.needed && !wall.stands)
        missing += cat(missing.empty() ? "" : "; ", wall.name, ": ", wall.detail);
    if (missing.empty()) return missing;
    return cat("this system cannot give a wall, so nothing is run. ", missing,
               ". Needed: Linux 5.14 or newer on x86-64 with user namespaces and seccomp; in a container, "
               "permission to make namespaces and mounts. `hadal sandbox check` says more.");
  }();
  return refusal;
}

}  // namespace hadal
