// The differentiable operations of training in fp32, each one function of autograd over our kernels, where
// LibTorch would make many passes over memory. Slow references of the same names stand beside them: rms_norm,
// rope and mla_expanded, mlp and experts, cross_entropy. CPU tensors, fp32 unless said.
#pragma once
#include <cstdint>

#include "hadal/ops/linear.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

struct RopeAngles;

// rms_norm().
Tensor fused_rms_norm(const Tensor& x, const Tensor& gain_D, double eps);

// x + delta and its rms_norm(), in one pass over memory each way.
struct SumAndNorm {
  Tensor sum, normed;
};
SumAndNorm fused_add_rms_norm(const Tensor& x, const Tensor& delta, const Tensor& gain_D, double eps);

// silu(gate) * up.
Tensor fused_swiglu(const Tensor& gate, const Tensor& up);

// Causal attention of whole sequences, expanded form, RoPE included. Scores exist for one block of queries at
// a time and are recomputed in the backward pass: memory grows linearly with S, never S x S. query [B, S,
// H*(N+R)] and rope_key [B, S, R] not yet rotated, kv [B, S, H*(N+V)] -> [B, S, H*V]. segment_start_BS int64:
// the first position each token sees, its document's; undefined: 0.
struct AttentionSizes {
  int64_t H, N, R, V;
  double scale;                        // of the scores
  bool keeps_inputs = false;           // for the backward pass, instead of rotated copies per head
  Products products = Products::kF32;  // kF16: in half precision; otherwise fp32
};
Tensor fused_attention(const AttentionSizes& sizes, const Tensor& query, const Tensor& kv,
                       const Tensor& rope_key, const RopeAngles& angles, const Tensor& segment_start_BS);

// experts(): tokens sorted by expert, one GEMM per expert and matrix, hidden states recomputed from gate and
// up. expert_TA int64 ascending in a row, weight_TA. products as in linear(). -> [T, D]
Tensor fused_experts(const Tensor& x_TD, const Tensor& expert_TA, const Tensor& weight_TA,
                     const Tensor& gate_EMD, const Tensor& up_EMD, const Tensor& down_EDM,
                     Products products = Products::kF32);

// The same over an exchange: the weights are those of the e experts here, of E in all. With weights [X, e, M,
// D] that are one set X times (expanded), X the number of senders, gradients are kept apart by sender. In
// fp32.
class ExpertExchange;
struct ExpertMatrices {
  const Tensor &gate_eMD, &up_eMD, &down_eDM;
};
Tensor exchanged_experts(ExpertExchange& exchange, int64_t E, const Tensor& x_TD, const Tensor& expert_TA,
                         const Tensor& weight_TA, const ExpertMatrices& w);

// Sum of cross_entropy(hidden head^T, target) over the rows, divided by `divisor`; a scalar. Logits exist for
// some rows at a time and never as T x W; the gradients are made on the way.
// hidden_TD, head_WD, target_T int64 (negative: no loss). products as in linear(), the rest in fp32.
Tensor fused_head_loss(const Tensor& hidden_TD, const Tensor& head_WD, const Tensor& target_T, double divisor,
                       Products products = Products::kF32);

// log softmax(hidden head^T / temperature) at the targets, and the entropies of those distributions in nats,
// both [T]. Logits exist for some rows at a time, and are computed again in the backward pass. hidden_TD,
// head_WD, target_T int64, every one a token.
struct TokenLogps {
  Tensor logp_T, entropy_T;
};
TokenLogps fused_token_logps(const Tensor& hidden_TD, const Tensor& head_WD, const Tensor& target_T,
                             double temperature);

}  // namespace hadal
