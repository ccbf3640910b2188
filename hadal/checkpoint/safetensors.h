// One safetensors file: 8 bytes little-endian header length, JSON header, tensor data back to back.
// Format: https://github.com/huggingface/safetensors (README, "Format"). Every rule of it is checked.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "hadal/base/file.h"
#include "hadal/checkpoint.h"

namespace hadal {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;

std::optional<ElementType> parse_element_type(std::string_view name);
std::vector<std::string> element_type_names();

// A header as far as it can be understood. `problems` are whole error texts; empty: the file is sound.
struct SafetensorsScan {
  struct Entry {
    StoredTensor tensor;    // bytes is empty if the range lies outside the file
    std::string type_name;  // as written
    bool type_known = false;
    uint64_t begin = 0, end = 0;  // relative to the data section
  };
  std::vector<Entry> entries;  // by begin, then end
  std::map<std::string, std::string> metadata;
  std::vector<std::string> problems;
};

// Never throws on bad content. `source` names the file in the problems.
SafetensorsScan scan_safetensors(std::span<const std::byte> file, const std::string& source);

class SafetensorsFile {
 public:
  // Throws corrupt with the first problem; not_found, unavailable from the file system.
  explicit SafetensorsFile(const std::filesystem::path& path, size_t shard = 0);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // by position in the file
  const StoredTensor* find(std::string_view name) const;                 // nullptr if absent
  const StoredTensor& at(std::string_view name) const;                   // throws not_found
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  MappedFile file_;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;  // keys point into tensors_
  std::map<std::string, std::string> metadata_;
};

// What a file will contain; the header is written before the data, so shapes come first.
struct TensorHead {
  std::string name;
  ElementType type = ElementType::kF32;
  std::vector<int64_t> shape;
  int64_t num_bytes() const;
};

// Streams one file: heads first, then exactly their bytes in the order of heads(). The data section starts at
// a multiple of 64 and tensors of a multiple of 64 bytes come first, in the order given; then the others,
// larger elements first. So every tensor is aligned to its elements and all but odd ones to a cache line.
// Without finish() nothing appears.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorHead> heads,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  const std::vector<TensorHead>& heads() const { return heads_; }
  void write(const void* data, size_t size);
  void finish();  // checks that all bytes came; fsync, rename

 private:
  std::vector<TensorHead> heads_;
  uint64_t missing_ = 0;  // bytes still to come
  AtomicFile file_;
};

// Groups heads into files of at most max_bytes (a larger tensor gets a file of its own), in order.
std::vector<std::vector<TensorHead>> plan_shards(const std::vector<TensorHead>& heads, int64_t max_bytes);

// Writes FOLDER/model.safetensors, or shards and the index. `fill(head, writer)` is called for each tensor in
// file order and writes its head.num_bytes() bytes. Throws invalid_argument on duplicate names.
void write_checkpoint(const std::filesystem::path& folder, const std::vector<TensorHead>& heads,
                      int64_t max_shard_bytes,
                      const std::function<void(const TensorHead&, SafetensorsWriter&)>& fill);

}  // namespace hadal
