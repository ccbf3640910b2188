#include "hadal/train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {

namespace fs = std::filesystem;

RunFolder::RunFolder(fs::path path) : path_(std::move(path)) {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error)
    throw Error(ErrorCode::kUnavailable, cat("[train.run] cannot create the run folder ", path_.string(),
                                             ": ", error.message(), ". Choose another folder."));
  const fs::path file = path_ / "run.lock";
  lock_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0)
    throw Error(ErrorCode::kUnavailable, cat("[train.run] cannot write to the run folder: ", file.string(),
                                             ": ", std::strerror(errno), ". Choose another folder."));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    char holder[24] = {};
    const ssize_t got = ::pread(lock_, holder, sizeof holder - 1, 0);
    ::close(lock_);
    throw Error(ErrorCode::kUnavailable, cat("[train.run] ", path_.string(), " is in use by process ",
                                             got > 0 ? std::string(holder, std::strcspn(holder, "\n")) : "?",
                                             ". Wait for it, stop it, or choose another folder."));
  }
  const std::string mine = cat(::getpid(), "\n");
  if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, mine.data(), mine.size(), 0) < 0) {
    // Only the number in the message of others is lost.
  }
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);  // and with it the lock
}

bool RunFolder::has_checkpoints() const {
  if (!fs::is_directory(checkpoints())) return false;
  for (const auto& entry : fs::directory_iterator(checkpoints()))
    if (entry.path().filename().string().find("step-") != std::string::npos) return true;
  return false;
}

void RunFolder::discard() {
  std::error_code error;
  for (const char* name :
       {"checkpoints", "tensorboard", "metrics.jsonl", "timing.jsonl", "completions.jsonl", "config.toml"}) {
    fs::remove_all(path_ / name, error);
    if (error)
      throw Error(ErrorCode::kUnavailable,
                  cat("[train.run] cannot remove ", (path_ / name).string(), ": ", error.message(), "."));
  }
}

void RunFolder::settle_config(const TrainConfig& config, bool force,
                              const std::function<void(const std::string&)>& note) {
  const auto changes = [&](const fs::path& file) { return result_changes(load_train_config(file), config); };
  settle_config(train_config_toml(config), changes, force, note);
}

void RunFolder::settle_config(const std::string& toml,
                              const std::function<std::vector<std::string>(const fs::path&)>& changes,
                              bool force, const std::function<void(const std::string&)>& note) {
  const fs::path file = path_ / "config.toml";
  if (has_checkpoints() && fs::exists(file)) {
    std::string all;
    for (const std::string& change : changes(file)) all += (all.empty() ? "" : "; ") + change;
    if (!all.empty() && !force)
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[train.resume] ", path_.string(), " holds a run with another configuration: ", all,
                      ". Take that one, or --force-config, or --restart, or another folder."));
    if (!all.empty()) note(cat("the configuration has changed: ", all));
  }
  write_file(file, toml);
}

}  // namespace hadal
