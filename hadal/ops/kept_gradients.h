// What the CPU's losses of a head share: their gradients are computed with the loss, and kept.
#pragma once
#include <utility>
#include <vector>

#include "hadal/tensor/tensor.h"

namespace hadal {

// The two gradients that a forward pass kept for a loss whose own gradient is 1, times that gradient.
inline std::pair<Tensor, Tensor> kept_gradients(const std::vector<Tensor>& kept, const Tensor& dloss) {
  const double factor = dloss.item<double>();
  if (factor == 1.0) return {kept[0], kept[1]};
  return {kept[0] * factor, kept[1] * factor};
}

}  // namespace hadal
