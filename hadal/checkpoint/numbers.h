// Bulk conversion of raw tensors between number formats (base/number_formats.h).
#pragma once
#include <cstddef>
#include <cstdint>

#include "hadal/base/number_formats.h"
#include "hadal/checkpoint.h"

namespace hadal {

// n values at `from` (any alignment) to float. All floating types; F64 is rounded. Throws unsupported for
// others.
void to_f32(ElementType type, const std::byte* from, float* out, int64_t n);
// n floats to F32, F16, BF16 or F8_E4M3 at `out` (any alignment). Throws unsupported for others.
void from_f32(ElementType type, const float* from, std::byte* out, int64_t n);

}  // namespace hadal
