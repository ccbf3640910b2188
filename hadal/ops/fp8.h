// The matrix products of training in FP8, as V3 makes them (report 3.3): the same functions as in fused.h,
// with the factors of each product rounded to codes with scales (kernels/fp8.h). An emulation on the CPU: the
// codes, scales and sums are those of the formats, the arithmetic is fp32. Weights and their gradients are
// fp32; results and gradients of activations are rounded to bf16, as the GEMMs there write them. What the
// backward pass keeps of activations and weights is codes. Slow references: the fp32 functions.
#pragma once
#include <cstdint>

#include "hadal/kernels/fp8.h"
#include "hadal/tensor/fwd.h"

namespace hadal {

// Which values share a scale. Tiles: 128 terms of a sum (1 x 128, and 128 x 1 for gradients of weights).
enum class Fp8Group { kTile, kBlock, kTensor };

// V3's choices are the defaults, but for the sums: there they are kHopper's.
struct Fp8Recipe {
  Fp8Sums sums = Fp8Sums::kFp32;
  Fp8Group activations = Fp8Group::kTile;
  Fp8Group gradients = Fp8Group::kTile;  // of activations
  Fp8Group weights = Fp8Group::kBlock;
  Fp8Format gradient_format = Fp8Format::kE4M3;
};

// What a product's input is.
enum class Fp8Input {
  kPlain,
  kAttention,  // attention's output: kept in E5M6 (12 bits) for the backward pass, scales are powers of two
};

// x [..., K] w [N, K]^T -> [..., N]
Tensor fp8_linear(const Fp8Recipe& recipe, Fp8Input input, const Tensor& x, const Tensor& w_NK);
// (silu(x gate^T) * (x up^T)) down^T; x [..., D], gate and up [F, D], down [D, F]. The inputs of SwiGLU are
// kept as codes, its output is computed again.
Tensor fp8_mlp(const Fp8Recipe& recipe, const Tensor& x, const Tensor& gate_FD, const Tensor& up_FD,
               const Tensor& down_DF);
// fused_experts(). Scales of what is sent to experts, forward and backward, are powers of two.
Tensor fp8_experts(const Fp8Recipe& recipe, const Tensor& x_TD, const Tensor& expert_TA,
                   const Tensor& weight_TA, const Tensor& gate_EMD, const Tensor& up_EMD,
                   const Tensor& down_EDM);

}  // namespace hadal
