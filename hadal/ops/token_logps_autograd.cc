#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "hadal/kernels/train.h"
#include "hadal/ops/data.h"
#include "hadal/ops/fused.h"
#include "hadal/ops/product.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

// Calls body(logit_XW, first) for some rows of the logits at a time.
template <class Body>
void for_each_chunk(const Tensor& hidden_TD, const Tensor& head_WD, const Body& body) {
  const int64_t T = hidden_TD.size(0), W = head_WD.size(0);
  const int64_t chunk = logit_rows(T, W);
  const Tensor buffer = at::empty({std::min(chunk, T), W}, hidden_TD.options());
  for (int64_t first = 0; first < T; first += chunk) {
    const int64_t n = std::min(chunk, T - first);
    const Tensor logit_XW = buffer.narrow(0, 0, n);  // X: rows of the chunk
    multiply(logit_XW, hidden_TD.narrow(0, first, n), head_WD.t(), /*bf16=*/false);
    body(logit_XW, first);
  }
}

class TokenLogp : public Function<TokenLogp> {
 public:
  static Tensors forward(AutogradContext* ctx, const Tensor& hidden_in, const Tensor& head_WD,
                         const Tensor& target_in, double scale) {
    const Tensor hidden_TD = hidden_in.contiguous(), target_T = target_in.contiguous();
    const int64_t T = hidden_TD.size(0), W = head_WD.size(0);
    const Tensor logp_T = at::empty({T}, hidden_TD.options()), entropy_T = at::empty_like(logp_T),
                 lse_T = at::empty_like(logp_T);
    for_each_chunk(hidden_TD, head_WD, [&](const Tensor& logit_XW, int64_t first) {
      parallel_for(logit_XW.size(0), grain(W), [&](int64_t b, int64_t e) {
        const int64_t at = first + b;
        train_kernels().log_softmax(floats(logit_XW) + b * W, longs(target_T) + at, static_cast<float>(scale),
                                    floats(logp_T) + at, floats(entropy_T) + at, floats(lse_T) + at, e - b,
                                    W);
      });
    });
    ctx->save_for_backward({hidden_TD, head_WD, target_T, lse_T, entropy_T});
    ctx->saved_data["scale"] = scale;
    return {logp_T, entropy_T};
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const Tensor &hidden_TD = saved[0], &head_WD = saved[1], &target_T = saved[2], &lse_T = saved[3],
                 &entropy_T = saved[4];
    const auto scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
    const int64_t W = head_WD.size(0);
    const auto gradient = [&](const Tensor& given) {
      return given.defined() ? given.contiguous() : at::zeros_like(lse_T);
    };
    const Tensor dlogp_T = gradient(grads[0]), dentropy_T = gradient(grads[1]);
    const Tensor dhidden_TD = at::empty_like(hidden_TD), dhead_WD = at::zeros_like(head_WD);
    for_each_chunk(hidden_TD, head_WD, [&](const Tensor& logit_XW, int64_t first) {
      const int64_t n = logit_XW.size(0);
      parallel_for(n, grain(W), [&](int64_t b, int64_t e) {
        const int64_t at = first + b;
        train_kernels().log_softmax_backward(
            floats(logit_XW) + b * W, longs(target_T) + at, scale,
            {floats(lse_T) + at, floats(entropy_T) + at, floats(dlogp_T) + at, floats(dentropy_T) + at},
            e - b, W);
      });
      multiply(dhidden_TD.narrow(0, first, n), logit_XW, head_WD, /*bf16=*/false);
      multiply(dhead_WD, logit_XW.t(), hidden_TD.narrow(0, first, n), /*bf16=*/false, /*adds=*/true);
    });
    return {dhidden_TD, dhead_WD, Tensor(), Tensor()};
  }
};

}  // namespace

TokenLogps fused_token_logps(const Tensor& hidden_TD, const Tensor& head_WD, const Tensor& target_T,
                             double temperature) {
  if (is_plain(hidden_TD)) {
    const Tensor log_p_TW = (hidden_TD.matmul(head_WD.t()) / temperature).log_softmax(-1);
    return {log_p_TW.gather(1, target_T.unsqueeze(1)).squeeze(1), -(log_p_TW.exp() * log_p_TW).sum(-1)};
  }
  const Tensors out = TokenLogp::apply(hidden_TD, head_WD, target_T, 1 / temperature);
  return {out[0], out[1]};
}

}  // namespace hadal
