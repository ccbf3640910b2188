// Matrices in codes, and their products, for the autograd functions of fp8.h.
#pragma once
#include "hadal/ops/fp8.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

// rows x cols of codes with a scale for each group.
struct Fp8Matrix {
  Tensor code, scale;  // uint8 [rows, cols], fp32 [scale_rows, scale_cols]
  Fp8Grid grid{};
  Fp8Format format = Fp8Format::kE4M3;
};

// Which dimension a product sums over.
enum class Fp8Along { kColumns, kRows };

Fp8Grid fp8_grid(Fp8Group group, Fp8Along along, int64_t rows, int64_t cols);
// x [rows, cols] contiguous fp32.
Fp8Matrix fp8_matrix(const Fp8Scaling& scaling, const Fp8Grid& grid, const float* x);
Tensor fp8_values(const Fp8Matrix& m);  // code * scale, fp32 [rows, cols]

// A weight as products see it and as an official checkpoint stores it.
Fp8Matrix fp8_weight(const Fp8Recipe& recipe, const float* w, int64_t N, int64_t K);

// How a result is written.
struct Fp8Write {
  Fp8Sums sums = Fp8Sums::kFp32;
  bool add = false, round = false;  // to what c holds; to bf16
};
// c [M, N] = the products of a and b summed over the `along` dimension of each; M and N are the others. So
// y = x w^T sums over columns of both, dx = dy w over columns of dy and rows of w, dw = dy^T x over rows of
// both. What is summed over is grouped along that, in blocks or as one.
struct Fp8Factor {
  const Fp8Matrix& matrix;
  Fp8Along along;
};
void fp8_multiply(const Fp8Factor& a, const Fp8Factor& b, float* c, const Fp8Write& write);

}  // namespace hadal
