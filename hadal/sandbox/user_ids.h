// Which user of the host a box runs as.
#pragma once
#include <sys/types.h>

#include <string>

namespace hadal {

// Root gives each box a user of its own, which `unique` (a process id) tells apart: the kernel counts
// processes per user and does not bind root. `uid_map` is the text of /proc/self/uid_map: only ids in it can
// be given. Anybody else, and root of a map of one id, can give only their own.
uid_t box_user(uid_t own, uint32_t unique, const std::string& uid_map);

}  // namespace hadal
