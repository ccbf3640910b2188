#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "hadal/base/clock.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/recipe.h"
#include "hadal/error.h"
#include "hadal/report/line_file.h"
#include "hadal/report/summary.h"

namespace hadal {
namespace {

// The child that signals to stop are passed on to; it saves and ends, and then so do we.
volatile pid_t running_child = 0;
volatile sig_atomic_t stopped = 0;

void pass_on(int number) {
  stopped = 1;
  if (running_child > 0) ::kill(running_child, number);
}

class SignalsPassedOn {
 public:
  SignalsPassedOn() {
    struct sigaction action {};
    action.sa_handler = pass_on;
    ::sigaction(SIGINT, &action, &before_[0]);
    ::sigaction(SIGTERM, &action, &before_[1]);
  }
  ~SignalsPassedOn() {
    ::sigaction(SIGINT, &before_[0], nullptr);
    ::sigaction(SIGTERM, &before_[1], nullptr);
  }
  SignalsPassedOn(const SignalsPassedOn&) = delete;

 private:
  struct sigaction before_[2]{};
};

[[noreturn]] void become(const RecipeCommand& command, const std::string& partial) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  ::setpgid(0, 0);  // a terminal's Ctrl-C comes from us alone, once
  if (!command.out.empty()) {
    const int fd = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || ::dup2(fd, STDOUT_FILENO) < 0) ::_exit(126);
  }
  std::vector<char*> argv{const_cast<char*>("hadal")};
  for (const std::string& one : command.arguments) argv.push_back(const_cast<char*>(one.c_str()));
  argv.push_back(nullptr);
  ::execv("/proc/self/exe", argv.data());
  ::_exit(127);
}

// Its exit code, 128 + the number of the signal that ended it.
int run_command(const RecipeCommand& command, StageRecord& record) {
  const std::filesystem::path out = command.out;
  if (!out.empty()) std::filesystem::create_directories(out.parent_path());
  const std::string partial = command.out + ".part";
  std::fflush(nullptr);
  const pid_t pid = ::fork();
  if (pid < 0)
    throw Error(ErrorCode::kUnavailable, cat("[cli.recipe] cannot fork: ", std::strerror(errno), "."));
  if (pid == 0) become(command, partial);
  running_child = pid;
  int status = 0;
  rusage use{};
  while (::wait4(pid, &status, 0, &use) < 0 && errno == EINTR) {
  }
  running_child = 0;
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  record.cpu_seconds += seconds(use.ru_utime) + seconds(use.ru_stime);
  record.peak_bytes = std::max(record.peak_bytes, static_cast<int64_t>(use.ru_maxrss) * 1024);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (!out.empty() && code == 0) std::filesystem::rename(partial, out);
  return code;
}

std::string line_of(const RecipeCommand& command) {
  std::string line = "hadal";
  for (const std::string& one : command.arguments) line += " " + one;
  return command.out.empty() ? line : line + " > " + command.out;
}

std::vector<std::string> lines_of(const RecipeStage& stage) {
  std::vector<std::string> lines;
  for (const RecipeCommand& command : stage.commands) lines.push_back(line_of(command));
  return lines;
}

class StageLog {
 public:
  explicit StageLog(const std::filesystem::path& folder)
      : file_(folder / "stages.jsonl"), seen_(read_stages(folder)) {}

  bool done(const RecipeStage& stage) const {
    for (const StageRecord& one : seen_)
      if (one.stage == stage.name && one.done) {
        if (one.commands == lines_of(stage)) return true;
        throw Error(ErrorCode::kInvalidArgument,
                    cat("[cli.recipe] ", file_.path().string(), ": the stage ", stage.name,
                        " was done with other commands. Give the same flags, or another --out."));
      }
    return false;
  }

  void add(const StageRecord& one) {
    const Json line{{"stage", one.stage},
                    {"title", one.title},
                    {"commands", one.commands},
                    {"seconds", one.seconds},
                    {"cpu_seconds", one.cpu_seconds},
                    {"peak_bytes", one.peak_bytes},
                    {"done", one.done}};
    file_.append(dump_json(line));
    seen_.push_back(one);
  }

 private:
  LineFile file_;
  std::vector<StageRecord> seen_;
};

// Those that the commands' files below `out` lie in.
void create_folders(const Recipe& recipe, const std::filesystem::path& out) {
  std::filesystem::create_directories(out);
  for (const RecipeStage& stage : recipe.stages)
    for (const RecipeCommand& command : stage.commands)
      for (const std::string& one : command.arguments)
        if (one.starts_with(out.string() + "/"))
          std::filesystem::create_directories(std::filesystem::path(one).parent_path());
}

// 0: done.
int run_stage(const RecipeStage& stage, StageLog& log) {
  StageRecord record{.stage = stage.name, .title = stage.title, .commands = lines_of(stage)};
  const double start = now_seconds();
  int code = 0;
  for (const RecipeCommand& command : stage.commands) {
    std::fprintf(stderr, "$ %s\n", line_of(command).c_str());
    code = stopped ? 75 : run_command(command, record);
    if (code != 0) break;
  }
  record.seconds = now_seconds() - start, record.done = code == 0;
  log.add(record);
  if (code != 0)
    std::fprintf(stderr, "hadal: the stage \"%s\" %s. The same command goes on here.\n", stage.title.c_str(),
                 code == 75 ? "was stopped" : cat("failed with exit code ", code).c_str());
  return code;
}

}  // namespace

std::vector<Json> read_json_lines(const std::filesystem::path& file) {
  std::vector<Json> out;
  if (!std::filesystem::exists(file)) return out;
  std::istringstream lines(read_file(file));
  for (std::string line; std::getline(lines, line);) out.push_back(parse_json(line, file.string()));
  return out;
}

std::vector<StageRecord> read_stages(const std::filesystem::path& folder) {
  std::vector<StageRecord> out;
  for (const Json& json : read_json_lines(folder / "stages.jsonl"))
    out.push_back({.stage = json.at("stage"),
                   .title = json.at("title"),
                   .commands = json.at("commands"),
                   .seconds = json.at("seconds"),
                   .cpu_seconds = json.at("cpu_seconds"),
                   .peak_bytes = json.at("peak_bytes"),
                   .done = json.at("done")});
  return out;
}

int run_recipe(const Recipe& recipe, const RecipeInputs& inputs) {
  create_folders(recipe, inputs.out);
  StageLog log(inputs.out);
  const SignalsPassedOn signals;
  double left = recipe.minutes();
  for (size_t i = 0; i < recipe.stages.size(); ++i) {
    const RecipeStage& stage = recipe.stages[i];
    const bool done = log.done(stage);
    std::fprintf(stderr, "\n[%zu/%zu] %s: %s; %s left in all\n", i + 1, recipe.stages.size(),
                 stage.title.c_str(),
                 done ? "done before" : cat("about ", duration_text(60 * stage.minutes)).c_str(),
                 cat("about ", duration_text(60 * left)).c_str());
    left -= stage.minutes;
    if (done) continue;
    if (const int code = run_stage(stage, log); code != 0) return code;
  }
  return 0;
}

}  // namespace hadal
