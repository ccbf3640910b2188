#include "hadal/ops/fp8_matrix.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "hadal/base/check.h"
#include "hadal/ops/data.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

uint8_t* codes(const Tensor& x) {
  return static_cast<uint8_t*>(x.data_ptr());
}

int64_t whole_units(int64_t n) {
  return (n + kFp8Unit - 1) / kFp8Unit * kFp8Unit;
}

// Codes without their scales as floats, rows `stride` apart: whole units, and lines of the cache apart from
// multiples of 4096 bytes, that a column shall not fall into one set of it.
struct Values {
  Tensor x;
  int64_t stride;
};
Values values_of(const Fp8Matrix& m) {
  const int64_t rows = m.grid.rows, cols = m.grid.cols;
  Values v{Tensor(), whole_units(cols) + 16};
  v.x = empty({rows, v.stride});
  for (int64_t r = 0; r < rows; ++r) {
    float* row = floats(v.x) + r * v.stride;
    fp8_kernels().decode(m.format, codes(m.code) + r * cols, 1, row, cols);
    std::fill(row + cols, row + v.stride, 0.0f);  // past the last column whole units are read
  }
  return v;
}

int64_t terms(const Fp8Factor& f) {
  return f.along == Fp8Along::kColumns ? f.matrix.grid.cols : f.matrix.grid.rows;
}
int64_t others(const Fp8Factor& f) {
  return f.along == Fp8Along::kColumns ? f.matrix.grid.rows : f.matrix.grid.cols;
}
// Of the i-th of the others in a block of 128 terms.
float scale_of(const Fp8Factor& f, int64_t i, int64_t block) {
  const int64_t k = block * kFp8Block;
  const Fp8Grid& g = f.matrix.grid;
  return floats(f.matrix.scale)[f.along == Fp8Along::kColumns ? g.scale_at(i, k) : g.scale_at(k, i)];
}

// Rows of c shared out to threads.
void multiply(const Fp8Product& whole) {
  const int64_t work = std::max<int64_t>(1, whole.N * whole.K * 32);
  parallel_for((whole.M + 31) / 32, std::max<int64_t>(1, (1 << 20) / work), [&](int64_t begin, int64_t end) {
    Fp8Product p = whole;
    const int64_t first = begin * 32;
    p.a += first * p.a_row, p.a_scale += first * p.a_scale_row, p.c += first * p.c_row;
    p.M = std::min(end * 32, whole.M) - first;
    fp8_kernels().multiply(p);
  });
}

}  // namespace

Fp8Grid fp8_grid(Fp8Group group, Fp8Along along, int64_t rows, int64_t cols) {
  if (group == Fp8Group::kTensor) return {rows, cols, std::max<int64_t>(1, rows), cols};
  if (group == Fp8Group::kBlock) return block_grid(rows, cols);
  return along == Fp8Along::kColumns ? Fp8Grid{rows, cols, 1, kFp8Block} : Fp8Grid{rows, cols, kFp8Block, 1};
}

Fp8Matrix fp8_matrix(const Fp8Scaling& scaling, const Fp8Grid& grid, const float* x) {
  Fp8Matrix m{empty({grid.rows, grid.cols}, at::kByte), empty({grid.scale_rows(), grid.scale_cols()}), grid,
              scaling.format};
  fp8_quantise(fp8_kernels(), scaling, grid, x, codes(m.code), floats(m.scale));
  return m;
}

Tensor fp8_values(const Fp8Matrix& m) {
  const Tensor x = empty({m.grid.rows, m.grid.cols});
  fp8_dequantise(fp8_kernels(), m.format, m.grid, codes(m.code), floats(m.scale), floats(x));
  return x;
}

Fp8Matrix fp8_weight(const Fp8Recipe& recipe, const float* w, int64_t N, int64_t K) {
  return fp8_matrix({}, fp8_grid(recipe.weights, Fp8Along::kColumns, N, K), w);
}

void fp8_multiply(const Fp8Factor& a, const Fp8Factor& b, float* c, const Fp8Write& write) {
  const int64_t M = others(a), N = others(b), K = terms(a), blocks = fp8_blocks(K), columns = whole_units(N);
  HADAL_CHECK(terms(b) == K) << terms(b) << " and " << K;
  Fp8Product p{.M = M, .N = N, .K = K};
  const Values left = values_of(a.matrix), right = values_of(b.matrix);
  p.a = floats(left.x), p.a_row = left.stride, p.a_k = 1;
  if (a.along == Fp8Along::kRows) std::swap(p.a_row, p.a_k);
  p.b = floats(right.x), p.b_unit = kFp8Unit, p.b_k = right.stride;
  Tensor packed;
  if (b.along == Fp8Along::kColumns) {
    packed = empty({columns, K});
    fp8_kernels().transpose_units(floats(right.x), right.stride, floats(packed), N, K);
    p.b = floats(packed), p.b_unit = kFp8Unit * K, p.b_k = kFp8Unit;
  }
  std::vector<float> a_scale(static_cast<size_t>(M * blocks)), b_scale(static_cast<size_t>(blocks * columns));
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t m = 0; m < M; ++m) a_scale[static_cast<size_t>(m * blocks + block)] = scale_of(a, m, block);
    for (int64_t n = 0; n < N; ++n) b_scale[static_cast<size_t>(block * columns + n)] = scale_of(b, n, block);
  }
  p.a_scale = a_scale.data(), p.a_scale_row = blocks, p.b_scale = b_scale.data(), p.b_columns = columns;
  p.c = c, p.c_row = N;
  p.sums = write.sums, p.add = write.add, p.round = write.round;
  multiply(p);
}

}  // namespace hadal
