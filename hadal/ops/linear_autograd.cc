#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "hadal/base/check.h"
#include "hadal/error.h"
#include "hadal/kernels/half.h"
#include "hadal/ops/half.h"
#include "hadal/ops/linear.h"
#include "hadal/ops/product.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

Tensor rounded(const Tensor& x) {
  return x.to(at::kBFloat16);
}

// LibTorch's product of bf16 matrices adds up in fp32; its result is bf16.
class Bf16Linear : public Function<Bf16Linear> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w) {
    ctx->save_for_backward({x, w});
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = w.size(0);
    return at::mm(rounded(x.reshape({-1, w.size(1)})), rounded(w).t()).to(at::kFloat).view(shape);
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1];
    const Tensor dy = rounded(grads[0].reshape({-1, w.size(0)}));
    const Tensor dx = at::mm(dy, rounded(w)).to(at::kFloat).view(x.sizes());
    return {dx, at::mm(dy.t(), rounded(x.reshape({-1, w.size(1)}))).to(at::kFloat)};
  }
};

}  // namespace

void multiply(Tensor out, const Tensor& a, const Tensor& b, bool bf16, bool adds) {
  if (bf16) {
    const Tensor y = at::mm(rounded(a), rounded(b));
    adds ? out.add_(y) : out.copy_(y);
  } else if (adds) {
    out.addmm_(a, b);
  } else {
    at::mm_out(out, a, b);
  }
}

Products products_named(const std::string& precision) {
  HADAL_CHECK(precision == "f32" || precision == "bf16" || precision == "f16") << precision;
  if (precision == "f16" && !half_is_fast(HalfFormat::kFp16))
    throw Error(ErrorCode::kUnsupported,
                "[ops.linear] precision f16 needs a processor with AVX512-FP16: got one without. Set "
                "compute.precision to f32 or bf16.");
  return precision == "f16" ? Products::kF16 : precision == "bf16" ? Products::kBf16 : Products::kF32;
}

std::optional<HalfFormat> half_format(Products products) {
  if (products == Products::kF16) return HalfFormat::kFp16;
  if (products == Products::kBf16 && half_is_fast(HalfFormat::kBf16)) return HalfFormat::kBf16;
  return std::nullopt;
}

Tensor linear(const Tensor& x, const Tensor& w, Products products) {
  if (const auto format = half_format(products)) return half_linear(*format, x, w);
  return products == Products::kBf16 ? Bf16Linear::apply(x, w) : x.matmul(w.t());
}

}  // namespace hadal
