#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "hadal/base/check.h"
#include "hadal/kernels/train.h"
#include "hadal/ops/data.h"
#include "hadal/ops/expert_order.h"
#include "hadal/ops/fp8.h"
#include "hadal/ops/fp8_matrix.h"
#include "hadal/ops/product.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

constexpr Fp8Along kColumns = Fp8Along::kColumns, kRows = Fp8Along::kRows;

// What the backward pass needs, among what autograd keeps.
template <class T>
struct Kept : torch::CustomClassHolder {
  explicit Kept(T v) : value(std::move(v)) {}
  T value;
};
template <class T>
void keep(AutogradContext* ctx, T value) {
  ctx->saved_data["kept"] = c10::IValue::make_capsule(c10::make_intrusive<Kept<T>>(std::move(value)));
}
template <class T>
const T& kept(AutogradContext* ctx) {
  const auto holder = ctx->saved_data["kept"].toCapsule();
  return static_cast<const Kept<T>*>(holder.get())->value;
}

// The rules of a recipe, applied.
struct Recipe : Fp8Recipe {
  explicit Recipe(const Fp8Recipe& recipe) : Fp8Recipe(recipe) {}

  Fp8Matrix activation(const float* x, int64_t rows, int64_t cols, Fp8Along along, bool power_of_two) const {
    return fp8_matrix({.floor = kActivationFloor, .power_of_two = power_of_two},
                      fp8_grid(activations, along, rows, cols), x);
  }
  // Without a floor: gradients of a mean over many tokens are small.
  Fp8Matrix gradient(const float* dy, int64_t rows, int64_t cols, Fp8Along along, bool power_of_two) const {
    return fp8_matrix({.format = gradient_format, .power_of_two = power_of_two},
                      fp8_grid(gradients, along, rows, cols), dy);
  }
  // Forward and for the gradient of an input: to bf16. For that of a weight: fp32.
  Fp8Write rounded(bool adds = false) const { return {.sums = sums, .add = adds, .round = true}; }
  Fp8Write exact() const { return {.sums = sums}; }
};

int64_t rows_of(const Tensor& x) {
  return x.numel() / x.size(-1);
}

struct KeptLinear {
  Recipe recipe;
  Fp8Input input;
  Fp8Matrix x, w;
  Tensor half, half_scale;  // instead of x: attention's output in E5M6
};

class Fp8Linear : public Function<Fp8Linear> {
 public:
  static Tensor forward(AutogradContext* ctx, const Fp8Recipe& recipe_in, Fp8Input input, const Tensor& x_in,
                        const Tensor& w_NK) {
    const Recipe recipe(recipe_in);
    const Tensor x = x_in.contiguous();
    const int64_t T = rows_of(x), N = w_NK.size(0), K = w_NK.size(1);
    HADAL_CHECK(x.size(-1) == K) << x.size(-1) << " columns for a weight of " << K;
    const bool attention = input == Fp8Input::kAttention;
    KeptLinear kept{recipe, input, recipe.activation(floats(x), T, K, kColumns, attention),
                    fp8_weight(recipe, floats(w_NK), N, K)};
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = N;
    const Tensor y = at::empty(shape, w_NK.options());
    fp8_multiply({kept.x, kColumns}, {kept.w, kColumns}, floats(y), recipe.rounded());
    if (attention) {
      kept.half = at::empty({T, K}, at::kHalf), kept.half_scale = at::empty({T, fp8_blocks(K)}, at::kFloat);
      e5m6_quantise(fp8_kernels(), T, K, floats(x), static_cast<uint16_t*>(kept.half.data_ptr()),
                    floats(kept.half_scale));
      kept.x.code = kept.x.scale = Tensor();
    }
    keep(ctx, std::move(kept));
    return y;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const KeptLinear& k = kept<KeptLinear>(ctx);
    const Tensor dy = grads[0].contiguous();
    const int64_t T = rows_of(dy), N = k.w.grid.rows, K = k.w.grid.cols;
    const bool attention = k.input == Fp8Input::kAttention;
    std::vector<int64_t> shape = dy.sizes().vec();
    shape.back() = K;
    const Tensor dx = at::empty(shape, dy.options()), dw_NK = at::empty({N, K}, dy.options());
    fp8_multiply({k.recipe.gradient(floats(dy), T, N, kColumns, false), kColumns}, {k.w, kRows}, floats(dx),
                 k.recipe.rounded());
    const Tensor x = attention ? attention_output(k, T, K) : fp8_values(k.x);
    fp8_multiply({k.recipe.gradient(floats(dy), T, N, kRows, false), kRows},
                 {k.recipe.activation(floats(x), T, K, kRows, attention), kRows}, floats(dw_NK),
                 k.recipe.exact());
    return {Tensor(), Tensor(), dx, dw_NK};
  }

 private:
  static Tensor attention_output(const KeptLinear& k, int64_t T, int64_t K) {
    const Tensor x = at::empty({T, K}, at::kFloat);
    e5m6_dequantise(fp8_kernels(), T, K, static_cast<const uint16_t*>(k.half.data_ptr()),
                    floats(k.half_scale), floats(x));
    return x;
  }
};

// A feed-forward network: an expert or a whole layer's. sent: its input and the gradient of its output come
// from other ranks, in V3.
struct Ffn {
  Fp8Matrix gate, up, down;
  bool sent;
  int64_t D() const { return gate.grid.cols; }
  int64_t M() const { return gate.grid.rows; }
};
Ffn ffn(const Recipe& recipe, const float* gate_MD, const float* up_MD, const float* down_DM, int64_t M,
        int64_t D, bool sent) {
  return {fp8_weight(recipe, gate_MD, M, D), fp8_weight(recipe, up_MD, M, D),
          fp8_weight(recipe, down_DM, D, M), sent};
}

struct KeptFfn {
  Ffn w;
  Fp8Matrix x, gate, up;  // inputs of the layer and of SwiGLU
};

// x and out [n, D]
KeptFfn ffn_forward(const Recipe& recipe, Ffn w, const float* x, int64_t n, float* out) {
  const int64_t D = w.D(), M = w.M();
  Fp8Matrix in = recipe.activation(x, n, D, kColumns, w.sent);
  const Tensor gate = empty({n, M}), up = empty({n, M}), hidden = empty({n, M});
  fp8_multiply({in, kColumns}, {w.gate, kColumns}, floats(gate), recipe.rounded());
  fp8_multiply({in, kColumns}, {w.up, kColumns}, floats(up), recipe.rounded());
  parallel_for(n, grain(M), [&](int64_t b, int64_t e) {
    train_kernels().swiglu(floats(gate) + b * M, floats(up) + b * M, floats(hidden) + b * M, (e - b) * M);
  });
  fp8_multiply({recipe.activation(floats(hidden), n, M, kColumns, false), kColumns}, {w.down, kColumns}, out,
               recipe.rounded());
  return {std::move(w), std::move(in), recipe.activation(floats(gate), n, M, kColumns, false),
          recipe.activation(floats(up), n, M, kColumns, false)};
}

// Gradients of the weights and of x. weight [n] of the rows and the gradient of it; null: weights 1.
struct FfnGradients {
  float *dgate, *dup, *ddown, *dx;
  const float* weight;
  float* dweight;
};
// dy [n, D] without the weights.
void ffn_backward(const Recipe& recipe, const KeptFfn& k, const float* dy, const FfnGradients& to) {
  const int64_t n = k.x.grid.rows, D = k.w.D(), M = k.w.M();
  const Tensor gate = fp8_values(k.gate), up = fp8_values(k.up), hidden = empty({n, M}),
               dhidden = empty({n, M}), dgate = empty({n, M}), dup = empty({n, M});
  fp8_multiply({recipe.gradient(dy, n, D, kColumns, k.w.sent), kColumns}, {k.w.down, kRows}, floats(dhidden),
               recipe.rounded());
  const TrainKernels& t = train_kernels();
  parallel_for(n, grain(M), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float *h = floats(hidden) + r * M, *dh = floats(dhidden) + r * M;
      t.swiglu(floats(gate) + r * M, floats(up) + r * M, h, M);
      if (to.weight) {
        t.row_dot(dh, M, h, M, to.dweight + r, 1, M);
        for (int64_t m = 0; m < M; ++m) h[m] *= to.weight[r], dh[m] *= to.weight[r];
      }
      t.swiglu_backward(dh, floats(gate) + r * M, floats(up) + r * M, floats(dgate) + r * M,
                        floats(dup) + r * M, M);
    }
  });
  const auto across = [&](const Tensor& x, bool power_of_two) {
    return recipe.gradient(floats(x), n, M, kRows, power_of_two);
  };
  fp8_multiply({recipe.gradient(dy, n, D, kRows, k.w.sent), kRows},
               {recipe.activation(floats(hidden), n, M, kRows, false), kRows}, to.ddown, recipe.exact());
  const Fp8Matrix x = recipe.activation(floats(fp8_values(k.x)), n, D, kRows, k.w.sent);
  fp8_multiply({across(dgate, false), kRows}, {x, kRows}, to.dgate, recipe.exact());
  fp8_multiply({across(dup, false), kRows}, {x, kRows}, to.dup, recipe.exact());
  // Of gate and up together, rounded once.
  fp8_multiply({recipe.gradient(floats(dgate), n, M, kColumns, false), kColumns}, {k.w.gate, kRows}, to.dx,
               recipe.exact());
  fp8_multiply({recipe.gradient(floats(dup), n, M, kColumns, false), kColumns}, {k.w.up, kRows}, to.dx,
               recipe.rounded(/*adds=*/true));
}

struct KeptMlp {
  Recipe recipe;
  KeptFfn ffn;
};

class Fp8Mlp : public Function<Fp8Mlp> {
 public:
  static Tensor forward(AutogradContext* ctx, const Fp8Recipe& recipe_in, const Tensor& x_in,
                        const Tensor& gate_FD, const Tensor& up_FD, const Tensor& down_DF) {
    const Recipe recipe(recipe_in);
    const Tensor x = x_in.contiguous(), y = at::empty(x.sizes(), gate_FD.options());
    const Ffn w = ffn(recipe, floats(gate_FD), floats(up_FD), floats(down_DF), gate_FD.size(0),
                      gate_FD.size(1), /*sent=*/false);
    keep(ctx, KeptMlp{recipe, ffn_forward(recipe, w, floats(x), rows_of(x), floats(y))});
    return y;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const KeptMlp& k = kept<KeptMlp>(ctx);
    const Tensor dy = grads[0].contiguous();
    const int64_t D = k.ffn.w.D(), M = k.ffn.w.M();
    const Tensor dx = at::empty(dy.sizes(), dy.options()), dgate = empty({M, D}), dup = empty({M, D}),
                 ddown = empty({D, M});
    ffn_backward(k.recipe, k.ffn, floats(dy),
                 {floats(dgate), floats(dup), floats(ddown), floats(dx), nullptr, nullptr});
    return {Tensor(), dx, dgate, dup, ddown};
  }
};

struct KeptExperts {
  Recipe recipe;
  ExpertOrder order;
  Tensor weight_TA;
  int64_t D, M;
  std::vector<KeptFfn> experts;  // empty ones where there were no rows
};

class Fp8Experts : public Function<Fp8Experts> {
 public:
  static Tensor forward(AutogradContext* ctx, const Fp8Recipe& recipe_in, const Tensor& x_in,
                        const Tensor& expert_TA, const Tensor& weight_in, const Tensor& gate_EMD,
                        const Tensor& up_EMD, const Tensor& down_EDM) {
    const int64_t T = x_in.size(0), E = gate_EMD.size(0), M = gate_EMD.size(1), D = gate_EMD.size(2),
                  A = expert_TA.size(1);
    KeptExperts k{Recipe(recipe_in),
                  sort_by_expert(expert_TA, E),
                  weight_in.contiguous(),
                  D,
                  M,
                  std::vector<KeptFfn>(static_cast<size_t>(E))};
    const Tensor copy_UD = rows_at(x_in.contiguous(), k.order.token_U), out_UD = empty({T * A, D}),
                 y_TD = at::empty({T, D}, gate_EMD.options());
    for_each_expert(k.order.begin_E, [&](int64_t e, int64_t begin, int64_t n) {
      const int64_t at = e * M * D;
      const Ffn w = ffn(k.recipe, floats(gate_EMD) + at, floats(up_EMD) + at, floats(down_EDM) + at, M, D,
                        /*sent=*/true);
      k.experts[static_cast<size_t>(e)] =
          ffn_forward(k.recipe, w, floats(copy_UD) + begin * D, n, floats(out_UD) + begin * D);
    });
    parallel_for(T, grain(A * D), [&](int64_t b, int64_t e) {
      train_kernels().combine(floats(out_UD), longs(k.order.place_U) + b * A, floats(k.weight_TA) + b * A,
                              floats(y_TD) + b * D, e - b, A, D);
    });
    keep(ctx, std::move(k));
    return y_TD;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const KeptExperts& k = kept<KeptExperts>(ctx);
    const int64_t T = k.weight_TA.size(0), A = k.weight_TA.size(1), D = k.D, M = k.M,
                  E = static_cast<int64_t>(k.experts.size());
    const Tensor dout_UD = rows_at(grads[0].contiguous(), k.order.token_U), dcopy_UD = empty({T * A, D}),
                 weight_U = weight_by_row(k.order, k.weight_TA), dweight_U = empty({T * A});
    const Tensor dgate = zeros({E, M, D}), dup = zeros({E, M, D}), ddown = zeros({E, D, M});  // no rows: 0
    for_each_expert(k.order.begin_E, [&](int64_t e, int64_t begin, int64_t) {
      const int64_t at = e * M * D;
      ffn_backward(k.recipe, k.experts[static_cast<size_t>(e)], floats(dout_UD) + begin * D,
                   {floats(dgate) + at, floats(dup) + at, floats(ddown) + at, floats(dcopy_UD) + begin * D,
                    floats(weight_U) + begin, floats(dweight_U) + begin});
    });
    const Tensor dx_TD = empty({T, D}), dweight_TA = empty({T, A});
    parallel_for(T, grain(A * D), [&](int64_t b, int64_t e) {
      const int64_t* place = longs(k.order.place_U);
      train_kernels().sum_rows(floats(dcopy_UD), place + b * A, floats(dx_TD) + b * D, e - b, A, D);
      for (int64_t c = b * A; c < e * A; ++c) floats(dweight_TA)[c] = floats(dweight_U)[place[c]];
    });
    return {Tensor(), dx_TD, Tensor(), dweight_TA, dgate, dup, ddown};
  }
};

}  // namespace

Tensor fp8_linear(const Fp8Recipe& recipe, Fp8Input input, const Tensor& x, const Tensor& w_NK) {
  return Fp8Linear::apply(recipe, input, x, w_NK);
}

Tensor fp8_mlp(const Fp8Recipe& recipe, const Tensor& x, const Tensor& gate_FD, const Tensor& up_FD,
               const Tensor& down_DF) {
  return Fp8Mlp::apply(recipe, x, gate_FD, up_FD, down_DF);
}

Tensor fp8_experts(const Fp8Recipe& recipe, const Tensor& x_TD, const Tensor& expert_TA,
                   const Tensor& weight_TA, const Tensor& gate_EMD, const Tensor& up_EMD,
                   const Tensor& down_EDM) {
  return Fp8Experts::apply(recipe, x_TD, expert_TA, weight_TA, gate_EMD, up_EMD, down_EDM);
}

}  // namespace hadal
