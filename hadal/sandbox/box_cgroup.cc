#include "hadal/sandbox/box_cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "hadal/sandbox/box_fault.h"
#include "hadal/sandbox/descriptor.h"

namespace hadal {
namespace {

std::string content_of(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool has_word(const std::string& text, const std::string& word) {
  std::istringstream words(text);
  for (std::string one; words >> one;)
    if (one == word) return true;
  return false;
}

// Where version 2 is mounted: "... - cgroup2 ..." in mountinfo, whose fifth field is the place.
std::string unified_mount(const std::string& mounts) {
  std::istringstream lines(mounts);
  for (std::string line; std::getline(lines, line);) {
    if (line.find(" - cgroup2 ") == std::string::npos) continue;
    std::istringstream fields(line);
    std::string id, parent, device, root, place;
    fields >> id >> parent >> device >> root >> place;
    return place;
  }
  return "";
}

}  // namespace

std::string delegated_cgroup(const std::string& own, const std::string& mounts) {
  const std::string place = unified_mount(mounts);
  const size_t line = own.rfind("0::/");  // the last line
  if (place.empty() || line == std::string::npos) return "";
  const std::string path = own.substr(line + 3, own.find('\n', line) - line - 3);
  const std::string folder = path == "/" ? place : place + path;
  const std::string controllers = content_of(folder + "/cgroup.subtree_control");
  const bool good =
      has_word(controllers, "memory") && has_word(controllers, "pids") && ::access(folder.c_str(), W_OK) == 0;
  return good ? folder : "";
}

BoxCgroup::BoxCgroup(const std::string& parent, const SandboxLimits& limits) {
  if (parent.empty()) return;
  const std::string folder = parent + "/hadal-box-" + std::to_string(::getpid());
  must(::mkdir(folder.c_str(), 0755), "make the cgroup " + folder);
  folder_ = folder;
  try {
    set_limits(limits);
  } catch (const BoxFault&) {
    ::rmdir(folder.c_str());
    throw;
  }
}

void BoxCgroup::set_limits(const SandboxLimits& limits) const {
  // Files of /box are memory here, and have a limit of their own.
  write("memory.max", std::to_string(limits.memory_bytes + limits.tmp_bytes + (16 << 20)));
  write("memory.swap.max", "0", /*needed=*/false);
  write("memory.oom.group", "1", /*needed=*/false);
  write("pids.max", std::to_string(limits.processes + 1));
}

BoxCgroup::~BoxCgroup() {
  if (folder_.empty()) return;
  try {
    write("cgroup.kill", "1", /*needed=*/false);
  } catch (const BoxFault&) {
  }
  for (int tries = 0; ::rmdir(folder_.c_str()) < 0 && errno == EBUSY && tries < 100; ++tries) ::usleep(2000);
}

void BoxCgroup::add(pid_t process) {
  if (!folder_.empty()) write("cgroup.procs", std::to_string(process));
}

bool BoxCgroup::out_of_memory() const {
  const std::string events = read("memory.events");
  const size_t at = events.find("oom_kill ");
  return at != std::string::npos && std::atoll(events.c_str() + at + 9) > 0;
}

int64_t BoxCgroup::peak_bytes() const {
  return std::atoll(read("memory.peak").c_str());
}

void BoxCgroup::write(const char* file, const std::string& text, bool needed) const {
  const std::string path = folder_ + "/" + file;
  const Descriptor fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  const bool good = fd.open() && ::write(fd.get(), text.data(), text.size()) >= 0;
  if (!good && needed) box_fault("write " + text + " to " + path);
}

std::string BoxCgroup::read(const char* file) const {
  return folder_.empty() ? "" : content_of(folder_ + "/" + file);
}

}  // namespace hadal
