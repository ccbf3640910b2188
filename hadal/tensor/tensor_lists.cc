#include "hadal/tensor/tensor_lists.h"

#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>

#include "hadal/tensor/make.h"

namespace hadal {

std::vector<double> sums_of_squares(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> present;
  for (const Tensor& x : tensors)
    if (x.defined()) present.push_back(x);
  std::vector<double> sums(tensors.size(), 0.0);
  if (present.empty()) return sums;
  const std::vector<float> norms = to_floats(at::stack(at::_foreach_norm(present, 2)));
  size_t next = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].defined()) continue;
    const double norm = norms[next++];
    sums[i] = norm * norm;
  }
  return sums;
}

void adamw_update(const AdamWNumbers& n, const std::vector<Tensor>& weights,
                  const std::vector<Tensor>& gradients, const std::vector<Tensor>& m,
                  const std::vector<Tensor>& v) {
  if (weights.empty()) return;
  at::_foreach_mul_(gradients, n.gradient_scale);
  const Tensor step = at::full({}, static_cast<double>(n.step), weights[0].options().requires_grad(false));
  const std::vector<Tensor> steps(weights.size(), step);
  at::_fused_adamw_(weights, gradients, m, v, {}, steps, n.learning_rate, n.beta1, n.beta2, n.weight_decay,
                    n.eps, /*amsgrad=*/false, /*maximize=*/false);
}

}  // namespace hadal
