#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "hadal/base/check.h"
#include "hadal/error.h"
#include "hadal/kernels/half.h"
#include "hadal/kernels/product.h"
#include "hadal/ops/data.h"
#include "hadal/ops/half.h"
#include "hadal/ops/linear.h"
#include "hadal/ops/plain.h"
#include "hadal/ops/product.h"
#include "hadal/ops/weight_gradients.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

// LibTorch's product of bf16 matrices adds up in fp32; its result is bf16.
Tensor multiplied_bf16(const Tensor& a, const Tensor& b) {
  return at::mm(a.to(at::kBFloat16), b.to(at::kBFloat16)).to(at::kFloat);
}

Tensor multiplied(const Tensor& a, const Tensor& b, bool bf16) {
  if (bf16) return multiplied_bf16(a, b);
  if (a.scalar_type() != at::kFloat) return at::mm(a, b);  // weights of a model that computes in bf16
  Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  multiply(out, a, b, false);
  return out;
}

class Linear : public Function<Linear> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, bool bf16) {
    ctx->save_for_backward({x, w});
    ctx->saved_data["bf16"] = bf16;
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = w.size(0);
    return multiplied(x.reshape({-1, w.size(1)}), w.t(), bf16).view(shape);
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1];
    const bool bf16 = ctx->saved_data["bf16"].toBool();
    const Tensor dy = grads[0].reshape({-1, w.size(0)});
    Tensor dx, dw;
    if (ctx->needs_input_grad(0)) dx = multiplied(dy, w, bf16).view(x.sizes());
    if (!ctx->needs_input_grad(1)) return {dx, dw, Tensor()};
    const auto product = [x = x.detach(), columns = w.size(1), dy, bf16] {
      return multiplied(dy.t(), x.reshape({-1, columns}), bf16);
    };
    if (WeightGradients* later = WeightGradients::active()) {
      later->add([w, product] { add_gradient(w, product()); });
    } else {
      dw = product();
    }
    return {dx, dw, Tensor()};
  }
};

}  // namespace

void multiply(Tensor out, const Tensor& a, const Tensor& b, bool bf16, bool adds) {
  if (bf16) {
    const Tensor y = multiplied_bf16(a, b);
    adds ? out.add_(y) : out.copy_(y);
    return;
  }
  for (const Tensor& x : {out, a, b}) HADAL_CHECK(x.scalar_type() == at::kFloat) << "products of fp32";
  HADAL_CHECK(out.stride(1) == 1 || out.size(1) == 1);
  const Product whole{out.size(0), out.size(1), a.size(1),   floats(a),   a.stride(0),   a.stride(1),
                      floats(b),   b.stride(0), b.stride(1), floats(out), out.stride(0), adds};
  // The longer side is shared out to threads.
  constexpr int64_t kUnit = 48;  // a multiple of every kernel's rows
  const bool by_rows = whole.M >= whole.N;
  const int64_t length = by_rows ? whole.M : whole.N;
  const int64_t work = whole.K * (by_rows ? whole.N : whole.M) * kUnit;
  parallel_for((length + kUnit - 1) / kUnit, std::max<int64_t>(1, (1 << 20) / std::max<int64_t>(1, work)),
               [&](int64_t begin, int64_t end) {
                 const int64_t first = begin * kUnit, n = std::min(end * kUnit, length) - first;
                 Product p = whole;
                 if (by_rows)
                   p.a += first * p.a_row, p.c += first * p.c_row, p.M = n;
                 else
                   p.b += first * p.b_column, p.c += first, p.N = n;
                 multiply(p);
               });
}

Products products_named(const std::string& precision) {
  if (precision == "fp8") return Products::kBf16;  // what is not FP8: attention, head, MTP's projection
  HADAL_CHECK(precision == "f32" || precision == "bf16" || precision == "f16") << precision;
  if (precision == "f16" && !half_is_fast(HalfFormat::kFp16))
    throw Error(ErrorCode::kUnsupported,
                "[ops.linear] precision f16 needs a processor with AVX512-FP16: got one without. Set "
                "compute.precision to f32 or bf16.");
  return precision == "f16" ? Products::kF16 : precision == "bf16" ? Products::kBf16 : Products::kF32;
}

std::optional<HalfFormat> half_format(Products products, const Tensor& x) {
  if (is_plain(x)) return std::nullopt;
  if (products == Products::kF16) return HalfFormat::kFp16;
  if (products == Products::kBf16 && half_is_fast(HalfFormat::kBf16)) return HalfFormat::kBf16;
  return std::nullopt;
}

Tensor linear(const Tensor& x, const Tensor& w, Products products) {
  if (is_plain(x)) return plain_linear(x, w, products);
  if (const auto format = half_format(products, x)) return half_linear(*format, x, w);
  return Linear::apply(x, w, products == Products::kBf16);
}

}  // namespace hadal
