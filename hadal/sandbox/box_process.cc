#include "hadal/sandbox/box_process.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>

#include "hadal/sandbox/box_fault.h"
#include "hadal/sandbox/box_files.h"
#include "hadal/sandbox/path_rules.h"
#include "hadal/sandbox/system_calls.h"
#include "hadal/sandbox/wall_trial.h"

namespace hadal {

const unsigned long kBoxNamespaces =
    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

namespace {

void tell(int notes, BoxNote note, const void* body = nullptr, size_t size = 0) {
  std::string message(1, static_cast<char>(note));
  message.append(static_cast<const char*>(body), size);
  ::send(notes, message.data(), message.size(), MSG_NOSIGNAL);
}

void tell_with_descriptor(int notes, BoxNote note, int descriptor) {
  char kind = static_cast<char>(note);
  iovec part{&kind, 1};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part, message.msg_iovlen = 1;
  message.msg_control = space, message.msg_controllen = sizeof space;
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(head), &descriptor, sizeof descriptor);
  must(::sendmsg(notes, &message, MSG_NOSIGNAL), "pass /box on");
}

// The supervisor has gone if this is anything else.
void wait_for(int notes, BoxNote note) {
  char kind = 0;
  if (::recv(notes, &kind, 1, 0) != 1 || kind != static_cast<char>(note)) ::_exit(1);
}

void limit(int resource, int64_t value, const char* what) {
  const rlimit both{static_cast<rlim_t>(value), static_cast<rlim_t>(value)};
  must(::setrlimit(static_cast<__rlimit_resource>(resource), &both), std::string("limit ") + what);
}

void set_limits(const SandboxLimits& limits) {
  const auto cpu = static_cast<int64_t>(std::ceil(limits.cpu_seconds));
  // The sampler ends what grows past memory_bytes; these bound what can happen between two samples.
  const int64_t slack = limits.memory_bytes / 8 + (32 << 20);
  limit(RLIMIT_DATA, limits.memory_bytes + slack, "memory");
  limit(RLIMIT_AS, 4 * limits.memory_bytes + (int64_t{1} << 30), "addresses");
  limit(RLIMIT_STACK, limits.stack_bytes, "the stack");
  limit(RLIMIT_CPU, cpu + 1, "CPU time");
  limit(RLIMIT_NPROC, limits.processes + 1, "processes");  // the box's first process counts
  limit(RLIMIT_FSIZE, limits.file_bytes, "the size of files");
  limit(RLIMIT_NOFILE, limits.open_files, "open files");
  limit(RLIMIT_CORE, 0, "core dumps");
  limit(RLIMIT_MEMLOCK, 0, "locked memory");
  limit(RLIMIT_MSGQUEUE, 0, "message queues");
  limit(RLIMIT_SIGPENDING, 64, "pending signals");
}

void drop_privileges() {
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability)
    must(::prctl(PR_CAPBSET_DROP, capability), "drop a capability");
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  must(::syscall(SYS_capset, &header, none), "drop capabilities");
  must(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs");
}

void set_descriptors(const BoxPipes& pipes) {
  must(::dup2(pipes.input, 0), "set stdin");
  must(::dup2(pipes.out, 1), "set stdout");
  must(::dup2(pipes.err, 2), "set stderr");
  must(::syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC), "close descriptors");
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (const std::string& text : texts) all.push_back(const_cast<char*>(text.c_str()));
  all.push_back(nullptr);
  return all;
}

void reset_signals() {
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void program_main(const BoxRequest& request, const BoxPipes& pipes) {
  const SandboxSpec& spec = request.spec;
  ::setsid();
  reset_signals();
  ::umask(077);
  set_descriptors(pipes);
  must(::chdir("/box"), "enter /box");
  const std::vector<char*> argv = pointers(spec.command), environment = pointers(spec.environment);
  set_limits(spec.limits);
  drop_privileges();
  std::vector<std::string> readable = spec.readable;
  readable.insert(readable.end(), {"/dev/zero", "/dev/urandom"});
  install_path_rules(readable, {"/box", "/dev/null"});
  const auto profile = spec.limits.processes > 1 ? CallProfile::kProcesses : CallProfile::kOneProcess;
  const std::vector<sock_filter> filter = call_filter(profile);
  if (request.probe) try_walls(spec, filter);
  if (!install_call_filter(filter)) box_fault("filter system calls");
  ::execve(argv[0], argv.data(), environment.data());
  box_fault("start " + spec.command[0]);
}

// Starts the program. A fault until it runs comes through a pipe that its start closes.
pid_t start_program(const BoxRequest& request, const BoxPipes& pipes) {
  int faults[2];
  must(::pipe2(faults, O_CLOEXEC), "make a pipe");
  const pid_t child = ::fork();
  must(child, "fork");
  if (child == 0) {
    try {
      program_main(request, pipes);
    } catch (const std::exception& e) {
      (void)!::write(faults[1], e.what(), std::strlen(e.what()));
    }
    ::_exit(1);
  }
  ::close(faults[1]);
  std::string fault(4096, '\0');
  const ssize_t n = ::read(faults[0], fault.data(), fault.size());
  ::close(faults[0]);
  if (n > 0) throw BoxFault(fault.substr(0, static_cast<size_t>(n)));
  return child;
}

// Until the program has ended; others may go on until this process ends too.
BoxEnd wait_for_end(pid_t program) {
  int status = 0;
  for (pid_t ended = 0; ended != program;) {
    ended = ::waitpid(-1, &status, 0);
    if (ended < 0 && errno != EINTR) box_fault("wait for the program");
  }
  rusage use{};
  ::getrusage(RUSAGE_CHILDREN, &use);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return {status, seconds(use.ru_utime) + seconds(use.ru_stime), use.ru_maxrss * 1024};
}

void become_box_user() {
  must(::setresgid(kBoxUid, kBoxUid, kBoxUid), "set the group");
  must(::setresuid(kBoxUid, kBoxUid, kBoxUid), "set the user");
  must(::prctl(PR_SET_PDEATHSIG, SIGKILL),
       "tie the box to its supervisor");  // a change of user would undo it
  must(::prctl(PR_SET_DUMPABLE, 0), "close the first process to the others");
  must(::sethostname("box", 3), "name the box");
}

}  // namespace

void box_main(const BoxRequest& request, const BoxPipes& pipes) {
  try {
    wait_for(pipes.notes, BoxNote::kMapped);
    become_box_user();
    const int folder = build_box_files(request.spec);
    tell_with_descriptor(pipes.notes, BoxNote::kReady, folder);
    ::close(folder);
    wait_for(pipes.notes, BoxNote::kGo);  // it was alive after we had tied ourselves to it
    const BoxEnd end = wait_for_end(start_program(request, pipes));
    tell(pipes.notes, BoxNote::kFinished, &end, sizeof end);
  } catch (const std::exception& e) {
    tell(pipes.notes, BoxNote::kFault, e.what(), std::strlen(e.what()));
  }
  ::_exit(0);
}

}  // namespace hadal
