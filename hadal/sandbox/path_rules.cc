#include "hadal/sandbox/path_rules.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "hadal/sandbox/box_fault.h"

namespace hadal {
namespace {

// linux/landlock.h, whose installed version may be older than the kernel.
constexpr long kCreateRuleset = 444, kAddRule = 445, kRestrictSelf = 446;
constexpr uint64_t kExecute = 1, kWriteFile = 2, kReadFile = 4, kReadFolder = 8, kRefer = 1 << 13,
                   kTruncate = 1 << 14, kDeviceIoctl = 1 << 15, kAbiOne = (1 << 13) - 1;
constexpr uint64_t kTcp = 3, kScopes = 3;

struct Ruleset {
  uint64_t files = 0, network = 0, scoped = 0;
};

struct [[gnu::packed]] PathRule {
  uint64_t allowed = 0;
  int32_t folder = -1;
};

uint64_t known_file_rights(int abi) {
  return kAbiOne | (abi >= 2 ? kRefer : 0) | (abi >= 3 ? kTruncate : 0) | (abi >= 5 ? kDeviceIoctl : 0);
}

void allow(int ruleset, const std::string& path, uint64_t rights) {
  const int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return;
  struct stat status {};
  must(::fstat(fd, &status), "look at " + path);
  if (!S_ISDIR(status.st_mode)) rights &= kExecute | kWriteFile | kReadFile | kTruncate | kDeviceIoctl;
  const PathRule rule{.allowed = rights, .folder = fd};
  must(::syscall(kAddRule, ruleset, 1, &rule, 0), "allow " + path);
  ::close(fd);
}

}  // namespace

int landlock_abi() {
  const long abi = ::syscall(kCreateRuleset, nullptr, 0, 1);
  return abi < 0 ? 0 : static_cast<int>(abi);
}

bool install_path_rules(const std::vector<std::string>& readable, const std::vector<std::string>& writable) {
  const int abi = landlock_abi();
  if (abi == 0) return false;
  const uint64_t known = known_file_rights(abi);
  const Ruleset rules{.files = known, .network = abi >= 4 ? kTcp : 0, .scoped = abi >= 6 ? kScopes : 0};
  const size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
  const int ruleset = static_cast<int>(::syscall(kCreateRuleset, &rules, size, 0));
  must(ruleset, "make path rules");
  allow(ruleset, "/", kReadFolder);
  for (const std::string& path : readable) allow(ruleset, path, kExecute | kReadFile | kReadFolder);
  for (const std::string& path : writable) allow(ruleset, path, known & ~kDeviceIoctl);
  must(::syscall(kRestrictSelf, ruleset, 0), "install path rules");
  ::close(ruleset);
  return true;
}

}  // namespace hadal
