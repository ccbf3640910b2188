// Checkpoints: open, inspect, convert. PUBLIC, torch-free.
//
// A checkpoint is a folder with model.safetensors or with shards and model.safetensors.index.json, or one
// .safetensors file, or the index itself. Reading is a memory map: opening costs the headers only.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "hadal/config.h"

namespace hadal {

// Every element type of the safetensors format that occupies whole bytes.
enum class ElementType {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64
};
const char* name(ElementType type);    // as in the file: "BF16", "F8_E4M3"
int64_t size_bytes(ElementType type);  // of one element
ElementType element_type(DType dtype);

// One stored tensor. `bytes` points into the map and lives as long as the Checkpoint (or SafetensorsFile); it
// is row-major, little-endian and may be misaligned, so read it through hadal/checkpoint/numbers.h or memcpy.
struct StoredTensor {
  std::string name;
  ElementType type = ElementType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  uint64_t file_offset = 0;  // of bytes[0]
  size_t shard = 0;          // index into Checkpoint::files()
  int64_t num_values() const;
};

class SafetensorsFile;

// An opened checkpoint. Copies share the maps. Thread-safe to read.
class Checkpoint {
 public:
  // All tensors, in shard order and file order.
  const std::vector<const StoredTensor*>& tensors() const { return tensors_; }
  const StoredTensor* find(const std::string& name) const;  // nullptr if absent
  // Throws not_found with the nearest name.
  const StoredTensor& at(const std::string& name) const;
  std::filesystem::path file(size_t shard) const;
  size_t num_files() const;
  // __metadata__ of all files, the first one winning.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // As given to open_checkpoint, for messages; and the folder that holds the files.
  const std::filesystem::path& path() const { return path_; }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  friend Checkpoint open_checkpoint(const std::filesystem::path& path);
  std::filesystem::path path_, folder_;
  std::shared_ptr<const std::vector<SafetensorsFile>> files_;
  std::vector<const StoredTensor*> tensors_;
  std::unordered_map<std::string_view, const StoredTensor*> by_name_;  // keys are the tensors' names
  std::map<std::string, std::string> metadata_;
};

// Throws not_found, unavailable, corrupt ("[checkpoint.open] FILE: byte N: ...").
Checkpoint open_checkpoint(const std::filesystem::path& path);

struct ConvertOptions {
  DType dtype = DType::kBF16;        // kF8E4M3: as the official checkpoints; kInt8, kInt4: hadal's groups
  bool power_of_two_scales = false;  // FP8 only: scale_fmt "ue8m0"
  int64_t max_shard_bytes = 5'000'000'000;
  bool overwrite = false;   // replace an existing destination
  int64_t num_threads = 0;  // 0: one a core; the result does not depend on it
};

// Writes the model folder `source` to the new folder `destination` in another dtype: weights, config.json
// (only what changes), tokenizer files. The destination appears whole or not at all. Memory: one stripe of a
// tensor. Notes (tensors that are no weight of the model) go to stderr.
// Throws invalid_argument (destination exists), exhausted (disk), and what load_config and open_checkpoint
// throw.
void convert(const std::filesystem::path& source, const std::filesystem::path& destination,
             const ConvertOptions& options);

// GGUF, architecture "deepseek2", which llama.cpp runs. write_gguf: the model folder `source` to one file,
// with its tokenizer; MTP modules are left out (a note on stderr). kQ8_0: norms, router and balance bias stay
// F32. The file appears whole or not at all.
enum class GgufDType { kF32, kBF16, kQ8_0 };
void write_gguf(const std::filesystem::path& source, const std::filesystem::path& destination,
                GgufDType dtype, bool overwrite = false);
// The other way: a file of F32, F16, BF16 and Q8_0 tensors to a model folder with config.json and
// tokenizer.json, in options.dtype kF32, kF16 or kBF16. Throws corrupt ("[gguf.read] FILE: byte N: ..."),
// unsupported, and as convert().
void read_gguf(const std::filesystem::path& source, const std::filesystem::path& destination,
               const ConvertOptions& options);

// What is in a checkpoint, and what is wrong with it.
struct CheckpointReport {
  struct Tensor {
    std::string name, type;  // type as the file says it, also if unknown to hadal
    std::string format;      // "INT8", "INT4": of a U8 matrix with its group scales
    std::vector<int64_t> shape;
    int64_t bytes = 0;
    std::string file;
  };
  struct Total {
    int64_t tensors = 0, values = 0, bytes = 0;
  };
  std::string path;
  std::vector<std::string> files;
  std::vector<Tensor> tensors;           // file order
  std::map<std::string, Total> by_type;  // by format where there is one
  std::map<std::string, std::string> metadata;
  int64_t num_parameters = 0;  // values, without scales and rotary tables; without the padding of INT8 and
                               // INT4 rows if the config was found
  int64_t num_bytes = 0;
  bool has_config = false;            // a config.json was found beside the weights and compared with them
  std::vector<std::string> problems;  // one line each, with byte positions; empty: all is well
};

// Lists what can be listed even if the files are broken; problems say what is wrong and at which byte.
// Throws only not_found / unavailable for the path itself.
CheckpointReport inspect(const std::filesystem::path& path);
std::string report_text(const CheckpointReport& report);
std::string report_json(const CheckpointReport& report);

}  // namespace hadal
