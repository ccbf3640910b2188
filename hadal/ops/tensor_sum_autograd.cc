#include <torch/csrc/autograd/custom_function.h>

#include "hadal/ops/tensor_sum.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

// The ranks' sum of x, in memory of its own.
Tensor summed(const Tensor& x, TensorSum& sum) {
  const Tensor y = x.clone(at::MemoryFormat::Contiguous);
  sum.add_up(y);
  return y;
}

class IntoParts : public Function<IntoParts> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, TensorSum* sum) {
    ctx->saved_data["sum"] = reinterpret_cast<int64_t>(sum);
    return x.view_as(x);
  }
  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    return {summed(grads[0], *reinterpret_cast<TensorSum*>(ctx->saved_data["sum"].toInt())), Tensor()};
  }
};

class OutOfParts : public Function<OutOfParts> {
 public:
  static Tensor forward(AutogradContext*, const Tensor& y, TensorSum* sum) { return summed(y, *sum); }
  static Tensors backward(AutogradContext*, const Tensors& grads) { return {grads[0], Tensor()}; }
};

}  // namespace

Tensor into_parts(const Tensor& x, TensorSum* sum) {
  return sum ? IntoParts::apply(x, sum) : x;
}

Tensor out_of_parts(const Tensor& y, TensorSum* sum) {
  return sum ? OutOfParts::apply(y, sum) : y;
}

}  // namespace hadal
