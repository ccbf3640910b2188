// What the processes of a box use together, read from the host's /proc.
#pragma once
#include <sys/types.h>

#include <cstdint>

namespace hadal {

struct TreeUse {
  double cpu_seconds = 0;      // of the living and of those that have been waited for
  int64_t resident_bytes = 0;  // pages that several share count once for each
  int processes = 0;           // without the first
};

// `init` is the first process of a pid namespace: all others descend from it.
TreeUse use_of_tree(pid_t init);

}  // namespace hadal
