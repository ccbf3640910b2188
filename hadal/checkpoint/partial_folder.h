// Where a conversion writes: checked before it starts, whole or absent when it ends.
#pragma once
#include <cstdint>
#include <filesystem>

namespace hadal {

// A folder beside the destination that vanishes unless moved into place. Removes what conversions to the same
// destination left that were killed. Throws unavailable.
class PartialFolder {
 public:
  explicit PartialFolder(const std::filesystem::path& destination);
  ~PartialFolder();
  PartialFolder(const PartialFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  // Replaces the destination; the old one is put back if that fails.
  void move_into_place();

 private:
  void remove_abandoned() const;
  std::filesystem::path destination_, path_;
  int lock_ = -1;
};

// The destination as an absolute path without a trailing slash. Throws invalid_argument if it may not be
// written.
std::filesystem::path checked_destination(const std::filesystem::path& source,
                                          const std::filesystem::path& given, bool overwrite);

// The nearest folder above that exists.
std::filesystem::path existing_parent(std::filesystem::path path);

// Throws exhausted, with both numbers, if the file system of `folder` has less than `bytes` free.
void require_space(const std::filesystem::path& folder, int64_t bytes);

}  // namespace hadal
