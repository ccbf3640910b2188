// Products of fp32 matrices for training. Torch-free.
#pragma once
#include <cstdint>

namespace hadal {

// c [M, N] = a b, or added to. a_ik = a[i * a_row + k * a_k], b_kj = b[k * b_k + j * b_column],
// c_ij = c[i * c_row + j], which overlaps neither a nor b.
struct Product {
  int64_t M, N, K;
  const float* a;
  int64_t a_row, a_k;
  const float* b;
  int64_t b_k, b_column;
  float* c;
  int64_t c_row;
  bool add;
};

// Terms that are added up in registers, and columns of b that are packed at a time.
constexpr int64_t kProductDepth = 256, kProductColumns = 512;
// Floats that a call needs to work in, on a multiple of 64 bytes.
constexpr int64_t kProductSpace = kProductDepth * (kProductColumns + 16);

struct ProductKernels {
  const char* isa;
  void (*multiply)(const Product& product, float* space);
};

// On the calling thread. An element of c is a sum of chains of fused multiply-adds, kProductDepth terms in
// the order of k each: its bits depend neither on the instruction set nor on which other rows and columns are
// computed in the call, so work may be cut anywhere along M and N.
void multiply(const Product& product);

// Tables that run here, best first; the last is "scalar", the oracle.
int num_product_kernels();
const ProductKernels& product_kernels_at(int index);

}  // namespace hadal
