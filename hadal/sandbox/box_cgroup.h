// A cgroup (version 2) around a box, where the system lets us make one: the kernel then bounds memory and
// processes of the whole tree, which rlimits and samples only approach.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "hadal/sandbox/sandbox.h"

namespace hadal {

// The folder in which boxes may make cgroups: this process's own if it may write there and memory and pids
// are on for its children; "" if not. `own` and `mounts`: the texts of /proc/self/cgroup and
// /proc/self/mountinfo.
std::string delegated_cgroup(const std::string& own, const std::string& mounts);

class BoxCgroup {
 public:
  // "": none. Throws BoxFault if the folder does not do what it should: a box is never weaker than it was
  // told.
  BoxCgroup(const std::string& parent, const SandboxLimits& limits);
  ~BoxCgroup();  // ends what is in it and removes it
  BoxCgroup(const BoxCgroup&) = delete;

  void add(pid_t process);
  bool out_of_memory() const;  // has the kernel ended a process for its memory?
  int64_t peak_bytes() const;  // 0: not known

 private:
  void set_limits(const SandboxLimits& limits) const;
  void write(const char* file, const std::string& text, bool needed = true) const;
  std::string read(const char* file) const;

  std::string folder_;
};

}  // namespace hadal
