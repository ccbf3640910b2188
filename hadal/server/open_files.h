// How many connections a process may have.
#pragma once
#include <sys/resource.h>

namespace hadal {

// Each connection is an open file: as many as the system lets this process have.
inline void raise_open_files() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= files.rlim_max) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

}  // namespace hadal
