#pragma once
#include <optional>
#include <string>

#include "hadal/kernels/half.h"
#include "hadal/tensor/fwd.h"

namespace hadal {

// How the matrix products of fp32 tensors are computed, forward and backward.
enum class Products {
  kF32,
  kBf16,  // both factors rounded to bf16, summed in fp32. By kernels/half.h where that is fast, otherwise by
          // LibTorch, which rounds the result to bf16 once
  kF16,   // both factors scaled and rounded to fp16, summed as kernels/half.h says, the result in fp32
};

// The format of kernels/half.h that these products of x take here, if any.
std::optional<HalfFormat> half_format(Products products, const Tensor& x);

// f32, bf16, f16 or fp8 (whose other products are bf16), as a training configuration says. f16 throws
// unsupported where it would be slower than f32, on a machine without AVX512-FP16.
Products products_named(const std::string& precision);

// x w^T. x [..., X], w [Y, X] -> [..., Y], fp32, but where x is plain (tensor/device.h) in the dtype of
// plain.h. What the backward pass keeps is the fp32 tensors, but of half_format() the rounded x.
Tensor linear(const Tensor& x, const Tensor& w, Products products = Products::kF32);

}  // namespace hadal
