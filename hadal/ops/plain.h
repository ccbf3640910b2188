// The operations of fused.h as LibTorch's own, for tensors that are not on the CPU (is_plain()). bf16 means
// there: activations between matrix products are bf16, products and their results too; norms, gate, softmax,
// sums over experts, residual stream, loss and weights stay fp32.
#pragma once
#include "hadal/ops/fused.h"
#include "hadal/ops/linear.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

// x w^T; bf16 if products are.
Tensor plain_linear(const Tensor& x, const Tensor& w, Products products);
Tensor plain_rms_norm(const Tensor& x, const Tensor& gain_D, double eps);  // fp32
Tensor plain_attention(const AttentionSizes& sizes, const Tensor& query, const Tensor& kv,
                       const Tensor& rope_key, const RopeAngles& angles, const Tensor& segment_start_BS);
// Copies are sorted by expert and multiplied group by group, on Hopper in one kernel a matrix; in fp32 a
// matrix at a time, for which the host waits once for the counts. Sums have a fixed order.
Tensor plain_experts(const Tensor& x_TD, const Tensor& expert_TA, const Tensor& weight_TA,
                     const Tensor& gate_EMD, const Tensor& up_EMD, const Tensor& down_EDM, Products products);
Tensor plain_head_loss(const Tensor& hidden_TD, const Tensor& head_WD, const Tensor& target_T, double divisor,
                       Products products);

}  // namespace hadal
