#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "hadal/base/check.h"
#include "hadal/kernels/product.h"
#include "hadal/kernels/query_block.h"
#include "hadal/kernels/train.h"
#include "hadal/ops/data.h"
#include "hadal/ops/fused.h"
#include "hadal/ops/half.h"
#include "hadal/ops/kept_gradients.h"
#include "hadal/ops/norm_rows.h"
#include "hadal/ops/plain.h"
#include "hadal/ops/product.h"
#include "hadal/ops/rope.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

class RmsNorm : public Function<RmsNorm> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x_in, const Tensor& gain_D, double eps) {
    const Tensor x = x_in.contiguous();
    const NormedRows out = norm_rows(x, gain_D, eps);
    ctx->save_for_backward({x, gain_D, out.rstd});
    return out.y;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const NormGradients d = norm_rows_backward(grads[0], saved[0], saved[1], saved[2], {});
    return {d.dx, d.dgain_D, Tensor()};
  }
};

class AddRmsNorm : public Function<AddRmsNorm> {
 public:
  static Tensors forward(AutogradContext* ctx, const Tensor& x_in, const Tensor& delta_in,
                         const Tensor& gain_D, double eps) {
    const Tensor x = x_in.contiguous(), delta = delta_in.contiguous();
    const int64_t D = x.size(-1), rows = x.numel() / D;
    const Tensor sum = at::empty_like(x), y = at::empty_like(x), rstd = at::empty({rows}, x.options());
    const TrainKernels& k = train_kernels();
    parallel_for(rows, grain(D), [&](int64_t begin, int64_t end) {
      const int64_t at = begin * D;
      k.add_rms_norm(floats(x) + at, floats(delta) + at, floats(gain_D), floats(sum) + at, floats(y) + at,
                     floats(rstd) + begin, end - begin, D, static_cast<float>(eps));
    });
    ctx->save_for_backward({sum, gain_D, rstd});
    return {sum, y};
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    if (!grads[1].defined()) return {grads[0], grads[0], Tensor(), Tensor()};
    const Tensor other = grads[0].defined() ? grads[0].contiguous() : Tensor();
    const NormGradients d = norm_rows_backward(grads[1], saved[0], saved[1], saved[2], other);
    return {d.dx, d.dx, d.dgain_D, Tensor()};
  }
};

class Swiglu : public Function<Swiglu> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& gate_in, const Tensor& up_in) {
    const Tensor gate = gate_in.contiguous(), up = up_in.contiguous(), y = at::empty_like(gate);
    const TrainKernels& k = train_kernels();
    parallel_for(gate.numel(), 16384, [&](int64_t begin, int64_t end) {
      k.swiglu(floats(gate) + begin, floats(up) + begin, floats(y) + begin, end - begin);
    });
    ctx->save_for_backward({gate, up});
    return y;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const Tensor &gate = saved[0], &up = saved[1];
    const Tensor dy = grads[0].contiguous(), dgate = at::empty_like(gate), dup = at::empty_like(up);
    const TrainKernels& k = train_kernels();
    parallel_for(gate.numel(), 16384, [&](int64_t b, int64_t e) {
      k.swiglu_backward(floats(dy) + b, floats(gate) + b, floats(up) + b, floats(dgate) + b, floats(dup) + b,
                        e - b);
    });
    return {dgate, dup};
  }
};

// One packed copy per head of what attention multiplies: query and key [B*H, S, K] rotated, value [B*H, S,
// V].
struct PackedHeads {
  Tensor query, key, value;
};

struct AttentionShape {
  int64_t B, S, H, N, R, V;
  int64_t K() const { return N + R; }
};

PackedHeads pack_heads(const AttentionShape& s, const Tensor& query, const Tensor& kv, const Tensor& rope_key,
                       const float* cos, const float* sin) {
  const auto options = query.options();
  PackedHeads p{at::empty({s.B * s.H, s.S, s.K()}, options), at::empty({s.B * s.H, s.S, s.K()}, options),
                at::empty({s.B * s.H, s.S, s.V}, options)};
  const TrainKernels& k = train_kernels();
  parallel_for(s.B * s.H, 1, [&](int64_t begin, int64_t end) {
    for (int64_t bh = begin; bh < end; ++bh) {
      const int64_t b = bh / s.H, h = bh % s.H, q_row = s.H * s.K(), kv_row = s.H * (s.N + s.V);
      const float* q_from = floats(query) + b * s.S * q_row + h * s.K();
      const float* kv_from = floats(kv) + b * s.S * kv_row + h * (s.N + s.V);
      float* q_to = floats(p.query) + bh * s.S * s.K();
      float* k_to = floats(p.key) + bh * s.S * s.K();
      float* v_to = floats(p.value) + bh * s.S * s.V;
      for (int64_t t = 0; t < s.S; ++t) {
        std::copy_n(q_from + t * q_row, s.N, q_to + t * s.K());
        std::copy_n(kv_from + t * kv_row, s.N, k_to + t * s.K());
        std::copy_n(kv_from + t * kv_row + s.N, s.V, v_to + t * s.V);
      }
      k.rope(q_from + s.N, q_row, 0, q_to + s.N, s.K(), 0, cos, sin, 1, s.S, 1, s.R);
      k.rope(floats(rope_key) + b * s.S * s.R, s.R, 0, k_to + s.N, s.K(), 0, cos, sin, 1, s.S, 1, s.R);
    }
  });
  return p;
}

// A matrix in place: rows and columns, and the distances between them.
struct Matrix {
  float* data;
  int64_t rows, columns, row, column;
  Matrix t() const { return {data, columns, rows, column, row}; }
};

// Rows [first, first + n) of head bh of x [B*H, S, X].
Matrix rows_of(const Tensor& x, int64_t bh, int64_t first, int64_t n) {
  const int64_t S = x.size(1), X = x.size(2);
  return {floats(x) + (bh * S + first) * X, n, X, X, 1};
}

void product(const Matrix& out, const Matrix& a, const Matrix& b, bool adds = false) {
  HADAL_CHECK(out.column == 1 && a.columns == b.rows);
  multiply(Product{out.rows, out.columns, a.columns, a.data, a.row, a.column, b.data, b.row, b.column,
                   out.data, out.row, adds});
}

constexpr int64_t kQueryBlock = 64;

// Queries [first, first + n) of head bh. segment_start_BS: empty without documents.
QueryBlock query_block(const Tensor& segment_start_BS, const AttentionShape& s, int64_t bh, int64_t first,
                       int64_t n) {
  const int64_t* const starts =
      segment_start_BS.numel() > 0 ? longs(segment_start_BS) + bh / s.H * s.S : nullptr;
  return {starts, first_key(starts, first, first + n, 1), first, n};
}

class Attention : public Function<Attention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& query_in, const Tensor& kv_in,
                        const Tensor& rope_key_in, const Tensor& cos_in, const Tensor& sin_in,
                        const Tensor& segment_start_BS, int64_t H, int64_t N, int64_t R, int64_t V,
                        double scale, bool keeps_inputs) {
    const Tensor query = query_in.contiguous(), kv = kv_in.contiguous(), rope_key = rope_key_in.contiguous();
    const Tensor cos = cos_in.contiguous(), sin = sin_in.contiguous();
    const AttentionShape s{query.size(0), query.size(1), H, N, R, V};
    const PackedHeads p = pack_heads(s, query, kv, rope_key, floats(cos), floats(sin));
    const Tensor heads = at::empty({s.B * H, s.S, V}, query.options()),
                 lse = at::empty({s.B * H, s.S}, query.options());
    const TrainKernels& k = train_kernels();
    parallel_for(s.B * H, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> scores(static_cast<size_t>(std::min(kQueryBlock, s.S) * s.S));
      for (int64_t bh = begin; bh < end; ++bh)
        for (int64_t first = 0; first < s.S; first += kQueryBlock) {
          const int64_t n = std::min(kQueryBlock, s.S - first);
          const QueryBlock block = query_block(segment_start_BS, s, bh, first, n);
          const int64_t keys = block.begin(), L = block.keys();
          const Matrix score{scores.data(), n, L, L, 1};
          product(score, rows_of(p.query, bh, first, n), rows_of(p.key, bh, keys, L).t());
          k.causal_softmax(score.data, floats(lse) + bh * s.S + first, block.starts(),
                           static_cast<float>(scale), n, L, block.visible());
          product(rows_of(heads, bh, first, n), score, rows_of(p.value, bh, keys, L));
        }
    });
    const PackedHeads& kept = keeps_inputs ? PackedHeads{query, kv, rope_key} : p;
    ctx->save_for_backward({kept.query, kept.key, kept.value, heads, lse, cos, sin, segment_start_BS});
    ctx->saved_data["keeps_inputs"] = keeps_inputs;
    ctx->saved_data["sizes"] = std::vector<int64_t>{s.B, s.S, H, N, R, V};
    ctx->saved_data["scale"] = scale;
    return heads.view({s.B, H, s.S, V}).transpose(1, 2).reshape({s.B, s.S, H * V});
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const Tensor &heads = saved[3], &lse = saved[4];
    const auto sizes = ctx->saved_data["sizes"].toIntVector();
    const AttentionShape s{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]};
    const PackedHeads p =
        ctx->saved_data["keeps_inputs"].toBool()
            ? pack_heads(s, saved[0], saved[1], saved[2], floats(saved[5]), floats(saved[6]))
            : PackedHeads{saved[0], saved[1], saved[2]};
    const auto scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
    const int64_t BH = s.B * s.H;
    const Tensor dheads =
        grads[0].view({s.B, s.S, s.H, s.V}).transpose(1, 2).reshape({BH, s.S, s.V}).contiguous();
    const Tensor delta = at::empty({BH, s.S}, dheads.options());
    const TrainKernels& k = train_kernels();
    parallel_for(BH * s.S, grain(s.V), [&](int64_t b, int64_t e) {
      k.row_dot(floats(dheads) + b * s.V, s.V, floats(heads) + b * s.V, s.V, floats(delta) + b, e - b, s.V);
    });
    PackedHeads d{at::empty_like(p.query), at::zeros_like(p.key), at::zeros_like(p.value)};
    parallel_for(BH, 1, [&](int64_t begin, int64_t end) {
      const auto size = static_cast<size_t>(std::min(kQueryBlock, s.S) * s.S);
      std::vector<float> probs(size), dscores(size);
      for (int64_t bh = begin; bh < end; ++bh)
        for (int64_t first = 0; first < s.S; first += kQueryBlock) {
          const int64_t n = std::min(kQueryBlock, s.S - first);
          const QueryBlock block = query_block(saved[7], s, bh, first, n);
          const int64_t keys = block.begin(), L = block.keys();
          const Matrix query = rows_of(p.query, bh, first, n), key = rows_of(p.key, bh, keys, L),
                       dout = rows_of(dheads, bh, first, n);
          const Matrix prob{probs.data(), n, L, L, 1}, dscore{dscores.data(), n, L, L, 1};
          product(prob, query, key.t());
          product(dscore, dout, rows_of(p.value, bh, keys, L).t());
          k.causal_exp(prob.data, floats(lse) + bh * s.S + first, block.starts(), scale, n, L,
                       block.visible());
          product(rows_of(d.value, bh, keys, L), prob.t(), dout, /*adds=*/true);
          k.softmax_backward(prob.data, dscore.data, floats(delta) + bh * s.S + first, scale, n, L);
          product(rows_of(d.query, bh, first, n), dscore, key);
          product(rows_of(d.key, bh, keys, L), dscore.t(), query, /*adds=*/true);
        }
    });
    return unpack(s, d, floats(saved[5]), floats(saved[6]));
  }

 private:
  // From gradients per head back to the layout of the inputs; rotations are undone, the shared key's summed.
  static Tensors unpack(const AttentionShape& s, const PackedHeads& d, const float* cos, const float* sin) {
    const auto options = d.query.options();
    const Tensor dquery = at::empty({s.B, s.S, s.H * s.K()}, options),
                 dkv = at::empty({s.B, s.S, s.H * (s.N + s.V)}, options);
    const Tensor dkey_heads = at::empty({s.B, s.H, s.S, s.R}, options);
    const TrainKernels& k = train_kernels();
    parallel_for(s.B * s.H, 1, [&](int64_t begin, int64_t end) {
      for (int64_t bh = begin; bh < end; ++bh) {
        const int64_t b = bh / s.H, h = bh % s.H, q_row = s.H * s.K(), kv_row = s.H * (s.N + s.V);
        const float* q_from = floats(d.query) + bh * s.S * s.K();
        const float* k_from = floats(d.key) + bh * s.S * s.K();
        const float* v_from = floats(d.value) + bh * s.S * s.V;
        float* q_to = floats(dquery) + b * s.S * q_row + h * s.K();
        float* kv_to = floats(dkv) + b * s.S * kv_row + h * (s.N + s.V);
        for (int64_t t = 0; t < s.S; ++t) {
          std::copy_n(q_from + t * s.K(), s.N, q_to + t * q_row);
          std::copy_n(k_from + t * s.K(), s.N, kv_to + t * kv_row);
          std::copy_n(v_from + t * s.V, s.V, kv_to + t * kv_row + s.N);
        }
        k.rope(q_from + s.N, s.K(), 0, q_to + s.N, q_row, 0, cos, sin, -1, s.S, 1, s.R);
        k.rope(k_from + s.N, s.K(), 0, floats(dkey_heads) + bh * s.S * s.R, s.R, 0, cos, sin, -1, s.S, 1,
               s.R);
      }
    });
    const Tensor none;
    return {dquery, dkv, dkey_heads.sum(1), none, none, none, none, none, none, none, none, none};
  }
};

class HeadLoss : public Function<HeadLoss> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden_in, const Tensor& head_WD,
                        const Tensor& target_in, double divisor, bool with_gradients, bool bf16) {
    const Tensor hidden_TD = hidden_in.contiguous(), target_T = target_in.contiguous();
    const int64_t T = hidden_TD.size(0), W = head_WD.size(0);
    const int64_t chunk = logit_rows(T, W);
    const Tensor loss_T = at::empty({T}, hidden_TD.options());
    Tensor dhidden_TD, dhead_WD;
    if (with_gradients) dhidden_TD = at::empty_like(hidden_TD), dhead_WD = at::zeros_like(head_WD);
    Tensor buffer = at::empty({std::min(chunk, T), W}, hidden_TD.options());
    const TrainKernels& k = train_kernels();
    for (int64_t first = 0; first < T; first += chunk) {
      const int64_t n = std::min(chunk, T - first);
      const Tensor hidden = hidden_TD.narrow(0, first, n);
      Tensor logit_XW = buffer.narrow(0, 0, n);  // X: rows of the chunk
      multiply(logit_XW, hidden, head_WD.t(), bf16);
      parallel_for(n, grain(W), [&](int64_t b, int64_t e) {
        k.cross_entropy(floats(logit_XW) + b * W, longs(target_T) + first + b, floats(loss_T) + first + b,
                        static_cast<float>(1.0 / divisor), e - b, W);
      });
      if (!with_gradients) continue;
      multiply(dhidden_TD.narrow(0, first, n), logit_XW, head_WD, bf16);
      multiply(dhead_WD, logit_XW.t(), hidden, bf16, /*adds=*/true);
    }
    if (with_gradients) ctx->save_for_backward({dhidden_TD, dhead_WD});
    return loss_T.sum(at::kDouble).div(divisor).to(at::kFloat);
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const auto [dhidden_TD, dhead_WD] = kept_gradients(ctx->get_saved_variables(), grads[0]);
    const Tensor none;
    return {dhidden_TD, dhead_WD, none, none, none, none};
  }
};

}  // namespace

Tensor fused_rms_norm(const Tensor& x, const Tensor& gain_D, double eps) {
  if (is_plain(x)) return plain_rms_norm(x, gain_D, eps);
  return RmsNorm::apply(x, gain_D, eps);
}

SumAndNorm fused_add_rms_norm(const Tensor& x, const Tensor& delta, const Tensor& gain_D, double eps) {
  if (is_plain(x)) {
    const Tensor sum = x + delta;
    return {sum, plain_rms_norm(sum, gain_D, eps)};
  }
  Tensors out = AddRmsNorm::apply(x, delta, gain_D, eps);
  return {out[0], out[1]};
}

Tensor fused_swiglu(const Tensor& gate, const Tensor& up) {
  if (is_plain(gate)) return silu(gate) * up;
  return Swiglu::apply(gate, up);
}

Tensor fused_attention(const AttentionSizes& s, const Tensor& query, const Tensor& kv, const Tensor& rope_key,
                       const RopeAngles& angles, const Tensor& segment_start_BS) {
  const int64_t B = query.size(0), S = query.size(1);
  if (segment_start_BS.defined()) HADAL_SHAPE(segment_start_BS, B, S);
  if (is_plain(query)) return plain_attention(s, query, kv, rope_key, angles, segment_start_BS);
  const Tensor segments_BS =
      segment_start_BS.defined() ? segment_start_BS.contiguous() : at::empty({0}, at::kLong);
  if (const auto format = half_format(s.products, query))
    return half_attention(*format, s, query, kv, rope_key, angles, segments_BS);
  return Attention::apply(query, kv, rope_key, angles.cos_SX, angles.sin_SX, segments_BS, s.H, s.N, s.R, s.V,
                          s.scale, s.keeps_inputs);
}

Tensor fused_head_loss(const Tensor& hidden_TD, const Tensor& head_WD, const Tensor& target_T, double divisor,
                       Products products) {
  const int64_t T = hidden_TD.size(0), W = head_WD.size(0);
  HADAL_SHAPE(target_T, T);
  if (is_plain(hidden_TD)) return plain_head_loss(hidden_TD, head_WD, target_T, divisor, products);
  HADAL_CHECK(T == 0 || target_T.max().item<int64_t>() < W) << "a target is no token of the vocabulary";
  const bool with_gradients =
      c10::GradMode::is_enabled() && (hidden_TD.requires_grad() || head_WD.requires_grad());
  if (const auto format = half_format(products, hidden_TD))
    return half_head_loss(*format, hidden_TD, head_WD, target_T, divisor);
  return HeadLoss::apply(hidden_TD, head_WD, target_T, divisor, with_gradients, products == Products::kBf16);
}

}  // namespace hadal
