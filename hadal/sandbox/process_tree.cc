#include "hadal/sandbox/process_tree.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

namespace hadal {
namespace {

// The content of a small file of /proc; "" if the process is gone.
std::string small_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  std::string text(4096, '\0');
  const ssize_t n = ::read(fd, text.data(), text.size());
  ::close(fd);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text;
}

// The first process is ours: its own memory is not the program's.
void add_process(pid_t pid, bool first, TreeUse& use) {
  static const double ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  static const long page = ::sysconf(_SC_PAGESIZE);
  const std::string stat = small_file("/proc/" + std::to_string(pid) + "/stat");
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return;
  unsigned long user = 0, system = 0;
  long children_user = 0, children_system = 0, resident = 0;
  // Fields 14 to 17 and 24 of proc(5), counted behind the name, which may hold anything.
  const int read = std::sscanf(stat.c_str() + name_end + 1,
                               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld"
                               " %*d %*d %*d %*d %*u %*u %ld",
                               &user, &system, &children_user, &children_system, &resident);
  if (read != 5) return;
  use.cpu_seconds += static_cast<double>(user + system) / ticks;
  use.cpu_seconds += static_cast<double>(children_user + children_system) / ticks;
  if (first) return;
  use.resident_bytes += resident * page;
  ++use.processes;
}

// Children belong to the thread that forked them.
void add_children(pid_t pid, std::vector<pid_t>& open) {
  std::error_code error;
  const std::string threads = "/proc/" + std::to_string(pid) + "/task";
  for (std::filesystem::directory_iterator at(threads, error), end; !error && at != end;
       at.increment(error)) {
    std::istringstream children(small_file(at->path() / "children"));
    for (pid_t child; children >> child;) open.push_back(child);
  }
}

}  // namespace

TreeUse use_of_tree(pid_t init) {
  TreeUse use;
  std::vector<pid_t> open{init};
  for (size_t i = 0; i < open.size() && open.size() < 4096; ++i) {
    add_process(open[i], i == 0, use);
    add_children(open[i], open);
  }
  return use;
}

}  // namespace hadal
