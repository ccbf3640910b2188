// A file of JSON lines that survives crashes.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string_view>

namespace hadal {

// Appends lines to one file so that a crash costs at most the line being written: each is a single write() in
// append mode; a torn last line (without its line break) is cut when the file is opened again; a write that
// fails half-way is taken back. Held open under a lock: a second writer is refused (unavailable).
// Errors: not_found (no such folder), unavailable (permission, in use, I/O), exhausted (disk full).
class LineFile {
 public:
  explicit LineFile(std::filesystem::path path);
  ~LineFile();
  LineFile(LineFile&& other) noexcept;
  LineFile& operator=(LineFile&&) = delete;

  // `line` has no line break. Its step (-1: it has none) never falls from line to line: internal.
  void append(std::string_view line, int64_t step = -1);
  void sync();  // to the disk itself (fsync)
  // Cuts the file where the first line with "step" > step begins. Throws corrupt naming file and line.
  void truncate_after(int64_t step);
  bool empty() const { return size_ == 0; }
  int64_t last_step() const { return last_step_; }  // of the last line that has one; -1: none
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  int64_t size_ = 0;
  int64_t last_step_ = -1;
};

}  // namespace hadal
