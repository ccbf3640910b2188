// hadal's dtypes as LibTorch's. Include after tensor.h.
#pragma once
#include <c10/core/ScalarType.h>

#include "hadal/config.h"

namespace hadal {

inline c10::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return c10::ScalarType::Float;
    case DType::kF16:
      return c10::ScalarType::Half;
    case DType::kBF16:
      return c10::ScalarType::BFloat16;
    case DType::kF8E4M3:
      return c10::ScalarType::Float8_e4m3fn;
    case DType::kInt8:
    case DType::kInt4:
      return c10::ScalarType::Byte;  // codes
  }
  return c10::ScalarType::Undefined;
}

}  // namespace hadal
