// Other processes, descriptors and signals.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>

#include "attack.h"

namespace {

void fork_bomb() {
  int started = 0;
  for (int i = 0; i < 4000; ++i) {
    const pid_t child = ::fork();
    if (child == 0)
      for (;;) ::fork();
    started += child > 0;
  }
  broke_if(started > 16, "more than 16 children");
}

void vfork_bomb() {
  int started = 0;
  for (int i = 0; i < 2000; ++i) {
    const pid_t child = static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    if (child == 0)
      for (;;) ::pause();
    started += child > 0;
  }
  broke_if(started > 16, "more than 16 children");
}

void thread_bomb() {
  int started = 0;
  for (int i = 0; i < 5000; ++i) {
    pthread_t thread;
    started += ::pthread_create(
                   &thread, nullptr,
                   [](void*) -> void* {
                     for (;;) ::pause();
                   },
                   nullptr) == 0;
  }
  broke_if(started > 16, "more than 16 threads");
}

void exec_loop() {
  char name[] = "/box/attack", attack[] = "exec_loop";
  char* argv[] = {name, attack, nullptr};
  ::execv(argv[0], argv);
  for (;;) ::pause();
}

void kill_everybody() {
  for (const int number : {SIGTERM, SIGKILL, SIGSTOP}) {
    ::kill(1, number);
    ::kill(::getppid(), number);
    for (pid_t pid = 3; pid < 3000; ++pid) ::kill(pid, number);
  }
  ::kill(-1, SIGKILL);
  broke_if(::kill(1, 0) != 0 && errno == ESRCH, "the first process of the box is dead");
}

void kill_thread_of_parent() {
  ::syscall(SYS_tgkill, ::getppid(), ::getppid(), SIGKILL);
  ::syscall(SYS_tkill, 1, SIGKILL);
  ::syscall(SYS_rt_sigqueueinfo, 1, SIGKILL, nullptr);
}

void signal_parent_group() {
  ::kill(0, SIGTERM);
  for (;;) ::pause();
}

void trace_parent() {
  broke_if(::ptrace(PTRACE_ATTACH, ::getppid(), 0, 0) == 0, "ptrace of the parent");
}

void trace_me() {
  broke_if(::ptrace(PTRACE_TRACEME, 0, 0, 0) == 0, "PTRACE_TRACEME");
}

void read_parent_memory() {
  char buffer[16];
  iovec own{buffer, sizeof buffer}, other{reinterpret_cast<void*>(0x400000), sizeof buffer};
  broke_if(::process_vm_readv(1, &own, 1, &other, 1, 0) > 0, "process_vm_readv");
}

void write_parent_memory() {
  char buffer[16] = {};
  iovec own{buffer, sizeof buffer}, other{reinterpret_cast<void*>(0x400000), sizeof buffer};
  broke_if(::process_vm_writev(1, &own, 1, &other, 1, 0) > 0, "process_vm_writev");
}

void steal_descriptor() {
  const long pidfd = ::syscall(SYS_pidfd_open, 1, 0);
  broke_if(pidfd >= 0, "a descriptor of the first process");
  broke_if(::syscall(438, pidfd, 3, 0) >= 0, "pidfd_getfd");
}

void scan_descriptors() {
  for (int fd = 3; fd < 4096; ++fd)
    broke_if(::fcntl(fd, F_GETFD) >= 0, "descriptor " + std::to_string(fd) + " is open");
}

void write_descriptors() {
  for (int fd = 3; fd < 4096; ++fd)
    broke_if(::write(fd, "ok\n", 3) == 3, "descriptor " + std::to_string(fd) + " takes bytes");
}

void write_to_stdin() {
  broke_if(::write(0, "x", 1) == 1, "stdin takes bytes");
  broke_if(::ftruncate(0, 0) == 0, "stdin can be cut");
}

void change_pipes() {
  broke_if(::fcntl(1, F_SETPIPE_SZ, 1 << 20) > 0, "the pipe's size");
  broke_if(::fcntl(1, F_SETOWN, 1) == 0 && ::fcntl(1, F_SETSIG, SIGKILL) == 0, "signals of the pipe");
}

void close_all_and_hang() {
  for (int fd = 0; fd < 16; ++fd) ::close(fd);
  for (;;) ::pause();
}

void stop_self() {
  ::raise(SIGSTOP);
  for (;;) ::pause();
}

void ignore_signals() {
  for (int number = 1; number < 64; ++number) ::signal(number, SIG_IGN);
  for (;;) asm volatile("");
}

void sleep_forever() {
  for (;;) ::sleep(1000);
}

void spin() {
  for (;;) asm volatile("");
}

void crash_loop() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  for (const int number : {SIGSEGV, SIGFPE, SIGABRT, SIGBUS, SIGILL}) ::sigaction(number, &action, nullptr);
  *reinterpret_cast<volatile char*>(8) = 1;  // the handler returns to the same instruction
}

void fake_kill_code() {
  ::_exit(137);
}

void daemonise() {
  if (::fork() > 0) ::_exit(0);
  ::setsid();
  if (::fork() > 0) ::_exit(0);
  ::close(0), ::close(1), ::close(2);
  for (;;) ::sleep(1);
}

void orphan_prints() {
  if (::fork() > 0) ::_exit(0);
  for (;;) (void)!::write(1, "late\n", 5);
}

void orphan_spins() {
  if (::fork() > 0) ::_exit(0);
  for (;;) asm volatile("");
}

void zombie_flood() {
  int started = 0;
  for (int i = 0; i < 3000; ++i) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    started += child > 0;
  }
  broke_if(started > 16, "more than 16 dead children");
}

void raise_limits() {
  for (const auto resource :
       {RLIMIT_NPROC, RLIMIT_AS, RLIMIT_DATA, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_CORE}) {
    const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
    broke_if(::setrlimit(resource, &none) == 0, "a limit was raised");
  }
}

void limits_of_parent() {
  rlimit zero{0, 0};
  broke_if(::prlimit(1, RLIMIT_CPU, &zero, nullptr) == 0, "the first process's limits");
}

void priorities() {
  broke_if(::setpriority(PRIO_PROCESS, 0, -20) == 0, "priority");
  sched_param best{.sched_priority = 99};
  broke_if(::sched_setscheduler(0, SCHED_FIFO, &best) == 0, "real-time scheduling");
  broke_if(::syscall(SYS_ioprio_set, 1, 0, 0) == 0, "I/O priority");
}

void survive_parent_signal() {
  broke_if(::prctl(PR_SET_PDEATHSIG, 0) == 0, "prctl PDEATHSIG");
  broke_if(::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "subreaper");
  broke_if(::prctl(PR_SET_DUMPABLE, 1) == 0, "dumpable");
}

void dump_core() {
  ::prctl(PR_SET_DUMPABLE, 1);
  std::abort();
}

}  // namespace

std::vector<Attack> process_attacks() {
  return {
      {"fork_bomb", fork_bomb},
      {"vfork_bomb", vfork_bomb},
      {"thread_bomb", thread_bomb},
      {"exec_loop", exec_loop},
      {"kill_everybody", kill_everybody},
      {"kill_thread_of_parent", kill_thread_of_parent},
      {"signal_parent_group", signal_parent_group},
      {"trace_parent", trace_parent},
      {"trace_me", trace_me},
      {"read_parent_memory", read_parent_memory},
      {"write_parent_memory", write_parent_memory},
      {"steal_descriptor", steal_descriptor},
      {"scan_descriptors", scan_descriptors},
      {"write_descriptors", write_descriptors},
      {"write_to_stdin", write_to_stdin},
      {"change_pipes", change_pipes},
      {"close_all_and_hang", close_all_and_hang},
      {"stop_self", stop_self},
      {"ignore_signals", ignore_signals},
      {"sleep_forever", sleep_forever},
      {"spin", spin},
      {"crash_loop", crash_loop},
      {"fake_kill_code", fake_kill_code},
      {"daemonise", daemonise},
      {"orphan_prints", orphan_prints},
      {"orphan_spins", orphan_spins},
      {"zombie_flood", zombie_flood},
      {"raise_limits", raise_limits},
      {"limits_of_parent", limits_of_parent},
      {"priorities", priorities},
      {"survive_parent_signal", survive_parent_signal},
      {"dump_core", dump_core},
  };
}
