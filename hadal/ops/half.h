// The matrix products of training on 16-bit floats (kernels/half.h): the same functions as in fused.h, with
// inputs of GEMMs rounded under a scale of their own, everything else in fp32. Weights and results
// are fp32. Slow references: the fp32 ones.
#pragma once
#include <cstdint>

#include "hadal/kernels/half.h"
#include "hadal/ops/fused.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

// x [..., K] w [N, K]^T -> [..., N]
Tensor half_linear(HalfFormat format, const Tensor& x, const Tensor& w_NK);
// (silu(x gate^T) * (x up^T)) down^T; x [..., D], gate and up [F, D], down [D, F]
Tensor half_mlp(HalfFormat format, const Tensor& x, const Tensor& gate_FD, const Tensor& up_FD,
                const Tensor& down_DF);
// fused_experts().
Tensor half_experts(HalfFormat format, const Tensor& x_TD, const Tensor& expert_TA, const Tensor& weight_TA,
                    const Tensor& gate_EMD, const Tensor& up_EMD, const Tensor& down_EDM);
// The same plus a shared expert's half_mlp(x).
Tensor half_moe(HalfFormat format, const Tensor& x_TD, const Tensor& expert_TA, const Tensor& weight_TA,
                const Tensor& gate_EMD, const Tensor& up_EMD, const Tensor& down_EDM, const Tensor& gate_FD,
                const Tensor& up_FD, const Tensor& down_DF);

// What attention is computed from: x q_down^T, normed, q_up^T; likewise kv from the first C columns of x
// kv_down^T; the R others are the rope key. q_down [Q, D], q_norm [Q], q_up [H*K, Q], kv_down [C+R, D],
// kv_norm [C], kv_up [H*(N+V), C]
struct MlaProjections {
  const Tensor &q_down, &q_norm, &q_up, &kv_down, &kv_norm, &kv_up;
};
struct MlaInputs {
  Tensor query, kv, rope_key;  // [..., H*K], [..., H*(N+V)], [..., R]
};
MlaInputs half_mla_inputs(HalfFormat format, const Tensor& x, const MlaProjections& w, double eps);

// fused_attention(), each head by half_attention.h.
Tensor half_attention(HalfFormat format, const AttentionSizes& sizes, const Tensor& query, const Tensor& kv,
                      const Tensor& rope_key, const RopeAngles& angles, const Tensor& segment_start_BS);

// A matrix times `scale`, rounded; of dtype kHalf in either format.
struct HalfTensor {
  Tensor x;
  float scale = 1;
};
HalfTensor half_rounded(HalfFormat format, const Tensor& x);  // contiguous

// fused_head_loss().
Tensor half_head_loss(HalfFormat format, const Tensor& hidden_TD, const Tensor& head_WD,
                      const Tensor& target_T, double divisor);

}  // namespace hadal
