// Compiled once per instruction set, with HADAL_ISA naming the namespace. No standard library here, whose
// templates would leak wide instructions into the program.
#include "hadal/kernels/product.h"

#include <stdint.h>
#ifdef __AVX2__
#pragma GCC diagnostic ignored "-Wuninitialized"  // false alarms of g++ 12 on its own header, where inlined
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

#define HADAL_STR2(a) #a
#define HADAL_STR(a) HADAL_STR2(a)

namespace hadal::kernels::HADAL_ISA {
namespace {

// A tile of kRows x 2 vectors of sums fills the registers, with one vector of a and two of b.
#if defined(__AVX512F__)
using Vec = __m512;
constexpr int kLanes = 16, kRows = 12;
inline Vec load(const float* x) {
  return _mm512_loadu_ps(x);
}
inline Vec repeat(float x) {
  return _mm512_set1_ps(x);
}
inline void store(float* y, Vec x) {
  _mm512_storeu_ps(y, x);
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
inline Vec interleave(Vec a, Vec b, int half) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  return _mm512_permutex2var_ps(a, _mm512_add_epi32(low, _mm512_set1_epi32(8 * half)), b);
}
#elif defined(__AVX2__)
using Vec = __m256;
constexpr int kLanes = 8, kRows = 6;
inline Vec load(const float* x) {
  return _mm256_loadu_ps(x);
}
inline Vec repeat(float x) {
  return _mm256_set1_ps(x);
}
inline void store(float* y, Vec x) {
  _mm256_storeu_ps(y, x);
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline Vec interleave(Vec a, Vec b, int half) {
  const Vec low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
  return half ? _mm256_permute2f128_ps(low, high, 0x31) : _mm256_permute2f128_ps(low, high, 0x20);
}
#else
using Vec = float;
constexpr int kLanes = 1, kRows = 3;
inline Vec load(const float* x) {
  return *x;
}
inline Vec repeat(float x) {
  return x;
}
inline void store(float* y, Vec x) {
  *y = x;
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return __builtin_fmaf(a, b, c);
}
inline Vec interleave(Vec a, Vec, int) {
  return a;
}
#endif
constexpr int kPanel = 2 * kLanes;  // columns of a tile

inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// r[i][j] -> r[j][i]: a step moves the highest bit of i to the lowest of j and the highest of j to the lowest
// of i.
inline void transpose(Vec* r) {
  Vec t[kLanes];
  for (int bit = 1; bit < kLanes; bit *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i)
      t[2 * i] = interleave(r[i], r[i + kLanes / 2], 0),
            t[2 * i + 1] = interleave(r[i], r[i + kLanes / 2], 1);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) r[i] = t[i];
  }
}

// n <= kPanel columns of b to y [depth][kPanel], the others 0.
void pack_panel(const float* b, int64_t b_k, int64_t b_column, int64_t depth, int64_t n, float* y) {
  if (b_column == 1 && n == kPanel) {
    for (int64_t k = 0; k < depth; ++k, b += b_k, y += kPanel)
      store(y, load(b)), store(y + kLanes, load(b + kLanes));
    return;
  }
  int64_t k = 0;
  if (b_k == 1 && n == kPanel)
    for (; k + kLanes <= depth; k += kLanes)
      for (int part = 0; part < kPanel; part += kLanes) {
        Vec r[kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) r[i] = load(b + (part + i) * b_column + k);
        transpose(r);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) store(y + (k + i) * kPanel + part, r[i]);
      }
  for (; k < depth; ++k)
    for (int64_t j = 0; j < kPanel; ++j) y[k * kPanel + j] = j < n ? b[k * b_k + j * b_column] : 0;
}

// n <= kRows rows of a to y [depth][kRows], the others 0.
void pack_rows(const float* a, int64_t a_row, int64_t a_k, int64_t depth, int64_t n, float* y) {
  if (n == kRows && a_row == 1) {
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t i = 0; i < kRows; ++i) y[k * kRows + i] = a[k * a_k + i];
    return;
  }
  for (int64_t k = 0; k < depth; ++k)
    for (int64_t i = 0; i < kRows; ++i) y[k * kRows + i] = i < n ? a[i * a_row + k * a_k] : 0;
}

// c [kRows, kPanel] = or += a b, b a packed panel.
void tile(const float* a, int64_t a_row, int64_t a_k, const float* b, int64_t depth, float* c, int64_t c_row,
          bool add) {
  Vec sum[kRows][2];
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = repeat(0);
  for (int64_t k = 0; k < depth; ++k, b += kPanel) {
    const Vec b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 4
    for (int group = 0; group < kRows / 3; ++group) {  // of three rows: one address each, and two distances
      const float* row = a + k * a_k + 3 * group * a_row;
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        const Vec x = repeat(row[i * a_row]);
        sum[3 * group + i][0] = fma(x, b0, sum[3 * group + i][0]);
        sum[3 * group + i][1] = fma(x, b1, sum[3 * group + i][1]);
      }
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i, c += c_row) {
    if (add) sum[i][0] += load(c), sum[i][1] += load(c + kLanes);
    store(c, sum[i][0]), store(c + kLanes, sum[i][1]);
  }
}

inline void copy(const float* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load(x + i));
  for (; i < n; ++i) y[i] = x[i];
}

// A tile at the edge of c: rows and columns past its end are computed, and left out.
void edge_tile(const float* a, int64_t a_row, int64_t a_k, const float* b, int64_t depth, float* c,
               int64_t c_row, int64_t rows, int64_t columns, bool add) {
  float whole[kRows * kPanel];
  if (add) {
    for (int64_t i = 0; i < kRows * kPanel; ++i) whole[i] = 0;
    for (int64_t i = 0; i < rows; ++i) copy(c + i * c_row, whole + i * kPanel, columns);
  }
  tile(a, a_row, a_k, b, depth, whole, kPanel, add);
  for (int64_t i = 0; i < rows; ++i) copy(whole + i * kPanel, c + i * c_row, columns);
}

// kProductDepth terms of kProductColumns columns.
void block(const Product& p, int64_t first_k, int64_t depth, int64_t first_column, int64_t columns,
           float* space) {
  float* packed_rows = space + kProductDepth * kProductColumns;
  for (int64_t j = 0; j < columns; j += kPanel)
    pack_panel(p.b + first_k * p.b_k + (first_column + j) * p.b_column, p.b_k, p.b_column, depth,
               smaller(kPanel, columns - j), space + j * depth);
  const bool add = p.add || first_k > 0;
  for (int64_t i = 0; i < p.M; i += kRows) {
    const int64_t rows = smaller(kRows, p.M - i);
    const float* a = p.a + i * p.a_row + first_k * p.a_k;
    int64_t a_row = p.a_row, a_k = p.a_k;
    if (rows < kRows || a_k != 1) {
      pack_rows(a, a_row, a_k, depth, rows, packed_rows);
      a = packed_rows, a_row = 1, a_k = kRows;
    }
    for (int64_t j = 0; j < columns; j += kPanel) {
      float* c = p.c + i * p.c_row + first_column + j;
      const int64_t n = smaller(kPanel, columns - j);
      if (rows == kRows && n == kPanel)
        tile(a, a_row, a_k, space + j * depth, depth, c, p.c_row, add);
      else
        edge_tile(a, a_row, a_k, space + j * depth, depth, c, p.c_row, rows, n, add);
    }
  }
}

void multiply(const Product& p, float* space) {
  if (p.K == 0 && !p.add)
    for (int64_t i = 0; i < p.M; ++i)
      for (int64_t j = 0; j < p.N; ++j) p.c[i * p.c_row + j] = 0;
  for (int64_t j = 0; j < p.N; j += kProductColumns)
    for (int64_t k = 0; k < p.K; k += kProductDepth)
      block(p, k, smaller(kProductDepth, p.K - k), j, smaller(kProductColumns, p.N - j), space);
}

}  // namespace

extern const ProductKernels kProduct;
const ProductKernels kProduct = {HADAL_STR(HADAL_ISA), multiply};

}  // namespace hadal::kernels::HADAL_ISA
