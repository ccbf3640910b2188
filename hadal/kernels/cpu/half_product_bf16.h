// Products of bf16 matrices with AVX512-BF16, which multiplies pairs of values along K and sums in fp32. A
// packed unit holds rows of K in pairs, [K / 2][32 columns][2], an odd last row alone. Part of half.cc,
// within its namespace.
#pragma once

inline __m256i to_half(__m512 x) {
  return (__m256i)_mm512_cvtneps_pbh(x);
}

constexpr int64_t kRowBlock = 128, kBlock = 320;  // of K: 32 columns of b take 20 KB of the first cache

// Values 0 .. 15 and 16 .. 31 of two rows, in pairs.
struct Pairs {
  __m512i low, high;
};
inline Pairs pairs(__m512i first, __m512i second) {
  const __m512i step = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7,
                                        38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i half = _mm512_set1_epi16(16);
  return {_mm512_permutex2var_epi16(first, step, second),
          _mm512_permutex2var_epi16(first, _mm512_add_epi16(step, half), second)};
}

// Columns of the left factor to [rows / 8][kBlock / 2][8] pairs.
void expand_columns(const uint16_t* a, int64_t a_k, int64_t rows, int64_t K, uint32_t* to) {
  constexpr int64_t kStrip = kTileRows * kBlock / 2;
  for (int64_t i = 0; i < rows; i += 32, a += 32, to += 4 * kStrip) {
    const __mmask32 m = tail32(rows - i);
    for (int64_t k = 0; k < K; k += 2) {
      const __m512i first = _mm512_maskz_loadu_epi16(m, a + k * a_k);
      const Pairs p =
          pairs(first, k + 1 < K ? _mm512_maskz_loadu_epi16(m, a + (k + 1) * a_k) : _mm512_setzero_si512());
      uint32_t* at = to + k / 2 * kTileRows;
      _mm256_storeu_si256((__m256i*)at, _mm512_castsi512_si256(p.low));
      _mm256_storeu_si256((__m256i*)(at + kStrip), _mm512_extracti64x4_epi64(p.low, 1));
      _mm256_storeu_si256((__m256i*)(at + 2 * kStrip), _mm512_castsi512_si256(p.high));
      _mm256_storeu_si256((__m256i*)(at + 3 * kStrip), _mm512_extracti64x4_epi64(p.high, 1));
    }
  }
}

// `columns` of rows of the right factor as a packed unit.
void pair_rows(const uint16_t* b, int64_t b_k, int64_t columns, int64_t K, uint16_t* to) {
  const __mmask32 m = tail32(columns);
  int64_t k = 0;
  for (; k + 1 < K; k += 2, b += 2 * b_k, to += 64) {
    const Pairs p = pairs(_mm512_maskz_loadu_epi16(m, b), _mm512_maskz_loadu_epi16(m, b + b_k));
    _mm512_storeu_si512(to, p.low), _mm512_storeu_si512(to + 32, p.high);
  }
  if (k < K) _mm512_storeu_si512(to, _mm512_maskz_loadu_epi16(m, b));
}

// What a tile reads and writes: `rows` of c from b's columns on, at most one unit of them.
struct Tile {
  const uint16_t* a;  // rows a_row apart, or an expanded strip
  int64_t a_row;
  const uint16_t* b;  // a packed unit
  float* c;
  int64_t c_row, K, columns;
  float alpha;
  bool add;
};

inline uint32_t pair_at(const uint16_t* a) {
  uint32_t pair;
  __builtin_memcpy(&pair, a, sizeof pair);
  return pair;
}
inline __m512 dot(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

// NV: vectors of 16 columns.
template <int MR, int NV, bool kColumns>
void tile(const Tile& p) {
  __m512 x[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) x[i][v] = _mm512_setzero_ps();
  const uint16_t *a = p.a, *b = p.b;
  int64_t k = 0;
  for (; k + 1 < p.K; k += 2, a += kColumns ? 2 * kTileRows : 2, b += 64) {
    const __m512i low = _mm512_loadu_si512(b), high = _mm512_loadu_si512(b + 32);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const __m512i av = _mm512_set1_epi32((int)pair_at(a + i * (kColumns ? 2 : p.a_row)));
      x[i][0] = dot(x[i][0], av, low);
      if (NV > 1) x[i][NV - 1] = dot(x[i][NV - 1], av, high);
    }
  }
  if (k < p.K) {
    const __m512i row = _mm512_loadu_si512(b);
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(row)),
                  high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(row, 1));
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const __m512i av = _mm512_set1_epi32(a[i * (kColumns ? 2 : p.a_row)]);
      x[i][0] = dot(x[i][0], av, low);
      if (NV > 1) x[i][NV - 1] = dot(x[i][NV - 1], av, high);
    }
  }
  const __m512 alpha = _mm512_set1_ps(p.alpha);
  const __mmask16 m[2] = {tail16(p.columns), tail16(p.columns - 16)};
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      float* to = p.c + i * p.c_row + 16 * v;
      const __m512 y = _mm512_mul_ps(x[i][v], alpha);
      _mm512_mask_storeu_ps(to, m[v], p.add ? _mm512_add_ps(y, _mm512_maskz_loadu_ps(m[v], to)) : y);
    }
}

template <int NV, bool kColumns>
void strip(Tile p, int64_t rows) {
  int64_t i = 0;
  if (!kColumns && rows > kTileRows &&
      rows <= kTileRows + 4) {  // two tiles of half, not a full and a thin one
    const int64_t half = (rows + 1) / 2;
    strip<NV, kColumns>(p, half);
    p.a += half * p.a_row, p.c += half * p.c_row;
    return strip<NV, kColumns>(p, rows - half);
  }
  for (; i + kTileRows <= rows; i += kTileRows, p.c += kTileRows * p.c_row) {
    tile<kTileRows, NV, kColumns>(p);
    p.a += kColumns ? kTileRows * kBlock : kTileRows * p.a_row;
  }
  last_rows<NV, kColumns>(p, rows - i);
}

void multiply(const HalfProduct& p) {
  alignas(64) uint32_t a[kRowBlock * kBlock / 2];
  alignas(64) uint16_t b[(kBlock + 1) * kHalfUnit];
  const bool packed = p.b_unit != kHalfUnit;
  for (int64_t row = 0; row < p.M; row += kRowBlock)
    for (int64_t first = 0; first < p.K; first += kBlock) {  // c's rows stay in the second cache
      const int64_t K = first + kBlock < p.K ? kBlock : p.K - first;
      const int64_t rows = row + kRowBlock < p.M ? kRowBlock : p.M - row;
      const uint16_t* from = p.a + row * p.a_row + first * p.a_k;
      const bool by_rows = p.a_k == 1;
      if (!by_rows) expand_columns(from, p.a_k, rows, K, a);
      for (int64_t column = 0; column < p.N; column += kHalfUnit) {
        const int64_t columns = p.N - column < kHalfUnit ? p.N - column : kHalfUnit;
        const uint16_t* unit = p.b + column / kHalfUnit * p.b_unit + first * p.b_k;
        if (!packed) pair_rows(unit, p.b_k, columns, K, b);
        const Tile tile{by_rows ? from : (const uint16_t*)a,
                        p.a_row,
                        packed ? unit : b,
                        p.c + row * p.c_row + column,
                        p.c_row,
                        K,
                        columns,
                        p.alpha,
                        p.add || first > 0};
        if (columns > 16) {
          by_rows ? strip<2, false>(tile, rows) : strip<2, true>(tile, rows);
        } else {
          by_rows ? strip<1, false>(tile, rows) : strip<1, true>(tile, rows);
        }
      }
    }
}

// Columns k .. k+15 of 16 packed rows, r[i] that of k + i, at `column` of their unit.
inline void store_packed(uint16_t* unit, int64_t column, const __m512 r[16], int64_t k, int64_t K) {
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    uint16_t* to = unit + (k + i) * kHalfUnit;
    const __m256i first = to_half(r[i]);
    if (k + i + 1 < K) {
      const __m512i second = _mm512_cvtepu16_epi32(to_half(r[i + 1]));
      _mm512_storeu_si512(to + 2 * column,
                          _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(second, 16)));
    } else if (k + i < K) {
      _mm256_storeu_si256((__m256i*)(to + column), first);
    }
  }
}

void pack_rows(const uint16_t* x, int64_t x_row, uint16_t* y, int64_t N, int64_t K) {
  for (int64_t n = 0; n < (N + kHalfUnit - 1) / kHalfUnit * kHalfUnit; n += 16) {
    uint16_t* unit = y + n / kHalfUnit * kHalfUnit * K;
    const int64_t column = n % kHalfUnit, pairs = K / 2;
    for (int64_t first = 0; first < pairs; first += 16) {
      const __mmask16 m = tail16(pairs - first);
      __m512 r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        r[i] = n + i < N ? _mm512_maskz_loadu_ps(m, x + (n + i) * x_row + 2 * first) : _mm512_setzero_ps();
      transpose16(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (first + i < pairs) _mm512_storeu_ps(unit + (first + i) * 2 * kHalfUnit + 2 * column, r[i]);
    }
    if (K % 2)
      for (int64_t i = 0; i < 16; ++i)
        unit[(K - 1) * kHalfUnit + column + i] = n + i < N ? x[(n + i) * x_row + K - 1] : 0;
  }
}
