#include "hadal/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {

Error file_error(const char* op, const std::filesystem::path& path, int error) {
  const ErrorCode code = error == ENOENT || error == ENOTDIR                     ? ErrorCode::kNotFound
                         : error == ENOSPC || error == EDQUOT || error == ENOMEM ? ErrorCode::kExhausted
                                                                                 : ErrorCode::kUnavailable;
  const char* remedy = error == ENOENT   ? ". Check the path."
                       : error == EACCES ? ". Check the permissions."
                       : error == EROFS  ? ". The file system is read-only; choose another folder."
                       : error == ENOSPC ? ". Free some space or choose another folder."
                                         : ".";
  return Error(code, cat("[file.", op, "] ", path.string(), ": ", std::strerror(error), remedy));
}

namespace {

[[noreturn]] void fail(const char* op, const std::filesystem::path& path, int error) {
  throw file_error(op, path, error);
}

// Opens a regular file for reading and gives its size.
int open_regular(const std::filesystem::path& path, size_t* size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open", path, errno);
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw Error(ErrorCode::kInvalidArgument, cat("[file.open] ", path.string(), ": not a regular file."));
  }
  *size = static_cast<size_t>(info.st_size);
  return fd;
}

}  // namespace

std::string read_file(const std::filesystem::path& path, size_t max_bytes) {
  size_t size = 0;
  const int fd = open_regular(path, &size);
  if (size > max_bytes) {
    ::close(fd);
    throw Error(ErrorCode::kExhausted, cat("[file.read] ", path.string(), ": ", size,
                                           " bytes, more than the ", max_bytes, " allowed here."));
  }
  std::string content(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(fd, content.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      ::close(fd);
      fail("read", path, error);
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  ::close(fd);
  content.resize(done);
  return content;
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const int fd = open_regular(path, &size_);
  if (size_ > 0) {
    void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    ::close(fd);
    if (data == MAP_FAILED) fail("map", path, error);
    data_ = static_cast<const std::byte*>(data);
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  temporary_ = path_;
  temporary_ += cat(".partial-", ::getpid());
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail("create", path_, errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t size) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t put = ::write(fd_, from, size);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail("write", path_, errno);
    from += put;
    size -= static_cast<size_t>(put);
  }
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail("sync", path_, errno);
  const int closed = ::close(fd_);
  fd_ = -1;
  if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    fail("rename", path_, error);
  }
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  const int dir = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir >= 0) {
    ::fsync(dir);
    ::close(dir);
  }
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

}  // namespace hadal
