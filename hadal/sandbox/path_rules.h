// Landlock: a second wall around files, beside the mounts, and around TCP, abstract sockets and signals where
// the kernel has those.
#pragma once
#include <string>
#include <vector>

namespace hadal {

int landlock_abi();  // 0: none

// This thread and its children may read and execute beneath `readable`, do what they like beneath `writable`,
// list folders, and nothing else. Paths that do not exist are left out. False without Landlock; throws
// BoxFault. Needs no_new_privs.
bool install_path_rules(const std::vector<std::string>& readable, const std::vector<std::string>& writable);

}  // namespace hadal
