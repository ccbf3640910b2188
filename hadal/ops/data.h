// The values of a contiguous tensor as a plain array, for kernels.
#pragma once
#include "hadal/tensor/tensor.h"

namespace hadal {

inline float* floats(const Tensor& x) {
  return static_cast<float*>(x.data_ptr());
}
inline const int64_t* longs(const Tensor& x) {
  return static_cast<const int64_t*>(x.data_ptr());
}

}  // namespace hadal
