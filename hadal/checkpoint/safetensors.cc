#include "hadal/checkpoint/safetensors.h"
#include "hadal/error.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"

namespace hadal {
namespace {

constexpr const char* kDamaged = " The file is damaged or incomplete: copy or download it again.";

// Reads one header into a SafetensorsScan; collects problems instead of stopping at the first.
class HeaderReader {
 public:
  HeaderReader(std::span<const std::byte> file, const std::string& source) : file_(file), source_(source) {}

  SafetensorsScan read() {
    if (!read_header()) return std::move(scan_);
    for (const auto& [key, value] : root_.items()) {
      if (key == "__metadata__") {
        read_metadata(value);
      } else {
        read_entry(key, value);
      }
    }
    check_layout();
    return std::move(scan_);
  }

 private:
  template <class... Parts>
  void problem(uint64_t byte, const Parts&... parts) {
    scan_.problems.push_back(cat("[checkpoint.open] ", source_, ": byte ", byte, ": ", parts...));
  }

  // The place of `key` in the file, for messages; the header's start if it is written with other escapes.
  uint64_t place(const std::string& key) const {
    const size_t at = header_.find(dump_json(key));
    return 8 + (at == std::string_view::npos ? 0 : at);
  }

  bool read_header() {
    if (file_.size() < 8) {
      problem(file_.size(), "the file ends inside the 8-byte header length: got ", file_.size(), " bytes.",
              kDamaged);
      return false;
    }
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i)
      length = length << 8 | std::to_integer<uint64_t>(file_[static_cast<size_t>(i)]);
    if (length > kMaxHeaderBytes) {
      problem(0, "header length ", length, " is above the format's limit of ", kMaxHeaderBytes,
              ": this is not a safetensors file. Check what was downloaded.");
      return false;
    }
    if (length > file_.size() - 8) {
      problem(0, "header length ", length, ", but only ", file_.size() - 8, " bytes follow.", kDamaged);
      return false;
    }
    header_ = {reinterpret_cast<const char*>(file_.data()) + 8, static_cast<size_t>(length)};
    data_begin_ = 8 + length;
    if (header_.empty() || header_.front() != '{') {
      problem(8, "the header must begin with '{'.", kDamaged);
      return false;
    }
    try {
      root_ = parse_json(header_, source_, 8);
    } catch (const Error& e) {
      const std::string text = e.what();  // "[json] SOURCE: byte N: ..."
      scan_.problems.push_back(
          cat("[checkpoint.open] ", text.substr(text.find(' ') + 1), " (in the header).", kDamaged));
      return false;
    }
    return true;
  }

  void read_metadata(const Json& value) {
    if (!value.is_object()) {
      problem(place("__metadata__"), "__metadata__ is ", dump_json(value), ", need an object of strings.");
      return;
    }
    for (const auto& [key, text] : value.items()) {
      if (text.is_string()) {
        scan_.metadata[key] = text.get<std::string>();
      } else {
        problem(place(key), "__metadata__ field ", key, " is ", dump_json(text), ", need a string.");
      }
    }
  }

  void read_entry(const std::string& key, const Json& value) {
    const auto bad = [&](const auto&... parts) { problem(place(key), "tensor ", key, ": ", parts...); };
    if (!value.is_object())
      return bad("got ", dump_json(value), ", need an object with dtype, shape, data_offsets.");
    for (const auto& [field, unused] : value.items())
      if (field != "dtype" && field != "shape" && field != "data_offsets")
        bad("unknown field ", field, did_you_mean(field, {"dtype", "shape", "data_offsets"}), ".");
    for (const char* field : {"dtype", "shape", "data_offsets"})
      if (!value.contains(field)) return bad(field, " is missing.");

    SafetensorsScan::Entry entry;
    entry.tensor.name = key;
    const Json &dtype = value["dtype"], &shape = value["shape"], &range = value["data_offsets"];
    if (!dtype.is_string()) return bad("dtype is ", dump_json(dtype), ", need a string.");
    entry.type_name = dtype.get<std::string>();
    if (const auto type = parse_element_type(entry.type_name)) {
      entry.tensor.type = *type;
      entry.type_known = true;
    } else {
      bad("dtype ", entry.type_name, " is unknown", did_you_mean(entry.type_name, element_type_names()),
          ". Convert the file with the program that wrote it.");
    }
    if (!shape.is_array()) return bad("shape is ", dump_json(shape), ", need a list of sizes.");
    for (const Json& size : shape) {
      if (!size.is_number_integer() || size.get<int64_t>() < 0)
        return bad("shape has ", dump_json(size), ", need non-negative integers.");
      entry.tensor.shape.push_back(size.get<int64_t>());
    }
    if (!range.is_array() || range.size() != 2)
      return bad("data_offsets is ", dump_json(range), ", need [begin, end].");
    for (const Json& offset : range)
      if (!offset.is_number_integer() || offset.get<int64_t>() < 0)
        return bad("data_offsets has ", dump_json(offset), ", need non-negative integers.");
    entry.begin = range[0].get<uint64_t>();
    entry.end = range[1].get<uint64_t>();
    check_entry(entry);
    scan_.entries.push_back(std::move(entry));
  }

  void check_entry(SafetensorsScan::Entry& entry) {
    StoredTensor& t = entry.tensor;
    const uint64_t data_size = file_.size() - data_begin_, at = data_begin_ + entry.begin;
    t.file_offset = at;
    const auto bad = [&](const auto&... parts) { problem(at, "tensor ", t.name, ": ", parts...); };
    bool fits = entry.begin <= entry.end;
    if (!fits) bad("data_offsets begin ", entry.begin, " after their end ", entry.end, ".", kDamaged);
    if (fits && entry.end > data_size) {
      fits = false;
      bad("data ends at byte ", data_begin_ + entry.end, ", but the file at byte ", file_.size(), ".",
          kDamaged);
    }
    if (!entry.type_known) return;
    int64_t need = size_bytes(t.type);
    bool overflow = false;
    if (std::find(t.shape.begin(), t.shape.end(), 0) != t.shape.end()) need = 0;
    for (const int64_t size : t.shape)
      if (need != 0) overflow = overflow || __builtin_mul_overflow(need, size, &need);
    if (overflow) return bad("shape ", shape_text(t.shape), " does not fit in 64 bits.");
    if (entry.begin <= entry.end && static_cast<uint64_t>(need) != entry.end - entry.begin) {
      bad(entry.type_name, " ", shape_text(t.shape), " needs ", need, " bytes, data_offsets give ",
          entry.end - entry.begin, ".", kDamaged);
      return;
    }
    if (fits) t.bytes = file_.subspan(at, entry.end - entry.begin);
  }

  // The ranges must follow each other and fill the data section: no overlap, no hole, nothing after.
  void check_layout() {
    std::stable_sort(scan_.entries.begin(), scan_.entries.end(), [](const auto& a, const auto& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    if (!scan_.problems.empty()) return;
    uint64_t expected = 0;
    const std::string* previous = nullptr;
    for (const auto& entry : scan_.entries) {
      if (entry.begin < expected)
        problem(data_begin_ + entry.begin, "tensor ", entry.tensor.name, " overlaps ", *previous,
                ", which ends at byte ", data_begin_ + expected, ".", kDamaged);
      if (entry.begin > expected)
        problem(data_begin_ + expected, "hole of ", entry.begin - expected, " bytes before tensor ",
                entry.tensor.name, ".", kDamaged);
      expected = std::max(expected, entry.end);
      previous = &entry.tensor.name;
    }
    if (const uint64_t data_size = file_.size() - data_begin_; expected < data_size)
      problem(data_begin_ + expected, data_size - expected, " bytes follow the last tensor.", kDamaged);
  }

  std::span<const std::byte> file_;
  const std::string& source_;
  std::string_view header_;
  uint64_t data_begin_ = 0;
  Json root_;
  SafetensorsScan scan_;
};

}  // namespace

SafetensorsScan scan_safetensors(std::span<const std::byte> file, const std::string& source) {
  return HeaderReader(file, source).read();
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path, size_t shard) : file_(path) {
  SafetensorsScan scan = scan_safetensors(file_.bytes(), path.string());
  if (!scan.problems.empty()) throw Error(ErrorCode::kCorrupt, scan.problems.front());
  metadata_ = std::move(scan.metadata);
  tensors_.reserve(scan.entries.size());
  for (auto& entry : scan.entries) {
    tensors_.push_back(std::move(entry.tensor));
    tensors_.back().shard = shard;
  }
  by_name_.reserve(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

const StoredTensor& SafetensorsFile::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  std::vector<std::string> names;
  for (const StoredTensor& t : tensors_) names.push_back(t.name);
  throw Error(ErrorCode::kNotFound, cat("[checkpoint.read] ", path().string(), ": no tensor ", name,
                                        did_you_mean(name, names), "."));
}

}  // namespace hadal
