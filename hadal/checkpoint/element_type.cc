#include <array>

#include "hadal/base/check.h"
#include "hadal/checkpoint/safetensors.h"

namespace hadal {
namespace {

struct TypeRow {
  ElementType type;
  const char* name;
  int64_t bytes;
};

constexpr std::array kTypes = {
    TypeRow{ElementType::kBool, "BOOL", 1},      TypeRow{ElementType::kU8, "U8", 1},
    TypeRow{ElementType::kI8, "I8", 1},          TypeRow{ElementType::kF8E5M2, "F8_E5M2", 1},
    TypeRow{ElementType::kF8E4M3, "F8_E4M3", 1}, TypeRow{ElementType::kF8E8M0, "F8_E8M0", 1},
    TypeRow{ElementType::kI16, "I16", 2},        TypeRow{ElementType::kU16, "U16", 2},
    TypeRow{ElementType::kF16, "F16", 2},        TypeRow{ElementType::kBF16, "BF16", 2},
    TypeRow{ElementType::kI32, "I32", 4},        TypeRow{ElementType::kU32, "U32", 4},
    TypeRow{ElementType::kF32, "F32", 4},        TypeRow{ElementType::kF64, "F64", 8},
    TypeRow{ElementType::kI64, "I64", 8},        TypeRow{ElementType::kU64, "U64", 8},
};

const TypeRow& row(ElementType type) {
  const auto index = static_cast<size_t>(type);
  HADAL_CHECK(index < kTypes.size() && kTypes[index].type == type) << "element type " << index;
  return kTypes[index];
}

}  // namespace

const char* name(ElementType type) {
  return row(type).name;
}

int64_t size_bytes(ElementType type) {
  return row(type).bytes;
}

std::optional<ElementType> parse_element_type(std::string_view name) {
  for (const TypeRow& r : kTypes)
    if (name == r.name) return r.type;
  return std::nullopt;
}

std::vector<std::string> element_type_names() {
  std::vector<std::string> names;
  for (const TypeRow& r : kTypes) names.emplace_back(r.name);
  return names;
}

ElementType element_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return ElementType::kF32;
    case DType::kF16:
      return ElementType::kF16;
    case DType::kBF16:
      return ElementType::kBF16;
    case DType::kF8E4M3:
      return ElementType::kF8E4M3;
    case DType::kInt8:
    case DType::kInt4:
      return ElementType::kU8;
  }
  return ElementType::kF32;
}

int64_t StoredTensor::num_values() const {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

int64_t TensorHead::num_bytes() const {
  int64_t n = size_bytes(type);
  for (const int64_t size : shape) n *= size;
  return n;
}

}  // namespace hadal
