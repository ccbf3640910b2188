#include "hadal/report/line_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "hadal/base/check.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

// "step" of the line that begins at `begin`; none: it has no such field. Throws corrupt naming the line.
std::optional<int64_t> step_of(std::string_view text, size_t begin, const std::filesystem::path& path) {
  const size_t end = text.find('\n', begin);
  const auto source = [&] {
    return cat(path.string(), " line ", 1 + std::count(text.begin(), text.begin() + begin, '\n'));
  };
  const std::string_view line = text.substr(begin, end - begin);
  Json value;
  try {
    value = parse_json(line, "line");
  } catch (const Error&) {
    parse_json(line, source());  // again, for the error with the place, which takes time to count
  }
  if (!value.is_object()) throw Error(ErrorCode::kCorrupt, cat("[report.lines] ", source(), ": no object"));
  const auto found = value.find("step");
  if (found == value.end()) return std::nullopt;
  if (!found->is_number_integer())
    throw Error(ErrorCode::kCorrupt, cat("[report.lines] ", source(), ": \"step\" is no integer"));
  return found->get<int64_t>();
}

// Calls visit(begin of line, its step) from the last line back, until it returns false.
template <class Visit>
void lines_backwards(std::string_view text, const std::filesystem::path& path, Visit visit) {
  size_t end = text.size();  // behind the line break
  while (end > 0) {
    const size_t before = end >= 2 ? text.rfind('\n', end - 2) : std::string_view::npos;
    const size_t begin = before == std::string_view::npos ? 0 : before + 1;
    if (!visit(begin, step_of(text, begin, path))) return;
    end = begin;
  }
}

int64_t find_last_step(std::string_view text, const std::filesystem::path& path) {
  int64_t last = -1;
  lines_backwards(text, path, [&](size_t, std::optional<int64_t> step) {
    if (step) last = *step;
    return !step;
  });
  return last;
}

}  // namespace

LineFile::LineFile(std::filesystem::path path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw file_error("open", path_, errno);
  try {
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      throw Error(ErrorCode::kUnavailable, cat("[report.open] ", path_.string(),
                                               ": another process writes it. Stop that run or choose "
                                               "another folder."));
    const MappedFile file(path_);
    const size_t whole = file.text().rfind('\n') + 1;  // npos + 1 is 0
    if (whole < file.text().size() && ::ftruncate(fd_, static_cast<off_t>(whole)) != 0)
      throw file_error("truncate", path_, errno);
    size_ = static_cast<int64_t>(whole);
    last_step_ = find_last_step(file.text().substr(0, whole), path_);
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

LineFile::~LineFile() {
  if (fd_ >= 0) ::close(fd_);
}

LineFile::LineFile(LineFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      size_(other.size_),
      last_step_(other.last_step_) {}

void LineFile::append(std::string_view line, int64_t step) {
  HADAL_CHECK(line.find('\n') == std::string_view::npos) << "a line of " << path_.string();
  HADAL_CHECK(step < 0 || step >= last_step_)
      << path_.string() << " is at step " << last_step_ << " already, got step " << step
      << "; a resumed run calls truncate_after first";
  const std::string whole = std::string(line) + '\n';
  ssize_t put;
  do put = ::write(fd_, whole.data(), whole.size());
  while (put < 0 && errno == EINTR);
  if (put != static_cast<ssize_t>(whole.size())) {
    const int error = put < 0 ? errno : ENOSPC;
    if (put > 0 && ::ftruncate(fd_, size_) != 0) throw file_error("truncate", path_, errno);
    throw file_error("write", path_, error);
  }
  size_ += put;
  if (step >= 0) last_step_ = step;
}

void LineFile::sync() {
  if (::fsync(fd_) != 0) throw file_error("sync", path_, errno);
}

void LineFile::truncate_after(int64_t step) {
  size_t cut = static_cast<size_t>(size_);
  int64_t last = -1;
  {
    const MappedFile file(path_);
    lines_backwards(file.text().substr(0, cut), path_, [&](size_t begin, std::optional<int64_t> at) {
      if (at && *at <= step) last = *at;
      if (at && *at > step) cut = begin;
      return last < 0;
    });
  }
  if (static_cast<int64_t>(cut) < size_ && ::ftruncate(fd_, static_cast<off_t>(cut)) != 0)
    throw file_error("truncate", path_, errno);
  size_ = static_cast<int64_t>(cut);
  last_step_ = last;
}

}  // namespace hadal
