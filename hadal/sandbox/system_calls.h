// The seccomp filter of a box: which system calls go through, fail, or end the run. x86-64.
#pragma once
#include <linux/filter.h>

#include <vector>

namespace hadal {

// One process: no fork, no sockets, a short list. Several: what compilers, interpreters and shells need too.
enum class CallProfile { kOneProcess, kProcesses };

// Allowed calls go through; sockets, tracing, namespaces, mounts, keys, io_uring and the like end the process
// (SIGSYS), as does any call by another ABI (int 0x80, x32); what may be a library's probe fails with EPERM;
// the rest fails with ENOSYS, as on an old kernel, for which libraries have a way round.
std::vector<sock_filter> call_filter(CallProfile profile);

// Installs it on this thread for good. False with errno set if the kernel has no filters.
bool install_call_filter(const std::vector<sock_filter>& filter);

}  // namespace hadal
