#include "hadal/model/mla.h"

#include <cmath>

#include "hadal/base/check.h"
#include "hadal/ops/fused.h"
#include "hadal/ops/half.h"
#include "hadal/ops/linear.h"
#include "hadal/ops/rms_norm.h"
#include "hadal/ops/tensor_sum.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

// The latent norms use the class default of the references, not the model's norm_eps (spec 4.1).
constexpr double kLatentNormEps = 1e-6;

// softmax(scale * query key^T) value under the causal mask, the queries being the last S of L positions. In
// fp32 with one rounding at the end: rounding scores to bf16 costs more accuracy than all the rest.
// query [B, H, S, X], key [B, H or 1, L, X], value [B, H or 1, L, Y] -> [B, H, S, Y]
Tensor attend(const Tensor& query, const Tensor& key, const Tensor& value, double scale) {
  const int64_t S = query.size(2), L = key.size(2);
  Tensor score_BHSL = query.to(at::kFloat).matmul(key.to(at::kFloat).transpose(2, 3)) * scale;
  if (S > 1) {
    const Tensor query_position = on_device(arange(L - S, L), query.device()).unsqueeze(1);
    score_BHSL =
        score_BHSL.masked_fill(on_device(arange(0, L), query.device()).gt(query_position), -INFINITY);
  }
  return score_BHSL.softmax(-1).matmul(value.to(at::kFloat)).to(query.scalar_type());
}

Tensor k_up_HNC(const MlaConfig& mla, const MlaWeights& w) {
  return w.kv_up.unflatten(0, {mla.num_heads, mla.nope_dim + mla.value_dim}).narrow(1, 0, mla.nope_dim);
}

Tensor v_up_HVC(const MlaConfig& mla, const MlaWeights& w) {
  return w.kv_up.unflatten(0, {mla.num_heads, mla.nope_dim + mla.value_dim})
      .narrow(1, mla.nope_dim, mla.value_dim);
}

void check_shapes(const MlaConfig& mla, const MlaQuery& q, const Tensor& latent_BLC,
                  const Tensor& rope_key_BLR) {
  const int64_t B = latent_BLC.size(0), L = latent_BLC.size(1), S = q.q_nope_BSHN.size(1);
  const int64_t H = mla.num_heads, N = mla.nope_dim, R = mla.rope_dim, C = mla.kv_latent;
  const Tensor &q_nope_BSHN = q.q_nope_BSHN, &q_rope_BSHR = q.q_rope_BSHR;
  HADAL_SHAPE(q_nope_BSHN, B, S, H, N);
  HADAL_SHAPE(q_rope_BSHR, B, S, H, R);
  HADAL_SHAPE(latent_BLC, B, L, C);
  HADAL_SHAPE(rope_key_BLR, B, L, R);
}

// All heads' queries before rotation, [B, S, H*K].
Tensor raw_query(const MlaConfig& mla, const MlaWeights& w, const Tensor& x_BSD) {
  if (mla.query_latent == 0) return x_BSD.matmul(w.query.t());
  return rms_norm(x_BSD.matmul(w.q_down.t()), w.q_norm, kLatentNormEps).matmul(w.q_up.t());
}

// The norm of a latent and its up-projection in training; both may be discarded after use.
struct LatentUp {
  Tensor raw, norm, up;
};
Tensor normed_up(const LatentUp& l, const TrainingPass& pass, Discarded& discarded) {
  const Tensor normed = rms_norm(l.raw, l.norm, kLatentNormEps);
  const Tensor y = project(pass, into_parts(normed, pass.tensor_sum), l.up);
  discarded.add(
      normed, [raw = l.raw.detach(), norm = l.norm.detach()] { return rms_norm(raw, norm, kLatentNormEps); });
  discarded.add(y, [x = normed.detach(), up = l.up.detach(), pass] { return project(pass, x, up); });
  return y;
}

}  // namespace

LatentRow project_latent(const MlaConfig& mla, const MlaWeights& w, const Tensor& x_BSD,
                         const RopeAngles& angles) {
  const int64_t B = x_BSD.size(0), S = x_BSD.size(1), D = w.kv_down.size(1);
  HADAL_SHAPE(x_BSD, B, S, D);
  const Tensor raw = x_BSD.matmul(w.kv_down.t());  // [B, S, C+R]; only the latent part is normed
  return {rms_norm(raw.narrow(-1, 0, mla.kv_latent), w.kv_norm, kLatentNormEps),
          rope(raw.narrow(-1, mla.kv_latent, mla.rope_dim), angles)};
}

MlaQuery project_query(const MlaConfig& mla, const MlaWeights& w, const Tensor& x_BSD,
                       const RopeAngles& angles) {
  const int64_t B = x_BSD.size(0), S = x_BSD.size(1), D = w.kv_down.size(1);
  HADAL_SHAPE(x_BSD, B, S, D);
  const Tensor q_BSHK = raw_query(mla, w, x_BSD).unflatten(-1, {mla.num_heads, mla.key_dim()});
  return {q_BSHK.narrow(-1, 0, mla.nope_dim), rope(q_BSHK.narrow(-1, mla.nope_dim, mla.rope_dim), angles)};
}

Tensor mla_expanded(const MlaConfig& mla, const MlaWeights& w, const MlaQuery& q, const Tensor& latent_BLC,
                    const Tensor& rope_key_BLR, double scale) {
  check_shapes(mla, q, latent_BLC, rope_key_BLR);
  const int64_t H = mla.num_heads, N = mla.nope_dim, V = mla.value_dim;
  const Tensor kv_BHLX = latent_BLC.matmul(w.kv_up.t()).unflatten(-1, {H, N + V}).transpose(1, 2);  // X: N+V
  const Tensor rope_key_BHLR = rope_key_BLR.unsqueeze(1).expand({-1, H, -1, -1});
  const Tensor key_BHLK = concat({kv_BHLX.narrow(-1, 0, N), rope_key_BHLR}, -1);
  const Tensor query_BHSK = concat({q.q_nope_BSHN, q.q_rope_BSHR}, -1).transpose(1, 2);
  const Tensor value_BHLV = kv_BHLX.narrow(-1, N, V);
  return attend(query_BHSK, key_BHLK, value_BHLV, scale).transpose(1, 2);
}

Tensor mla_absorbed(const MlaConfig& mla, const MlaWeights& w, const MlaQuery& q, const Tensor& latent_BLC,
                    const Tensor& rope_key_BLR, double scale) {
  check_shapes(mla, q, latent_BLC, rope_key_BLR);
  const Tensor key_BLX = concat({latent_BLC, rope_key_BLR}, -1).unsqueeze(1);  // X: C+R, one for all heads
  const Tensor q_latent_BHSC = q.q_nope_BSHN.transpose(1, 2).matmul(k_up_HNC(mla, w));
  const Tensor query_BHSX = concat({q_latent_BHSC, q.q_rope_BSHR.transpose(1, 2)}, -1);
  const Tensor sum_BHSC = attend(query_BHSX, key_BLX, latent_BLC.unsqueeze(1), scale);
  return sum_BHSC.matmul(v_up_HVC(mla, w).transpose(1, 2)).transpose(1, 2);
}

Tensor mla_training(const MlaConfig& mla, const MlaWeights& w, const Tensor& x_BSD, const RopeAngles& angles,
                    double scale, const TrainingPass& pass, Discarded& discarded) {
  const int64_t B = x_BSD.size(0), S = x_BSD.size(1), D = w.kv_down.size(1);
  HADAL_SHAPE(x_BSD, B, S, D);
  const Products products = pass.products;
  HADAL_CHECK(!pass.tensor_sum || products == Products::kF32) << "heads are shared out in fp32";
  const bool keeps_inputs = pass.recompute == Recompute::kSelective;
  const AttentionSizes sizes{mla.num_heads, mla.nope_dim, mla.rope_dim, mla.value_dim,
                             scale,         keeps_inputs, products};
  if (const auto format = half_format(products, x_BSD); format && !pass.fp8 && mla.query_latent > 0) {
    const MlaInputs in = half_mla_inputs(
        *format, x_BSD, {w.q_down, w.q_norm, w.q_up, w.kv_down, w.kv_norm, w.kv_up}, kLatentNormEps);
    return fused_attention(sizes, in.query, in.kv, in.rope_key, angles, pass.segment_start_BS);
  }
  const Tensor raw = project(pass, x_BSD, w.kv_down);
  const Tensor kv = normed_up({raw.narrow(-1, 0, mla.kv_latent), w.kv_norm, w.kv_up}, pass, discarded);
  Tensor query;
  if (mla.query_latent == 0) {
    query = project(pass, into_parts(x_BSD, pass.tensor_sum), w.query);
    discarded.add(query, [x = x_BSD.detach(), w = w.query.detach(), pass] { return project(pass, x, w); });
  } else {
    query = normed_up({project(pass, x_BSD, w.q_down), w.q_norm, w.q_up}, pass, discarded);
  }
  const Tensor rope_key = into_parts(raw.narrow(-1, mla.kv_latent, mla.rope_dim), pass.tensor_sum);
  return fused_attention(sizes, query, kv, rope_key, angles, pass.segment_start_BS);
}

}  // namespace hadal
