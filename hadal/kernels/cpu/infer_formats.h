// Numbers and prepared rows as the inference kernels see them. For sources compiled once per instruction set
// (HADAL_ISA): everything here is local to that source, nothing from the standard library.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "hadal/kernels/infer.h"

namespace hadal::kernels::HADAL_ISA {
namespace {

[[maybe_unused]] inline int64_t rounded_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// From any address: weights lie in file maps.
template <typename T>
inline T load_from(const void* at) {
  T value;
  __builtin_memcpy(&value, at, sizeof(T));
  return value;
}
[[maybe_unused]] inline float float_of(uint32_t bits) {
  return load_from<float>(&bits);
}
[[maybe_unused]] inline float bf16_at(const void* at) {
  return float_of((uint32_t)load_from<uint16_t>(at) << 16);
}
// As a float with the small exponent, then times 2^120: exact, subnormals included. NaN codes become 480.
[[maybe_unused]] inline float e4m3(uint8_t code) {
  return float_of((uint32_t)(code & 0x7F) << 20 | (uint32_t)(code & 0x80) << 24) * 0x1p120f;
}

inline bool is_grouped(WeightFormat format) {
  return format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
}

// Scales of an FP8 matrix that row `row` uses, one per 128 columns.
[[maybe_unused]] inline const char* fp8_scales(const WeightView& w, int64_t row) {
  return (const char*)w.scale + (w.first_row + row) / 128 * ((w.K + 127) / 128) * 4;
}
[[maybe_unused]] inline const char* row_at(const WeightView& w, int64_t row) {
  return (const char*)w.data + row * row_bytes(w.format, w.K);
}

}  // namespace
}  // namespace hadal::kernels::HADAL_ISA
