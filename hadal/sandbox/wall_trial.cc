#include "hadal/sandbox/wall_trial.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <sstream>

#include "hadal/sandbox/path_rules.h"
#include "hadal/sandbox/system_calls.h"

namespace hadal {
namespace {

void report(const char* wall, bool stands, const std::string& detail, bool needed = true) {
  const std::string line =
      std::string(wall) + "\t" + (stands ? "1" : "0") + "\t" + (needed ? "1" : "0") + "\t" + detail + "\n";
  (void)!::write(1, line.data(), line.size());
}

// What is behind the root, and whether any of it can be written.
void try_files() {
  struct stat status {};
  const bool hidden =
      ::stat("/etc", &status) < 0 && ::stat("/proc", &status) < 0 && ::stat("/home", &status) < 0;
  const bool closed =
      ::open("/new", O_WRONLY | O_CREAT, 0600) < 0 && ::open("/usr/new", O_WRONLY | O_CREAT, 0600) < 0;
  report("files", hidden && closed,
         hidden ? closed ? "own root, read-only; /box alone is written" : "the root can be written"
                : "the host's folders are in sight");
}

void try_tmp(const SandboxLimits& limits) {
  const int fd = ::open("/box/full", O_WRONLY | O_CREAT, 0600);
  std::string block(1 << 16, 'x');
  int64_t written = 0;
  ::signal(SIGXFSZ, SIG_IGN);
  for (ssize_t n = 0;
       written <= 2 * limits.tmp_bytes + (1 << 20) && (n = ::write(fd, block.data(), block.size())) > 0;)
    written += n;
  ::close(fd);
  ::unlink("/box/full");
  const bool stands = fd >= 0 && written <= limits.tmp_bytes + (1 << 20);
  report("disk", stands, "private, " + std::to_string(written >> 10) + " KiB could be written");
}

// Loopback is down and there is no other interface, so nothing can be reached even past the filter.
void try_network() {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET, address.sin_port = htons(9), address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool reached = fd >= 0 && ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  report("network", !reached, reached ? "loopback answers" : "own namespace, nothing in it is up");
}

void try_ipc() {
  const int id = ::shmget(0x68616461, 16, IPC_CREAT | 0600);
  const bool own = id < 0 || id == 0;  // the first segment of a namespace
  if (id >= 0) ::shmctl(id, IPC_RMID, nullptr);
  report("shared memory", own, own ? "own namespace" : "shared with the host");
}

void try_processes(const SandboxLimits& limits) {
  int64_t started = 0;
  std::vector<pid_t> children;
  for (; started < limits.processes + 8; ++started) {
    const pid_t child = ::fork();
    if (child < 0) break;
    if (child == 0) {
      ::pause();
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) ::kill(child, SIGKILL), ::waitpid(child, nullptr, 0);
  const bool stands = started <= limits.processes - 1;
  report("processes", stands,
         "limit " + std::to_string(limits.processes) + ", " + std::to_string(started + 1) + " could run");
  report("process numbers", ::getpid() <= 2 && ::getppid() <= 1, "own namespace");
}

void try_memory(const SandboxLimits& limits) {
  const auto size = static_cast<size_t>(limits.memory_bytes * 2 + (256 << 20));
  void* block =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  report("memory", block == MAP_FAILED, "data of one process; the sum is sampled");
}

void try_privileges() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct held[2] = {};
  const bool none = ::syscall(SYS_capget, &header, held) == 0 && held[0].permitted == 0 &&
                    held[1].permitted == 0 && held[0].effective == 0 && held[1].effective == 0;
  const bool no_new = ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
  report("privileges", none && no_new && ::setuid(0) < 0,
         none ? "none, none to be gained" : "capabilities are left");
}

void try_calls() {
  const pid_t child = ::fork();
  if (child == 0) {
    ::syscall(SYS_keyctl, 0, -1, 0, 0, 0);
    ::_exit(0);
  }
  int status = 0;
  const bool waited = child > 0 && ::waitpid(child, &status, 0) == child;
  report("system calls", waited && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "seccomp list");
}

}  // namespace

void try_walls(const SandboxSpec& spec, const std::vector<sock_filter>& filter) {
  report("user", ::getuid() == 1000 && ::geteuid() == 1000, "own id in an own namespace");
  try_privileges();
  try_files();
  try_tmp(spec.limits);
  try_network();
  try_ipc();
  try_processes(spec.limits);
  try_memory(spec.limits);
  const int abi = landlock_abi();
  report("landlock", abi > 0,
         abi > 0 ? "version " + std::to_string(abi) + ", a second wall around files"
                 : "not in this kernel: the other walls stand without it",
         false);
  if (install_call_filter(filter))
    try_calls();
  else
    report("system calls", false, std::string("seccomp: ") + std::strerror(errno));
  ::_exit(0);
}

std::vector<SandboxWall> read_trial(const std::string& lines) {
  std::vector<SandboxWall> walls;
  std::istringstream in(lines);
  for (std::string name, stands, needed, detail; std::getline(in, name, '\t') &&
                                                 std::getline(in, stands, '\t') &&
                                                 std::getline(in, needed, '\t') && std::getline(in, detail);)
    walls.push_back({name, stands == "1", needed == "1", detail});
  return walls;
}

}  // namespace hadal
