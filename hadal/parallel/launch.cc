#include "hadal/parallel/launch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "hadal/base/clock.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/parallel/peer_lost.h"

namespace hadal {
namespace {

constexpr int kPassedOn[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
constexpr int kStoppedExit = 75;       // of a rank that was stopped by a signal and saved
constexpr double kCauseSeconds = 0.2;  // in which failures count as one: which was the cause is then decided

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kUnavailable, cat("[launch] ", what, ": ", std::strerror(errno), "."));
}

// A port nobody has just now.
int64_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("cannot open a socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  const bool ok = ::bind(fd, any, length) == 0 && ::getsockname(fd, any, &length) == 0;
  ::close(fd);
  if (!ok) fail("cannot find a free port");
  return ntohs(address.sin_port);
}

// Hands on whole lines, with their rank.
class LinePipe {
 public:
  LinePipe(int from, int to, int64_t rank) : from_(from), to_(to), prefix_(cat("[", rank, "] ")) {
    ::fcntl(from_, F_SETFL, O_NONBLOCK);
  }
  int from() const { return from_; }
  bool open() const { return from_ >= 0; }

  void read() {
    char buffer[1 << 14];
    while (open()) {
      const ssize_t n = ::read(from_, buffer, sizeof buffer);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) return finish();
      rest_.append(buffer, static_cast<size_t>(n));
      const size_t end = rest_.rfind('\n');
      if (end != std::string::npos) {
        write(rest_.substr(0, end + 1));
        rest_.erase(0, end + 1);
      } else if (rest_.size() > (size_t{1} << 20)) {
        rest_ += '\n';
      }
    }
  }
  void finish() {
    if (!open()) return;
    if (!rest_.empty()) write(rest_ + "\n");
    ::close(from_);
    from_ = -1;
  }

 private:
  void write(const std::string& lines) const {
    std::string out;
    for (size_t at = 0; at < lines.size();) {
      const size_t end = lines.find('\n', at);
      out += prefix_ + lines.substr(at, end + 1 - at);
      at = end + 1;
    }
    for (size_t at = 0; at < out.size();) {
      const ssize_t n = ::write(to_, out.data() + at, out.size() - at);
      if (n < 0 && errno != EINTR) return;  // nobody reads: the ranks go on
      if (n > 0) at += static_cast<size_t>(n);
    }
  }

  int from_, to_;
  std::string prefix_, rest_;
};

struct Child {
  pid_t pid = -1;
  std::optional<int> status;  // of waitpid
};

std::string text_of(int status) {
  if (WIFEXITED(status)) return cat("ended with exit code ", WEXITSTATUS(status));
  const char* name = ::sigabbrev_np(WTERMSIG(status));
  return cat("was ended by SIG", name ? name : std::to_string(WTERMSIG(status)).c_str());
}

int code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Which of two failures is rather the cause.
int weight_of(int status) {
  if (WIFSIGNALED(status)) return 2;
  return WEXITSTATUS(status) == kPeerLostExit ? 0 : 1;
}

void say(const std::string& text) {
  const std::string line = cat("hadal: [launch] ", text, "\n");
  (void)!::write(STDERR_FILENO, line.data(), line.size());
}

// Signals as something to read, over all starts of a job: none is lost between two of them.
class Signals {
 public:
  Signals() {
    sigset_t ours;
    sigemptyset(&ours);
    for (const int number : kPassedOn) sigaddset(&ours, number);
    sigaddset(&ours, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &ours, &before_);
    fd_ = ::signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  ~Signals() {
    ::close(fd_);
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  Signals(const Signals&) = delete;

  int fd() const { return fd_; }
  const sigset_t& before() const { return before_; }
  // The next one to pass on; 0: none.
  int next() {
    signalfd_siginfo info;
    while (::read(fd_, &info, sizeof info) == sizeof info)
      if (info.ssi_signo != SIGCHLD) return static_cast<int>(info.ssi_signo);
    return 0;
  }

 private:
  sigset_t before_;
  int fd_ = -1;
};

// The ranks from one start to their end.
class Job {
 public:
  Job(const LaunchConfig& config, Signals& signals) : config_(config), signals_(signals) {
    const int64_t port = free_port();
    for (int64_t r = 0; r < config.ranks; ++r) start(r, port);
  }
  ~Job() {
    signal_all(SIGKILL);
    for (const Child& child : children_)
      if (!child.status) ::waitpid(child.pid, nullptr, 0);
  }
  Job(const Job&) = delete;

  int run() {
    while (living() > 0) {
      wait_for_news();
      pass_on_signals();
      reap();
      decide();
    }
    signal_all(SIGKILL);  // what the ranks started and left behind
    for (LinePipe& pipe : pipes_) pipe.read(), pipe.finish();
    return result();
  }

  // Ended by a failure that another start may not meet. A rank that says it was stopped was asked to.
  bool may_start_again() const { return cause_ >= 0 && !stopping_ && result() != kStoppedExit; }

 private:
  void start(int64_t rank, int64_t port) {
    int out[2], err[2];
    if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) fail("cannot open a pipe");
    const pid_t parent = ::getpid(), pid = ::fork();
    if (pid < 0) fail(cat("cannot start rank ", rank));
    if (pid == 0) become(rank, port, parent, out[1], err[1]);
    ::setpgid(pid, pid);
    ::close(out[1]), ::close(err[1]);
    pipes_.emplace_back(out[0], STDOUT_FILENO, rank);
    pipes_.emplace_back(err[0], STDERR_FILENO, rank);
    children_.push_back({pid});
  }

  // In the new process. A group of its own, so that what it starts ends with it and the terminal's Ctrl-C
  // comes through us alone.
  [[noreturn]] void become(int64_t rank, int64_t port, pid_t parent, int out, int err) const {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    ::sigprocmask(SIG_SETMASK, &signals_.before(), nullptr);
    const int nothing = ::open("/dev/null", O_RDONLY);
    ::dup2(nothing, STDIN_FILENO), ::dup2(out, STDOUT_FILENO), ::dup2(err, STDERR_FILENO);
    const auto set = [](const char* name, int64_t value) {
      ::setenv(name, std::to_string(value).c_str(), 1);
    };
    set("RANK", rank), set("WORLD_SIZE", config_.ranks), set("LOCAL_RANK", rank);
    set("LOCAL_WORLD_SIZE", config_.ranks), set("MASTER_PORT", port);
    ::setenv("MASTER_ADDR", "127.0.0.1", 1);
    ::unsetenv("TORCHELASTIC_USE_AGENT_STORE");
    std::vector<char*> argv;
    for (const std::string& part : config_.command) argv.push_back(const_cast<char*>(part.c_str()));
    argv.push_back(nullptr);
    ::signal(SIGPIPE, SIG_DFL);
    ::execvp(argv[0], argv.data());
    const std::string text = cat("hadal: [launch] cannot start ", argv[0], ": ", std::strerror(errno), ".\n");
    (void)!::write(STDERR_FILENO, text.data(), text.size());
    ::_exit(127);
  }

  void wait_for_news() {
    std::vector<pollfd> fds{{signals_.fd(), POLLIN, 0}};
    for (const LinePipe& pipe : pipes_)
      if (pipe.open()) fds.push_back({pipe.from(), POLLIN, 0});
    double until = 3600;
    if (failed_at_) until = *failed_at_ + (told_ ? config_.grace_seconds : kCauseSeconds) - now_seconds();
    ::poll(fds.data(), fds.size(), std::max(0, static_cast<int>(until * 1000) + 1));
    for (LinePipe& pipe : pipes_) pipe.read();
  }

  void pass_on_signals() {
    while (const int number = signals_.next()) {
      if (number != SIGUSR1) stopping_ = number;
      signal_all(number);
    }
  }

  void reap() {
    for (size_t r = 0; r < children_.size(); ++r) {
      Child& child = children_[r];
      int status = 0;
      if (child.status || ::waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
      child.status = status;
      // Who was asked to stop may say so by its exit code; the others may still be saving.
      const bool asked = stopping_ && (WIFEXITED(status) || WTERMSIG(status) == stopping_);
      if (code_of(status) == 0 || asked || told_) continue;
      if (!failed_at_) failed_at_ = now_seconds();
      if (cause_ < 0 || weight_of(status) > weight_of(*children_[static_cast<size_t>(cause_)].status))
        cause_ = static_cast<int64_t>(r);
    }
  }

  // After a failure: names the cause, asks the rest to end, then ends them.
  void decide() {
    if (!failed_at_) return;
    const double since = now_seconds() - *failed_at_;
    if (!told_ && (since >= kCauseSeconds || living() == 0)) {
      told_ = true;
      for (LinePipe& pipe : pipes_) pipe.read();
      say(cat("rank ", cause_, " ", text_of(*children_[static_cast<size_t>(cause_)].status), "; ",
              living() > 0 ? "the others are ended." : "all have ended."));
      signal_all(SIGTERM);
    }
    if (told_ && since >= config_.grace_seconds) signal_all(SIGKILL);
  }

  void signal_all(int number) const {
    for (const Child& child : children_) ::kill(-child.pid, number);
  }
  int64_t living() const {
    return std::count_if(children_.begin(), children_.end(), [](const Child& c) { return !c.status; });
  }

  int result() const {
    if (cause_ >= 0) return code_of(*children_[static_cast<size_t>(cause_)].status);
    int code = 0;
    for (const Child& child : children_) code = std::max(code, code_of(*child.status));
    return code;
  }

  const LaunchConfig& config_;
  Signals& signals_;
  std::vector<Child> children_;
  std::vector<LinePipe> pipes_;
  int stopping_ = 0;
  bool told_ = false;
  std::optional<double> failed_at_;
  int64_t cause_ = -1;
};

}  // namespace

int launch(const LaunchConfig& config) {
  Signals signals;
  for (int64_t restarts = 0;; ++restarts) {
    Job job(config, signals);
    const int code = job.run();
    if (config.max_restarts == 0 || !job.may_start_again()) return code;
    if (restarts == config.max_restarts) {
      say(cat("gives up after ", restarts, restarts == 1 ? " restart." : " restarts."));
      return code;
    }
    say(cat("restart ", restarts + 1, " of ", config.max_restarts, ": all ranks are started again."));
  }
}

}  // namespace hadal
