#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "hadal/kernels/half.h"
#include "hadal/kernels/half_attention.h"
#include "hadal/ops/data.h"
#include "hadal/ops/half.h"
#include "hadal/ops/rope.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

// The inputs of all heads, contiguous, and where each one's stand.
struct Inputs {
  Tensor query, kv, rope_key, cos, sin, segment_start_BS;  // segment_start_BS: empty without documents
  int64_t B, H;
  HalfHeadSizes sizes;

  HalfHeadInputs head(int64_t b, int64_t h) const {
    const int64_t S = sizes.S, query_row = H * sizes.K(), kv_row = H * (sizes.N + sizes.V);
    const auto from = [](const Tensor& x, int64_t at) { return x.defined() ? floats(x) + at : nullptr; };
    return {from(query, b * S * query_row + h * sizes.K()),
            query_row,
            from(kv, b * S * kv_row + h * (sizes.N + sizes.V)),
            kv_row,
            from(rope_key, b * S * sizes.R),
            floats(cos),
            floats(sin),
            segment_start_BS.numel() > 0 ? longs(segment_start_BS) + b * S : nullptr};
  }
  // body(b, h, number of the head)
  void for_each_head(auto&& body) const {
    parallel_for(B * H, 1, [&](int64_t begin, int64_t end) {
      for (int64_t bh = begin; bh < end; ++bh) body(bh / H, bh % H, bh);
    });
  }
};

// Of all heads.
struct Packed {
  Tensor values, scales;  // [B*H, half_head_values()], fp32 [B*H, 4]
  uint16_t* head(int64_t bh) const { return static_cast<uint16_t*>(values.data_ptr()) + bh * values.size(1); }
  HalfHeadScales* head_scales(int64_t bh) const {
    static_assert(sizeof(HalfHeadScales) == 4 * sizeof(float));
    return static_cast<HalfHeadScales*>(scales.data_ptr()) + bh;
  }
};

Packed pack(const Inputs& in) {
  Packed packed{at::empty({in.B * in.H, half_head_values(in.sizes)}, at::kHalf),
                at::empty({in.B * in.H, 4}, at::kFloat)};
  in.for_each_head([&](int64_t b, int64_t h, int64_t bh) {
    *packed.head_scales(bh) = half_head_pack(in.sizes, in.head(b, h), packed.head(bh));
  });
  return packed;
}

class HalfAttention : public Function<HalfAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, HalfFormat format, const Tensor& query, const Tensor& kv,
                        const Tensor& rope_key, const Tensor& cos, const Tensor& sin,
                        const Tensor& segment_start_BS, int64_t H, int64_t N, int64_t R, int64_t V,
                        double scale, bool keeps_inputs) {
    const int64_t B = query.size(0), S = query.size(1);
    const Inputs in{query.contiguous(),
                    kv.contiguous(),
                    rope_key.contiguous(),
                    cos.contiguous(),
                    sin.contiguous(),
                    segment_start_BS,
                    B,
                    H,
                    {S, N, R, V, static_cast<float>(scale), format}};
    const Packed packed = pack(in);
    const Tensor out = at::empty({B, S, H * V}, at::kFloat), lse = at::empty({B * H, S}, at::kFloat);
    in.for_each_head([&](int64_t b, int64_t h, int64_t bh) {
      half_head_forward(in.sizes, packed.head(bh), *packed.head_scales(bh), in.head(b, h).segment_start,
                        floats(out) + b * S * H * V + h * V, H * V, floats(lse) + bh * S);
    });
    const Tensor none;
    if (keeps_inputs) {
      ctx->save_for_backward(
          {out, lse, in.cos, in.sin, segment_start_BS, none, none, in.query, in.kv, in.rope_key});
    } else {
      ctx->save_for_backward(
          {out, lse, in.cos, in.sin, segment_start_BS, packed.values, packed.scales, none, none, none});
    }
    ctx->saved_data["sizes"] = std::vector<int64_t>{B, S, H, N, R, V, static_cast<int64_t>(format)};
    ctx->saved_data["scale"] = scale;
    return out;
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensors saved = ctx->get_saved_variables();
    const Tensor &out = saved[0], &lse = saved[1];
    const auto n = ctx->saved_data["sizes"].toIntVector();
    const int64_t B = n[0], S = n[1], H = n[2], N = n[3], R = n[4], V = n[5];
    const auto format = static_cast<HalfFormat>(n[6]);
    const auto scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
    const Inputs in{
        saved[7], saved[8], saved[9], saved[2], saved[3], saved[4], B, H, {S, N, R, V, scale, format}};
    const Packed packed = in.query.defined() ? pack(in) : Packed{saved[5], saved[6]};
    const Tensor dout = grads[0].contiguous();
    const HalfTensor dout_half = half_rounded(format, dout);
    const Tensor dquery = at::empty({B, S, H * (N + R)}, at::kFloat),
                 dkv = at::empty({B, S, H * (N + V)}, at::kFloat),
                 drope_key = at::empty({B, H, S, R}, at::kFloat);
    in.for_each_head([&](int64_t b, int64_t h, int64_t bh) {
      const int64_t at = b * S * H * V + h * V;
      half_head_backward(in.sizes, in.head(b, h), packed.head(bh), *packed.head_scales(bh),
                         {floats(out) + at, floats(dout) + at, floats(lse) + bh * S,
                          static_cast<const uint16_t*>(dout_half.x.data_ptr()) + at, dout_half.scale, H * V,
                          floats(dquery) + b * S * H * (N + R) + h * (N + R),
                          floats(dkv) + b * S * H * (N + V) + h * (N + V), floats(drope_key) + bh * S * R});
    });
    const Tensor none;
    return {none, dquery, dkv, drope_key.sum(1), none, none, none, none, none, none, none, none, none};
  }
};

}  // namespace

Tensor half_attention(HalfFormat format, const AttentionSizes& s, const Tensor& query, const Tensor& kv,
                      const Tensor& rope_key, const RopeAngles& angles, const Tensor& segment_start_BS) {
  return HalfAttention::apply(format, query, kv, rope_key, angles.cos_SX, angles.sin_SX, segment_start_BS,
                              s.H, s.N, s.R, s.V, s.scale, s.keeps_inputs);
}

}  // namespace hadal
