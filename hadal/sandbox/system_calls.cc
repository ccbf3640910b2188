#include "hadal/sandbox/system_calls.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace hadal {
namespace {

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW, kKill = SECCOMP_RET_KILL_PROCESS;
constexpr uint32_t fails(uint32_t error_number) {
  return SECCOMP_RET_ERRNO | error_number;
}

// Calls newer than the oldest headers we build with.
enum : uint32_t {
  kIoUringSetup = 425,
  kIoUringEnter = 426,
  kIoUringRegister = 427,
  kClone3 = 435,
  kCloseRange = 436,
  kPidfdGetfd = 438,
  kMountSetattr = 442,
};

// clang-format off
// Reading, writing, memory, time, own threads and signals.
constexpr uint32_t kPlain[] = {
    __NR_read, __NR_write, __NR_readv, __NR_writev, __NR_pread64, __NR_pwrite64, __NR_preadv,
    __NR_pwritev, __NR_close, kCloseRange, __NR_fstat, __NR_newfstatat, __NR_stat, __NR_lstat,
    __NR_statfs, __NR_fstatfs, __NR_lseek, __NR_mprotect, __NR_munmap, __NR_brk, __NR_mremap,
    __NR_madvise, __NR_mincore, __NR_msync, __NR_rt_sigaction, __NR_rt_sigprocmask, __NR_rt_sigreturn,
    __NR_rt_sigpending, __NR_rt_sigtimedwait, __NR_rt_sigsuspend, __NR_sigaltstack, __NR_pause,
    __NR_alarm, __NR_setitimer, __NR_getitimer, __NR_restart_syscall, __NR_futex, __NR_clock_gettime,
    __NR_clock_getres, __NR_clock_nanosleep, __NR_nanosleep, __NR_gettimeofday, __NR_time, __NR_times,
    __NR_getrusage, __NR_gettid, __NR_getpid, __NR_getppid, __NR_getpgrp, __NR_getpgid, __NR_getsid,
    __NR_getuid, __NR_geteuid, __NR_getgid, __NR_getegid, __NR_getresuid, __NR_getresgid, __NR_getgroups,
    __NR_kill, __NR_tkill, __NR_tgkill, __NR_exit, __NR_exit_group, __NR_set_tid_address,
    __NR_set_robust_list, __NR_get_robust_list, __NR_rseq, __NR_membarrier, __NR_getrandom, __NR_open,
    __NR_openat, __NR_creat, __NR_readlink, __NR_readlinkat, __NR_access, __NR_faccessat, __NR_getcwd,
    __NR_getdents64, __NR_sched_yield, __NR_sched_getaffinity, __NR_uname, __NR_sysinfo, __NR_getcpu,
    __NR_poll, __NR_ppoll, __NR_select, __NR_pselect6, __NR_ftruncate, __NR_truncate, __NR_fsync,
    __NR_fdatasync, __NR_unlink, __NR_unlinkat, __NR_rename, __NR_renameat, __NR_renameat2, __NR_mkdir,
    __NR_mkdirat, __NR_rmdir, __NR_umask, __NR_chdir, __NR_fchdir, __NR_dup, __NR_dup2, __NR_dup3,
    __NR_execve, __NR_fadvise64, __NR_getrlimit};

// What compilers, interpreters and shells do besides.
constexpr uint32_t kProcesses[] = {
    __NR_fork, __NR_vfork, __NR_wait4, __NR_waitid, __NR_pipe, __NR_pipe2, __NR_setpgid, __NR_setsid,
    __NR_chmod, __NR_fchmod, __NR_fchmodat, __NR_link, __NR_linkat, __NR_symlink, __NR_symlinkat,
    __NR_utime, __NR_utimes, __NR_utimensat, __NR_epoll_create1, __NR_epoll_ctl, __NR_epoll_wait,
    __NR_epoll_pwait, __NR_eventfd2, __NR_fallocate, __NR_sendfile, __NR_copy_file_range, __NR_statx,
    __NR_setrlimit, __NR_getpriority, __NR_sched_getparam, __NR_sched_getscheduler};

// No honest program of the box needs them.
constexpr uint32_t kEndsTheRun[] = {
    __NR_ptrace, __NR_process_vm_readv, __NR_process_vm_writev, kPidfdGetfd, __NR_mount, __NR_umount2,
    __NR_pivot_root, __NR_chroot, kMountSetattr, __NR_open_tree, __NR_move_mount, __NR_fsopen,
    __NR_fsconfig, __NR_fsmount, __NR_fspick, __NR_unshare, __NR_setns, __NR_add_key, __NR_request_key,
    __NR_keyctl, __NR_bpf, __NR_perf_event_open, kIoUringSetup, kIoUringEnter, kIoUringRegister,
    __NR_userfaultfd, __NR_kexec_load, __NR_kexec_file_load, __NR_init_module, __NR_finit_module,
    __NR_delete_module, __NR_reboot, __NR_swapon, __NR_swapoff, __NR_acct, __NR_settimeofday,
    __NR_clock_settime, __NR_iopl, __NR_ioperm, __NR_sethostname, __NR_setdomainname, __NR_shmget,
    __NR_shmat, __NR_shmctl, __NR_semget, __NR_semop, __NR_semctl, __NR_msgget, __NR_msgsnd, __NR_msgrcv,
    __NR_msgctl, __NR_mq_open, __NR_open_by_handle_at, __NR_name_to_handle_at, __NR_lookup_dcookie,
    __NR_quotactl, __NR_fanotify_init, __NR_syslog, __NR_move_pages, __NR_migrate_pages, __NR_kcmp,
    __NR_vhangup, __NR_modify_ldt};

constexpr uint32_t kSockets[] = {
    __NR_socket, __NR_socketpair, __NR_connect, __NR_bind, __NR_listen, __NR_accept, __NR_accept4,
    __NR_sendto, __NR_sendmsg, __NR_sendmmsg, __NR_recvfrom, __NR_recvmsg, __NR_recvmmsg};

// Harmless to ask, not given: the caller sees a refusal and may go on.
constexpr uint32_t kRefused[] = {
    __NR_memfd_create, __NR_setuid, __NR_setgid, __NR_setreuid, __NR_setregid, __NR_setresuid,
    __NR_setresgid, __NR_setgroups, __NR_setfsuid, __NR_setfsgid, __NR_capset, __NR_capget, __NR_chown,
    __NR_fchown, __NR_lchown, __NR_fchownat, __NR_mknod, __NR_mknodat, __NR_flock, __NR_setpriority,
    __NR_sched_setscheduler, __NR_sched_setparam, __NR_sched_setattr, __NR_sched_setaffinity, __NR_mlock,
    __NR_mlock2, __NR_mlockall, __NR_inotify_init, __NR_inotify_init1, __NR_inotify_add_watch,
    __NR_seccomp, __NR_personality, __NR_mbind, __NR_set_mempolicy, __NR_setxattr, __NR_lsetxattr,
    __NR_fsetxattr, __NR_fork, __NR_vfork, __NR_setsid, __NR_setpgid, __NR_symlink, __NR_symlinkat,
    __NR_link, __NR_linkat, __NR_chmod, __NR_fchmod, __NR_fchmodat, __NR_pipe, __NR_pipe2};

// As on a file system without extended attributes.
constexpr uint32_t kAttributes[] = {
    __NR_getxattr, __NR_lgetxattr, __NR_fgetxattr, __NR_listxattr, __NR_llistxattr, __NR_flistxattr};
// clang-format on

constexpr uint32_t kNamespaceFlags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                     CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_PTRACE |
                                     CLONE_PARENT | 0x80;
constexpr uint32_t kSharedAnonymous = MAP_SHARED | MAP_ANONYMOUS;

// Blocks of instructions. The accumulator holds the call's number at the start of each.
class Program {
 public:
  void statement(uint16_t code, uint32_t k) { code_.push_back(sock_filter{code, 0, 0, k}); }
  void jump(uint16_t code, uint32_t k, uint8_t if_true, uint8_t if_false) {
    code_.push_back(sock_filter{code, if_true, if_false, k});
  }
  void answer(uint32_t action) { statement(BPF_RET | BPF_K, action); }
  void load(uint32_t offset) { statement(BPF_LD | BPF_W | BPF_ABS, offset); }

  template <class List>
  void each(const List& calls, uint32_t action) {
    for (const uint32_t call : calls) {
      jump(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1);
      answer(action);
    }
  }

  // `call`: the low half of argument `arg` & mask decides. Equal to one of `values`: `then`, else
  // `otherwise`.
  void by_argument(uint32_t call, int arg, uint32_t mask, std::initializer_list<uint32_t> values,
                   uint32_t then, uint32_t otherwise) {
    const auto length = static_cast<uint8_t>(3 + 2 * values.size());
    jump(BPF_JMP | BPF_JEQ | BPF_K, call, 0, length);
    load(static_cast<uint32_t>(offsetof(seccomp_data, args) + 8 * static_cast<size_t>(arg)));
    statement(BPF_ALU | BPF_AND | BPF_K, mask);
    for (const uint32_t value : values) {
      jump(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
      answer(then);
    }
    answer(otherwise);
  }

  std::vector<sock_filter> take() { return std::move(code_); }

 private:
  std::vector<sock_filter> code_;
};

void native_calls_only(Program& p) {
  p.load(offsetof(seccomp_data, arch));
  p.jump(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  p.answer(kKill);
  p.load(offsetof(seccomp_data, nr));
  p.jump(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1);  // x32
  p.answer(kKill);
}

void calls_by_argument(Program& p, bool processes) {
  constexpr uint32_t all = 0xFFFFFFFF;
  p.by_argument(__NR_mmap, 3, kSharedAnonymous, {kSharedAnonymous}, fails(EPERM), kAllow);
  p.by_argument(__NR_ioctl, 1, all, {TCGETS, TIOCGWINSZ, FIONREAD, FIOCLEX, FIONCLEX}, kAllow, fails(ENOTTY));
  p.by_argument(__NR_fcntl, 1, all, {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL}, kAllow,
                fails(EPERM));
  p.by_argument(__NR_prctl, 0, all, {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE}, kAllow, fails(EPERM));
  p.by_argument(__NR_arch_prctl, 0, all, {0x1002, 0x1003}, kAllow, fails(EPERM));  // set and get FS
  p.by_argument(__NR_prlimit64, 0, all, {0}, kAllow, fails(EPERM));  // own limits, which only sink
  // clone3 hides its flags behind a pointer: libraries fall back to clone.
  if (processes)
    p.by_argument(__NR_clone, 0, kNamespaceFlags, {0}, kAllow, kKill);
  else
    p.by_argument(__NR_clone, 0, kNamespaceFlags, {0}, fails(EPERM), kKill);
}

}  // namespace

std::vector<sock_filter> call_filter(CallProfile profile) {
  const bool processes = profile == CallProfile::kProcesses;
  Program p;
  native_calls_only(p);
  p.each(kPlain, kAllow);
  if (processes) p.each(kProcesses, kAllow);
  p.each(kEndsTheRun, kKill);
  // A shell asks a name service over a socket who it is, and lives without an answer.
  p.each(kSockets, processes ? fails(EACCES) : kKill);
  p.each(kRefused, fails(EPERM));
  p.each(kAttributes, fails(EOPNOTSUPP));
  calls_by_argument(p, processes);
  p.answer(fails(ENOSYS));
  return p.take();
}

bool install_call_filter(const std::vector<sock_filter>& filter) {
  const sock_fprog program{static_cast<unsigned short>(filter.size()),
                           const_cast<sock_filter*>(filter.data())};
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace hadal
