// LibTorch's operations over lists of tensors, for a device that would start a kernel for each of them.
#pragma once
#include <cstdint>
#include <vector>

#include "hadal/tensor/tensor.h"

namespace hadal {

// The sum of squares of each, 0 for undefined ones. One wait for the device.
std::vector<double> sums_of_squares(const std::vector<Tensor>& tensors);

// AdamW of training spec 3 on fp32 tensors, in place; the gradients are used up: they are multiplied by
// gradient_scale. `step` counts from 1.
struct AdamWNumbers {
  double learning_rate, beta1, beta2, eps, weight_decay, gradient_scale;
  int64_t step;
};
void adamw_update(const AdamWNumbers& numbers, const std::vector<Tensor>& weights,
                  const std::vector<Tensor>& gradients, const std::vector<Tensor>& m,
                  const std::vector<Tensor>& v);

}  // namespace hadal
