#include "hadal/checkpoint/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "hadal/base/check.h"
#include "hadal/base/number_formats.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/numbers.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr int64_t kDefaultAlignment = 32;
constexpr int64_t kMaxDimensions = 4;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr int64_t kQ8BlockBytes = 34;

// Value types of the metadata, numbered as in the file.
enum ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kText, kArray, kU64, kI64, kF64 };

int64_t align_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// Reads the header front to back. Every length is compared with what is left before it is believed.
class Cursor {
 public:
  Cursor(std::span<const std::byte> file, std::string source) : file_(file), source_(std::move(source)) {}

  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw Error(ErrorCode::kCorrupt, cat("[gguf.read] ", source_, ": byte ", at_, ": ", parts...,
                                         ". Fetch or convert the file again."));
  }
  size_t at() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }

  const std::byte* take(uint64_t size, const char* what) {
    if (size > left()) fail(what, " takes ", size, " bytes, the file has ", left(), " left");
    const std::byte* from = file_.data() + at_;
    at_ += static_cast<size_t>(size);
    return from;
  }
  template <class T>
  T number(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }
  std::string text(const char* what, uint64_t most = std::numeric_limits<uint64_t>::max()) {
    const auto size = number<uint64_t>(what);
    if (size > most) fail(what, " is ", size, " bytes long, need at most ", most);
    const auto* from = reinterpret_cast<const char*>(take(size, what));
    return {from, static_cast<size_t>(size)};
  }
  // A count of things of at least `each` bytes.
  size_t count(const char* what, uint64_t each) {
    const auto n = number<uint64_t>(what);
    if (n > left() / each) fail(n, " ", what, " cannot fit in the ", left(), " bytes that are left");
    return static_cast<size_t>(n);
  }

  int64_t integer(uint32_t type) {
    switch (type) {
      case kU8:
        return number<uint8_t>("a value");
      case kI8:
        return number<int8_t>("a value");
      case kU16:
        return number<uint16_t>("a value");
      case kI16:
        return number<int16_t>("a value");
      case kU32:
        return number<uint32_t>("a value");
      case kI32:
        return number<int32_t>("a value");
      case kI64:
        return number<int64_t>("a value");
      default:
        break;
    }
    const auto value = number<uint64_t>("a value");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail(value, " is too large a number");
    return static_cast<int64_t>(value);
  }
  double real(uint32_t type) {
    return type == kF32 ? static_cast<double>(number<float>("a value")) : number<double>("a value");
  }
  bool boolean() {
    const auto value = number<uint8_t>("a value");
    if (value > 1) fail("a bool is ", static_cast<int>(value), ", need 0 or 1");
    return value == 1;
  }

  GgufValue value() {
    const auto type = number<uint32_t>("a value type");
    if (type == kArray) return list();
    if (type == kText) return text("a text");
    if (type == kBool) return boolean();
    if (type == kF32 || type == kF64) return real(type);
    if (type > kF64) fail("value type ", type, " is unknown");
    return integer(type);
  }

 private:
  GgufValue list() {
    const auto type = number<uint32_t>("a list's type");
    if (type > kF64) fail("list type ", type, " is unknown");
    if (type == kArray) fail("a list of lists has no place in a model");
    constexpr uint64_t kSmallest[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
    const size_t n = count("list entries", kSmallest[type]);
    if (type == kText) {
      std::vector<std::string> out;
      for (size_t i = 0; i < n; ++i) out.push_back(text("a text"));
      return out;
    }
    if (type == kF32 || type == kF64) {
      std::vector<double> out;
      for (size_t i = 0; i < n; ++i) out.push_back(real(type));
      return out;
    }
    std::vector<int64_t> out;
    for (size_t i = 0; i < n; ++i) out.push_back(type == kBool ? boolean() : integer(type));
    return out;
  }

  std::span<const std::byte> file_;
  std::string source_;
  size_t at_ = 0;
};

struct Place {
  uint64_t offset = 0;
  size_t at = 0;  // of its entry, for errors
};

// One entry of the tensor list. `place` gets its position in the data section.
GgufTensor read_tensor(Cursor& in, Place& place) {
  GgufTensor tensor;
  place.at = in.at();
  tensor.name = in.text("a tensor name", kMaxKeyBytes);
  if (!is_utf8(tensor.name)) in.fail("a tensor name is not UTF-8");
  const auto dims = in.number<uint32_t>("a number of dimensions");
  if (dims > kMaxDimensions)
    in.fail(tensor.name, " has ", dims, " dimensions, need at most ", kMaxDimensions);
  int64_t values = 1;
  for (uint32_t d = 0; d < dims; ++d) {
    const auto size = in.number<uint64_t>("a dimension");
    if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
        __builtin_mul_overflow(values, static_cast<int64_t>(size), &values) || values > (int64_t{1} << 56))
      in.fail(tensor.name, " has a dimension of ", size, ": too many values");
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  tensor.type = in.number<uint32_t>("a tensor type");
  place.offset = in.number<uint64_t>("a tensor's position");
  return tensor;
}

// Where a tensor's bytes lie; empty if its type is unknown.
std::span<const std::byte> data_of(const Cursor& in, const GgufTensor& tensor, const Place& place,
                                   std::span<const std::byte> data, int64_t alignment) {
  if (place.offset % static_cast<uint64_t>(alignment) != 0)
    in.fail(tensor.name, " starts at ", place.offset, " of the data, need a multiple of ", alignment);
  const auto type = tensor.known_type();
  if (!type) return {};
  const int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (*type == GgufType::kQ8_0 && row % kQ8Block != 0)
    in.fail(tensor.name, " is Q8_0 with rows of ", row, " values, need a multiple of ", kQ8Block);
  const auto size = static_cast<uint64_t>(gguf_row_bytes(*type, tensor.num_values()));
  if (place.offset > data.size() || size > data.size() - place.offset)
    in.fail(tensor.name, " takes ", size, " bytes from ", place.offset, " of the data, which has ",
            data.size());
  return data.subspan(static_cast<size_t>(place.offset), static_cast<size_t>(size));
}

void put(std::string& out, const void* data, size_t size) {
  out.append(static_cast<const char*>(data), size);
}
template <class T>
void put(std::string& out, T value) {
  put(out, &value, sizeof value);
}
void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<uint64_t>(text.size()));
  out += text;
}

void q8_to_f32(const std::byte* from, float* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kQ8Block, from += kQ8BlockBytes) {
    uint16_t scale = 0;
    std::memcpy(&scale, from, sizeof scale);
    const float s = f16_to_f32(scale);
    for (int64_t j = 0; j < kQ8Block; ++j)
      out[i + j] = static_cast<float>(static_cast<int8_t>(std::to_integer<uint8_t>(from[2 + j]))) * s;
  }
}

void q8_from_f32(const float* x, std::byte* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kQ8Block, out += kQ8BlockBytes) {
    float amax = 0;
    for (int64_t j = 0; j < kQ8Block; ++j) amax = std::max(amax, std::fabs(x[i + j]));
    const float s = amax / 127, factor = s > 0 ? 1 / s : 0;
    const uint16_t scale = f32_to_f16(s);
    std::memcpy(out, &scale, sizeof scale);
    for (int64_t j = 0; j < kQ8Block; ++j)
      out[2 + j] = static_cast<std::byte>(static_cast<int8_t>(std::round(x[i + j] * factor)));
  }
}

ElementType element_type(GgufType type) {
  return type == GgufType::kF32   ? ElementType::kF32
         : type == GgufType::kF16 ? ElementType::kF16
                                  : ElementType::kBF16;
}

}  // namespace

const char* name(GgufType type) {
  switch (type) {
    case GgufType::kF32:
      return "F32";
    case GgufType::kF16:
      return "F16";
    case GgufType::kQ8_0:
      return "Q8_0";
    case GgufType::kBF16:
      return "BF16";
  }
  return "?";
}

int64_t gguf_row_bytes(GgufType type, int64_t n) {
  if (type == GgufType::kQ8_0) return n / kQ8Block * kQ8BlockBytes;
  return n * (type == GgufType::kF32 ? 4 : 2);
}

void gguf_to_f32(GgufType type, const std::byte* from, float* out, int64_t n) {
  if (type == GgufType::kQ8_0) return q8_to_f32(from, out, n);
  to_f32(element_type(type), from, out, n);
}

void gguf_from_f32(GgufType type, const float* x, std::byte* out, int64_t n) {
  if (type == GgufType::kQ8_0) return q8_from_f32(x, out, n);
  from_f32(element_type(type), x, out, n);
}

int64_t GgufTensor::num_values() const {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

std::optional<GgufType> GgufTensor::known_type() const {
  for (const GgufType known : {GgufType::kF32, GgufType::kF16, GgufType::kQ8_0, GgufType::kBF16})
    if (type == static_cast<uint32_t>(known)) return known;
  return std::nullopt;
}

GgufFile::GgufFile(const std::filesystem::path& path) : file_(path) {
  Cursor in(file_.bytes(), path.string());
  if (in.left() < 4 || std::memcmp(in.take(4, "the magic"), "GGUF", 4) != 0) in.fail("this is no GGUF file");
  const auto version = in.number<uint32_t>("the version");
  if (version != 2 && version != 3) in.fail("version ", version, ", need 2 or 3, little-endian");
  const size_t num_tensors = in.count("tensors", 24), num_keys = in.count("keys", 13);
  for (size_t i = 0; i < num_keys; ++i) {
    std::string key = in.text("a key", kMaxKeyBytes);
    if (!is_utf8(key)) in.fail("a key is not UTF-8");
    GgufValue value = in.value();
    if (!values_.emplace(key, std::move(value)).second) in.fail("the key ", key, " comes twice");
  }
  std::vector<Place> places(num_tensors);
  for (Place& place : places) {
    tensors_.push_back(read_tensor(in, place));
    if (!by_name_.emplace(tensors_.back().name, tensors_.size() - 1).second)
      in.fail("the tensor ", tensors_.back().name, " comes twice");
  }
  const int64_t alignment = integer("general.alignment", kDefaultAlignment);
  if (alignment < 1 || alignment > (1 << 20) || (alignment & (alignment - 1)) != 0)
    in.fail("general.alignment is ", alignment, ", need a power of two");
  const auto start = static_cast<size_t>(align_up(static_cast<int64_t>(in.at()), alignment));
  const auto data = file_.bytes().subspan(std::min(start, file_.bytes().size()));
  for (size_t i = 0; i < num_tensors; ++i)
    tensors_[i].bytes = data_of(in, tensors_[i], places[i], data, alignment);
}

const GgufTensor* GgufFile::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

const GgufValue* GgufFile::value(const std::string& key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

template <class Value>
const Value* GgufFile::typed(const std::string& key, bool required, const char* need) const {
  const GgufValue* found = value(key);
  if (!found && required)
    throw Error(ErrorCode::kInvalidConfig, cat("[gguf.read] ", path().string(), ": the key ", key,
                                               " is missing. Convert the model again."));
  if (found && !std::holds_alternative<Value>(*found))
    throw Error(ErrorCode::kCorrupt, cat("[gguf.read] ", path().string(), ": the key ", key, " is not ", need,
                                         ". Convert the model again."));
  return found ? &std::get<Value>(*found) : nullptr;
}

int64_t GgufFile::integer(const std::string& key, std::optional<int64_t> absent) const {
  const auto* found = typed<int64_t>(key, !absent, "an integer");
  return found ? *found : *absent;
}
double GgufFile::real(const std::string& key, std::optional<double> absent) const {
  const auto* found = typed<double>(key, !absent, "a float");
  return found ? *found : *absent;
}
bool GgufFile::boolean(const std::string& key, bool absent) const {
  const auto* found = typed<bool>(key, false, "a bool");
  return found ? *found : absent;
}
std::string GgufFile::text(const std::string& key, std::optional<std::string> absent) const {
  const auto* found = typed<std::string>(key, !absent, "a text");
  return found ? *found : *absent;
}

void GgufWriter::add_u32(const std::string& key, int64_t value) {
  HADAL_CHECK(value >= 0 && value <= int64_t{0xFFFFFFFF}) << key << " " << value;
  put_text(metadata_, key);
  put(metadata_, uint32_t{kU32});
  put(metadata_, static_cast<uint32_t>(value));
  ++num_values_;
}
void GgufWriter::add_f32(const std::string& key, double value) {
  put_text(metadata_, key);
  put(metadata_, uint32_t{kF32});
  put(metadata_, static_cast<float>(value));
  ++num_values_;
}
void GgufWriter::add_bool(const std::string& key, bool value) {
  put_text(metadata_, key);
  put(metadata_, uint32_t{kBool});
  put(metadata_, static_cast<uint8_t>(value));
  ++num_values_;
}
void GgufWriter::add_text(const std::string& key, const std::string& value) {
  put_text(metadata_, key);
  put(metadata_, uint32_t{kText});
  put_text(metadata_, value);
  ++num_values_;
}
void GgufWriter::add_i32s(const std::string& key, const std::vector<int64_t>& values) {
  put_text(metadata_, key);
  put(metadata_, uint32_t{kArray});
  put(metadata_, uint32_t{kI32});
  put(metadata_, static_cast<uint64_t>(values.size()));
  for (const int64_t v : values) put(metadata_, static_cast<int32_t>(v));
  ++num_values_;
}
void GgufWriter::add_texts(const std::string& key, const std::vector<std::string>& values) {
  put_text(metadata_, key);
  put(metadata_, uint32_t{kArray});
  put(metadata_, uint32_t{kText});
  put(metadata_, static_cast<uint64_t>(values.size()));
  for (const std::string& v : values) put_text(metadata_, v);
  ++num_values_;
}

void GgufWriter::add_tensor(const std::string& name, GgufType type, const std::vector<int64_t>& shape) {
  put_text(tensors_, name);
  put(tensors_, static_cast<uint32_t>(shape.size()));
  int64_t values = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    put(tensors_, static_cast<uint64_t>(shape[d]));
    values *= shape[d];
  }
  put(tensors_, static_cast<uint32_t>(type));
  put(tensors_, static_cast<uint64_t>(data_bytes_));
  sizes_.push_back(gguf_row_bytes(type, values));
  data_bytes_ += align_up(sizes_.back(), kDefaultAlignment);
}

int64_t GgufWriter::num_bytes() const {
  return 24 + static_cast<int64_t>(metadata_.size() + tensors_.size()) + kDefaultAlignment + data_bytes_;
}

void GgufWriter::write(const std::filesystem::path& path,
                       const std::function<void(size_t, const Sink&)>& fill) const {
  AtomicFile file(path);
  std::string head = "GGUF";
  put(head, uint32_t{3});
  put(head, static_cast<uint64_t>(sizes_.size()));
  put(head, static_cast<uint64_t>(num_values_));
  head += metadata_ + tensors_;
  head.resize(static_cast<size_t>(align_up(static_cast<int64_t>(head.size()), kDefaultAlignment)), '\0');
  file.write(head);
  for (size_t i = 0; i < sizes_.size(); ++i) {
    int64_t written = 0;
    fill(i, [&](const void* data, size_t size) {
      written += static_cast<int64_t>(size);
      file.write(data, size);
    });
    HADAL_CHECK(written == sizes_[i]) << "tensor " << i << ": " << written << " bytes of " << sizes_[i];
    file.write(std::string(static_cast<size_t>(align_up(written, kDefaultAlignment) - written), '\0'));
  }
  file.commit();
}

}  // namespace hadal
