// Files: whole reads, read-only maps, and writes that are either complete or not there.
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "hadal/error.h"

namespace hadal {

// The Error of a system call on a file that failed with `error_number` (errno): its code, the path, a remedy.
Error file_error(const char* op, const std::filesystem::path& path, int error_number);

// Reads a whole file. Throws not_found, unavailable (permission, I/O), exhausted (larger than max_bytes).
std::string read_file(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 32);

// A read-only map of a regular file; empty files give an empty span. Movable.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Writes beside the target under a temporary name; commit() does fsync, rename, fsync of the folder.
// Destroyed without commit, it removes the temporary file: a reader sees the old file or the whole new one.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;

  void write(const void* data, size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

// AtomicFile with the whole content at hand.
void write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace hadal
