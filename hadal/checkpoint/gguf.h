// GGUF files, version 3: metadata, tensor list, tensor data; little-endian. Format: docs/gguf.md of the ggml
// project. Reading checks every length against the file before it is used. No tensor and no key is given a
// meaning here.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "hadal/base/file.h"

namespace hadal {

// The tensor types hadal reads and writes; the numbers are the file's.
enum class GgufType : uint32_t { kF32 = 0, kF16 = 1, kQ8_0 = 8, kBF16 = 30 };
const char* name(GgufType type);
// Bytes of n values in a row. Q8_0: blocks of 32 values, an F16 scale and 32 signed bytes. REQUIRES n to be
// whole blocks.
int64_t gguf_row_bytes(GgufType type, int64_t n);
constexpr int64_t kQ8Block = 32;

// n values; REQUIRES whole blocks.
void gguf_to_f32(GgufType type, const std::byte* from, float* out, int64_t n);
void gguf_from_f32(GgufType type, const float* x, std::byte* out, int64_t n);

// Integers of all widths, floats, bool, text, and lists of those.
using GgufValue = std::variant<int64_t, double, bool, std::string, std::vector<int64_t>, std::vector<double>,
                               std::vector<std::string>>;

struct GgufTensor {
  std::string name;
  uint32_t type = 0;           // as in the file; known_type() knows it
  std::vector<int64_t> shape;  // outermost first: the reverse of the file's order
  std::span<const std::byte> bytes;
  int64_t num_values() const;
  std::optional<GgufType> known_type() const;  // nullopt: its bytes are not understood, and empty
};

class GgufFile {
 public:
  // Throws not_found, unavailable, corrupt ("[gguf.read] FILE: byte N: ...").
  explicit GgufFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find(const std::string& name) const;
  const GgufValue* value(const std::string& key) const;  // nullptr: absent
  // Throw corrupt if the key has another type; `absent` nullopt: the key is required (invalid_config).
  int64_t integer(const std::string& key, std::optional<int64_t> absent = std::nullopt) const;
  double real(const std::string& key, std::optional<double> absent = std::nullopt) const;
  bool boolean(const std::string& key, bool absent) const;
  std::string text(const std::string& key, std::optional<std::string> absent = std::nullopt) const;

 private:
  template <class Value>
  const Value* typed(const std::string& key, bool required, const char* need) const;

  MappedFile file_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
  std::unordered_map<std::string, GgufValue> values_;
};

// What a file will contain, before its bytes.
class GgufWriter {
 public:
  void add_u32(const std::string& key, int64_t value);
  void add_f32(const std::string& key, double value);
  void add_bool(const std::string& key, bool value);
  void add_text(const std::string& key, const std::string& value);
  void add_i32s(const std::string& key, const std::vector<int64_t>& values);
  void add_texts(const std::string& key, const std::vector<std::string>& values);
  // shape outermost first.
  void add_tensor(const std::string& name, GgufType type, const std::vector<int64_t>& shape);
  int64_t num_bytes() const;  // of the whole file

  // Calls fill(i, sink) for each tensor in the order added; it hands its bytes to `sink`, in pieces. The file
  // appears whole or not at all.
  using Sink = std::function<void(const void* data, size_t size)>;
  void write(const std::filesystem::path& path, const std::function<void(size_t, const Sink&)>& fill) const;

 private:
  std::string metadata_, tensors_;
  std::vector<int64_t> sizes_;
  int64_t num_values_ = 0, data_bytes_ = 0;
};

}  // namespace hadal
