// The choice of experts token by token, what route() otherwise takes a dozen sorts and scatters for.
#pragma once
#include "hadal/config.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

// int64 [T, A], ascending in a row; rules and ties as route()'s. affinity_TE fp32; bias_E fp32, used with
// Choice::kGroupTopTwo only.
Tensor choose_experts(const MoeConfig& moe, const Tensor& affinity_TE, const Tensor& bias_E);
Tensor choose_experts_reference(const MoeConfig& moe, const Tensor& affinity_TE, const Tensor& bias_E);

}  // namespace hadal
