#include "hadal/checkpoint/numbers.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// out[i] = convert(the i-th T at `from`).
template <class T, class Convert>
void widen(const std::byte* from, float* out, int64_t n, Convert convert) {
  for (int64_t i = 0; i < n; ++i) out[i] = convert(load<T>(from + i * static_cast<int64_t>(sizeof(T))));
}

template <class T, class Convert>
void narrow(const float* from, std::byte* out, int64_t n, Convert convert) {
  for (int64_t i = 0; i < n; ++i) {
    const T value = convert(from[i]);
    std::memcpy(out + i * static_cast<int64_t>(sizeof(T)), &value, sizeof value);
  }
}

}  // namespace

void to_f32(ElementType type, const std::byte* from, float* out, int64_t n) {
  switch (type) {
    case ElementType::kF32:
      if (n > 0) std::memcpy(out, from, static_cast<size_t>(n) * sizeof(float));
      return;
    case ElementType::kBF16:
      return widen<uint16_t>(from, out, n, bf16_to_f32);
    case ElementType::kF16:
      return widen<uint16_t>(from, out, n, f16_to_f32);
    case ElementType::kF8E4M3:
      return widen<uint8_t>(from, out, n, e4m3_to_f32);
    case ElementType::kF8E5M2:
      return widen<uint8_t>(from, out, n, e5m2_to_f32);
    case ElementType::kF8E8M0:
      return widen<uint8_t>(from, out, n, e8m0_to_f32);
    case ElementType::kF64:
      return widen<double>(from, out, n, [](double x) { return static_cast<float>(x); });
    default:
      throw Error(ErrorCode::kUnsupported, cat("[checkpoint.read] ", name(type),
                                               " values are not floating point: they cannot be a weight."));
  }
}

void from_f32(ElementType type, const float* from, std::byte* out, int64_t n) {
  switch (type) {
    case ElementType::kF32:
      if (n > 0) std::memcpy(out, from, static_cast<size_t>(n) * sizeof(float));
      return;
    case ElementType::kBF16:
      return narrow<uint16_t>(from, out, n, f32_to_bf16);
    case ElementType::kF16:
      return narrow<uint16_t>(from, out, n, f32_to_f16);
    case ElementType::kF8E4M3:
      return narrow<uint8_t>(from, out, n, f32_to_e4m3);
    default:
      throw Error(ErrorCode::kUnsupported, cat("[checkpoint.write] cannot write weights as ", name(type),
                                               ": need F32, F16, BF16 or F8_E4M3."));
  }
}

}  // namespace hadal
