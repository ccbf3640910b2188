#include "hadal/checkpoint/partial_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

// A descriptor that holds the folder's lock until closed, by death too; -1: another process holds it.
int lock(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || ::flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  ::close(fd);
  return -1;
}

}  // namespace

PartialFolder::PartialFolder(const fs::path& destination)
    : destination_(destination),
      path_(destination.parent_path() / cat(".", destination.filename().string(), ".partial-", ::getpid())) {
  remove_abandoned();
  std::error_code error;
  fs::create_directories(path_, error);
  lock_ = lock(path_);
  if (error)
    throw Error(ErrorCode::kUnavailable,
                cat("[checkpoint.convert] cannot create a folder in ", destination.parent_path().string(),
                    ": ", error.message(), ". Choose another destination."));
}

PartialFolder::~PartialFolder() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
  if (lock_ >= 0) ::close(lock_);
}

void PartialFolder::move_into_place() {
  std::error_code error, ignored;
  fs::path old;
  if (fs::exists(destination_, ignored) && !fs::is_empty(destination_, ignored)) {
    old = destination_.parent_path() / cat(".", destination_.filename().string(), ".old-", ::getpid());
    fs::rename(destination_, old, error);
  }
  if (!error) fs::rename(path_, destination_, error);
  if (error) {
    if (!old.empty() && !fs::exists(destination_, ignored)) fs::rename(old, destination_, ignored);
    throw Error(ErrorCode::kUnavailable,
                cat("[checkpoint.convert] cannot move the result to ", destination_.string(), ": ",
                    error.message(), ". Choose another destination."));
  }
  path_.clear();
  if (!old.empty()) fs::remove_all(old, ignored);
}

void PartialFolder::remove_abandoned() const {
  const std::string prefix = cat(".", destination_.filename().string(), ".partial-");
  std::error_code ignored;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(destination_.parent_path(), ignored))
    if (entry.path().filename().string().rfind(prefix, 0) == 0) found.push_back(entry.path());
  for (const fs::path& path : found) {
    const int fd = lock(path);
    if (fd < 0) continue;
    fs::remove_all(path, ignored);
    ::close(fd);
  }
}

// The destination as an absolute path without a trailing slash; throws if it may not be written.
fs::path checked_destination(const fs::path& source, const fs::path& given, bool overwrite) {
  fs::path path = fs::absolute(given).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const auto refuse = [&](const char* why) {
    throw Error(ErrorCode::kInvalidArgument,
                cat("[checkpoint.convert] destination ", given.string(), " ", why));
  };
  std::error_code ignored;
  if (!path.has_filename()) refuse("is not a folder name. Give a new folder.");
  if (fs::exists(path, ignored) && !fs::is_directory(path, ignored)) refuse("is a file. Give a new folder.");
  const fs::path from = fs::weakly_canonical(source, ignored), to = fs::weakly_canonical(path, ignored);
  if (std::mismatch(to.begin(), to.end(), from.begin(), from.end()).first == to.end())
    refuse("holds the source. Give another folder.");
  if (fs::is_directory(path, ignored) && !fs::is_empty(path, ignored) && !overwrite)
    refuse("exists and is not empty. Give a new folder, or allow it to be overwritten.");
  return path;
}

fs::path existing_parent(fs::path path) {
  std::error_code ignored;
  while (!fs::exists(path, ignored) && path.has_relative_path()) path = path.parent_path();
  return path;
}

void require_space(const fs::path& folder, int64_t bytes) {
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  if (error || space.available >= static_cast<uint64_t>(bytes)) return;
  throw Error(ErrorCode::kExhausted,
              cat("[checkpoint.convert] ", folder.string(), " has ",
                  human_bytes(static_cast<int64_t>(space.available)), " free, the result needs ",
                  human_bytes(bytes), ". Free some space or choose another folder."));
}

}  // namespace hadal
