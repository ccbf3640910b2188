#include "hadal/sandbox/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>

#include "hadal/base/clock.h"
#include "hadal/sandbox/box_cgroup.h"
#include "hadal/sandbox/box_fault.h"
#include "hadal/sandbox/box_files.h"
#include "hadal/sandbox/box_process.h"
#include "hadal/sandbox/descriptor.h"
#include "hadal/sandbox/process_tree.h"
#include "hadal/sandbox/user_ids.h"

namespace hadal {
namespace {

constexpr double kBuildSeconds = 20;     // for the walls, before the program's time begins
constexpr double kSampleSeconds = 0.01;  // between two looks at memory and CPU time

void write_proc(pid_t pid, const char* file, const std::string& text) {
  const std::string path = "/proc/" + std::to_string(pid) + "/" + file;
  const Descriptor fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  must(fd.get(), "open " + path);
  must(::write(fd.get(), text.data(), text.size()), "write \"" + text + "\" to " + path);
}

std::string own_uid_map() {
  std::stringstream text;
  text << std::ifstream("/proc/self/uid_map").rdbuf();
  return text.str();
}

// A file in memory, open for reading only: the program's stdin.
Descriptor sealed_input(const std::string& text) {
  const Descriptor file(::memfd_create("input", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  must(file.get(), "make the input");
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(file.get(), text.data() + done, text.size() - done);
    must(n, "write the input");
    done += static_cast<size_t>(n);
  }
  must(::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE),
       "seal the input");
  Descriptor reader(::open(("/proc/self/fd/" + std::to_string(file.get())).c_str(), O_RDONLY | O_CLOEXEC));
  must(reader.get(), "open the input");
  return reader;
}

// stdout or stderr of the program: handed on as it comes, bounded.
class Output {
 public:
  Output(FrameKind kind, int64_t max_bytes) : kind_(kind), left_(max_bytes) {
    int ends[2];
    must(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), "make a pipe");
    reader_ = Descriptor(ends[0]), writer_ = Descriptor(ends[1]);
    // The program's end waits when the pipe is full, as pipes do. The two ends have flags of their own.
    must(::fcntl(ends[1], F_SETFL, 0), "make a pipe wait");
  }
  int writer() const { return writer_.get(); }
  void close_writer() { writer_.close(); }
  int reader() const { return reader_.get(); }
  bool cut() const { return cut_; }

  // Reads what is there, at most so much that the supervisor looks at its clock again soon.
  void read() {
    char buffer[1 << 16];
    for (int i = 0; i < 16 && reader_.open(); ++i) {
      const ssize_t n = ::read(reader_.get(), buffer, sizeof buffer);
      if (n < 0) return;
      if (n == 0) return reader_.close();
      const auto kept = static_cast<size_t>(std::min<int64_t>(n, left_));
      cut_ |= kept < static_cast<size_t>(n);
      left_ -= static_cast<int64_t>(kept);
      if (kept > 0) send_frame(kBoxSocket, kind_, {buffer, kept});
    }
  }

 private:
  FrameKind kind_;
  int64_t left_;
  bool cut_ = false;
  Descriptor reader_, writer_;
};

class Supervisor {
 public:
  explicit Supervisor(BoxRequest request)
      : request_(std::move(request)),
        limits_(request_.spec.limits),
        cgroup_(request_.cgroup, limits_),
        out_(FrameKind::kOut, limits_.output_bytes),
        err_(FrameKind::kErr, limits_.output_bytes) {}
  ~Supervisor() { end_box(); }

  SandboxResult run() {
    start();
    while (!ended_ && result_.detail.empty()) step();
    end_box();
    for (Output* output : {&out_, &err_})  // all writers are dead: this ends
      while (output->reader() >= 0) output->read();
    judge();
    return result_;
  }

 private:
  void start() {
    int pair[2];
    must(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "make a socket");
    notes_ = Descriptor(pair[0]);
    const Descriptor box_notes(pair[1]);
    const Descriptor input = sealed_input(request_.spec.input);
    const BoxPipes pipes{box_notes.get(), input.get(), out_.writer(), err_.writer()};
    init_ = static_cast<pid_t>(
        ::syscall(SYS_clone, kBoxNamespaces | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
    must(init_, "make namespaces (clone)");
    if (init_ == 0) {
      notes_.close();
      ::close(kBoxSocket);
      box_main(request_, pipes);
    }
    out_.close_writer(), err_.close_writer();
    const uid_t user = box_user(::geteuid(), static_cast<uint32_t>(::getpid()), own_uid_map());
    const std::string inside = std::to_string(kBoxUid) + " ";
    write_proc(init_, "setgroups", "deny");
    write_proc(init_, "uid_map", inside + std::to_string(user) + " 1");
    write_proc(init_, "gid_map", inside + std::to_string(::geteuid() == 0 ? user : ::getegid()) + " 1");
    cgroup_.add(init_);
    send_note(BoxNote::kMapped);
    begin_ = now_seconds();
  }

  void send_note(BoxNote note) { ::send(notes_.get(), &note, 1, MSG_NOSIGNAL); }

  // Waits for something to happen, at most until the next look at the clock.
  void step() {
    pollfd watched[] = {{kBoxSocket, POLLRDHUP, 0},
                        {notes_.get(), POLLIN, 0},
                        {out_.reader(), POLLIN, 0},
                        {err_.reader(), POLLIN, 0}};
    ::poll(watched, std::size(watched), static_cast<int>(kSampleSeconds * 1000));
    if (watched[0].revents) result_.detail = "cancelled";
    if (watched[2].revents) out_.read();
    if (watched[3].revents) err_.read();
    if (watched[1].revents) receive_note();
    check_limits();
  }

  void receive_note() {
    char body[4096];
    iovec part{body, sizeof body};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part, message.msg_iovlen = 1;
    message.msg_control = space, message.msg_controllen = sizeof space;
    const ssize_t n = ::recvmsg(notes_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      result_.detail = "the first process of the box died";
      return;
    }
    const std::string_view text(body + 1, static_cast<size_t>(n - 1));
    switch (static_cast<BoxNote>(body[0])) {
      case BoxNote::kReady:
        start_clock(message);
        break;
      case BoxNote::kFinished:
        std::memcpy(&end_, text.data(), sizeof end_);
        ended_ = true;
        break;
      default:
        result_.detail = text;
    }
  }

  void start_clock(msghdr& message) {
    int folder = -1;
    if (const cmsghdr* head = CMSG_FIRSTHDR(&message)) std::memcpy(&folder, CMSG_DATA(head), sizeof folder);
    folder_ = Descriptor(folder);
    begin_ = now_seconds();
    running_ = true;
    send_note(BoxNote::kGo);
  }

  void check_limits() {
    const double seconds = now_seconds() - begin_;
    if (!running_) {
      if (seconds > kBuildSeconds) result_.detail = "building the box took too long";
      return;
    }
    if (ended_) return;
    if (seconds > limits_.wall_seconds) stop(SandboxStatus::kTimeout, "wall time is over");
    if (!limits_.cut_output && (out_.cut() || err_.cut())) stop(SandboxStatus::kOutput, "too much output");
    if (seconds >= next_sample_) sample(seconds);
  }

  void sample(double seconds) {
    next_sample_ = seconds + kSampleSeconds;
    const TreeUse use = use_of_tree(init_);
    result_.peak_bytes = std::max(result_.peak_bytes, use.resident_bytes);
    cpu_sampled_ = std::max(cpu_sampled_, use.cpu_seconds);
    if (use.resident_bytes > limits_.memory_bytes) stop(SandboxStatus::kMemory, "too much memory");
    if (use.cpu_seconds > limits_.cpu_seconds) stop(SandboxStatus::kTimeout, "CPU time is over");
  }

  void stop(SandboxStatus status, const char* why) {
    if (!result_.detail.empty()) return;
    result_.status = status;
    result_.detail = why;
  }

  // When the first process of a pid namespace dies, the kernel ends all others and waits for them before it
  // lets us have its status.
  void end_box() {
    if (init_ <= 0) return;
    ::kill(init_, SIGKILL);
    while (::waitpid(init_, nullptr, 0) < 0 && errno == EINTR) {
    }
    init_ = -1;
  }

  void judge() {
    result_.wall_seconds = now_seconds() - begin_;
    result_.cpu_seconds = std::max(cpu_sampled_, end_.cpu_seconds);
    result_.peak_bytes = std::max(result_.peak_bytes, end_.peak_bytes);
    result_.peak_bytes = std::max(result_.peak_bytes, cgroup_.peak_bytes());
    if (cgroup_.out_of_memory()) {
      result_.status = SandboxStatus::kMemory;
      result_.detail = "too much memory";
    }
    result_.out_cut = out_.cut(), result_.err_cut = err_.cut();
    if (ended_ && result_.detail.empty()) judge_end();
    if (ended_ && folder_.open())
      for (const std::string& name : request_.spec.artefacts)
        if (std::string content; read_artefact(folder_.get(), name, request_.spec.artefact_bytes, content))
          result_.artefacts[name] = std::move(content);
  }

  void judge_end() {
    const int status = end_.wait_status;
    if (WIFEXITED(status)) result_.exit_code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) result_.signal = WTERMSIG(status);
    result_.status = result_.signal != 0      ? SandboxStatus::kSignal
                     : result_.exit_code != 0 ? SandboxStatus::kNonZero
                                              : SandboxStatus::kOk;
    if (!limits_.cut_output && (out_.cut() || err_.cut())) stop(SandboxStatus::kOutput, "too much output");
    if (result_.peak_bytes > limits_.memory_bytes && result_.status != SandboxStatus::kOk)
      stop(SandboxStatus::kMemory, "too much memory");
    if (result_.cpu_seconds > limits_.cpu_seconds) stop(SandboxStatus::kTimeout, "CPU time is over");
    if (result_.signal == SIGSYS) stop(SandboxStatus::kViolation, "a forbidden system call");
    if (result_.signal == SIGXFSZ) stop(SandboxStatus::kOutput, "a file grew too large");
    if (result_.signal != 0) stop(SandboxStatus::kSignal, strsignal(result_.signal));
  }

  BoxRequest request_;
  const SandboxLimits limits_;
  BoxCgroup cgroup_;
  Output out_, err_;
  Descriptor notes_, folder_;
  pid_t init_ = -1;
  double begin_ = 0, next_sample_ = kSampleSeconds, cpu_sampled_ = 0;
  bool running_ = false, ended_ = false;
  BoxEnd end_;
  SandboxResult result_;
};

}  // namespace

int supervise() {
  ::syscall(SYS_close_range, kBoxSocket + 1, ~0U, 0);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGCHLD, SIG_DFL);
  FrameKind kind;
  std::string body;
  if (!receive_frame(kBoxSocket, kind, body) || kind != FrameKind::kRequest) return 2;
  SandboxResult result;
  try {
    result = Supervisor(decode_request(body)).run();
  } catch (const std::exception& e) {
    result.detail = e.what();
  }
  return send_frame(kBoxSocket, FrameKind::kResult, encode(result)) ? 0 : 1;
}

}  // namespace hadal
