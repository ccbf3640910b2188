// Products of fp16 matrices with AVX512-FP16: sums of kHalfChunk products in fp16, of the chunks in fp32.
// Part of half.cc, within its namespace.
#pragma once

inline __m256i to_half(__m512 x) {
  return _mm256_castph_si256(_mm512_cvtxps_ph(x));
}
inline __m512 low_floats(__m512h x) {
  return _mm512_cvtxph_ps(_mm512_castph512_ph256(x));
}
inline __m512 high_floats(__m512h x) {
  return _mm512_cvtxph_ps(_mm256_castsi256_ph(_mm512_extracti64x4_epi64(_mm512_castph_si512(x), 1)));
}

// The left factor's values twice in 32 bits, for a block of rows and of K: broadcasting 32 bits costs a load
// alone, 16 bits also a turn of a multiplier's port. Row by row, or column by column (8 rows to a tile).
constexpr int64_t kRowBlock = 128, kBlock = 256;  // of K: 96 columns of b then just fit the first cache

inline __m512i twice(__m256i x) {
  const __m512i wide = _mm512_cvtepu16_epi32(x);
  return _mm512_or_si512(wide, _mm512_slli_epi32(wide, 16));
}

void expand_rows(const uint16_t* a, int64_t a_row, int64_t rows, int64_t K, uint32_t* to) {
  for (int64_t i = 0; i < rows; ++i, a += a_row, to += kBlock)
    for (int64_t k = 0; k < K; k += 16)
      _mm512_storeu_si512(to + k, twice(_mm256_maskz_loadu_epi16(tail16(K - k), a + k)));
}

// to [rows / 8][kBlock][8]. A cache line of a row at a time.
void expand_columns(const uint16_t* a, int64_t a_k, int64_t rows, int64_t K, uint32_t* to) {
  for (int64_t i = 0; i < rows; i += 32, a += 32, to += 32 * kBlock) {
    const __mmask32 m = tail32(rows - i);
    for (int64_t k = 0; k < K; ++k) {
      const __m512i x = _mm512_maskz_loadu_epi16(m, a + k * a_k);
      const __m512i low = twice(_mm512_castsi512_si256(x)), high = twice(_mm512_extracti64x4_epi64(x, 1));
      uint32_t* at = to + k * kTileRows;
      _mm256_storeu_si256((__m256i*)at, _mm512_castsi512_si256(low));
      _mm256_storeu_si256((__m256i*)(at + 8 * kBlock), _mm512_extracti64x4_epi64(low, 1));
      _mm256_storeu_si256((__m256i*)(at + 16 * kBlock), _mm512_castsi512_si256(high));
      _mm256_storeu_si256((__m256i*)(at + 24 * kBlock), _mm512_extracti64x4_epi64(high, 1));
    }
  }
}

// What a tile reads and writes: `rows` of c from b's columns on.
struct Tile {
  const uint32_t* a;
  const uint16_t* b;
  int64_t b_unit, b_k;
  float* c;
  int64_t c_row, K, columns;
  float alpha;
  bool add;
};

// Sums of one chunk stay in registers, those of the chunks in `sum`, on the stack and so in the first cache.
template <int MR, int NV, bool kColumns>
void tile(const Tile& p) {
  alignas(64) float sum[MR * NV * 32];
  const __mmask32 load = tail32(p.columns - (NV - 1) * 32);
  const uint16_t* b = p.b;
  for (int64_t first = 0; first < p.K; first += kHalfChunk) {
    const int64_t end = first + kHalfChunk < p.K ? first + kHalfChunk : p.K;
    __m512h x[MR][NV];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 3
      for (int v = 0; v < NV; ++v) x[i][v] = _mm512_setzero_ph();
    const uint32_t* a = p.a + (kColumns ? first * kTileRows : first);
    for (int64_t k = first; k < end; ++k, b += p.b_k, a += kColumns ? kTileRows : 1) {
      __m512h bv[NV];
#pragma GCC unroll 3
      for (int v = 0; v < NV; ++v)
        bv[v] = _mm512_castsi512_ph(v + 1 < NV ? _mm512_loadu_si512(b + v * p.b_unit)
                                               : _mm512_maskz_loadu_epi16(load, b + v * p.b_unit));
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        const __m512h av = _mm512_castsi512_ph(_mm512_set1_epi32((int)a[kColumns ? i : i * kBlock]));
#pragma GCC unroll 3
        for (int v = 0; v < NV; ++v) x[i][v] = _mm512_fmadd_ph(av, bv[v], x[i][v]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 3
      for (int v = 0; v < NV; ++v) {
        float* s = sum + (i * NV + v) * 32;
        __m512 low = low_floats(x[i][v]), high = high_floats(x[i][v]);
        if (first > 0) {
          low = _mm512_add_ps(low, _mm512_load_ps(s)), high = _mm512_add_ps(high, _mm512_load_ps(s + 16));
        }
        if (end < p.K) {
          _mm512_store_ps(s, low), _mm512_store_ps(s + 16, high);
          continue;
        }
        const __m512 alpha = _mm512_set1_ps(p.alpha);
        low = _mm512_mul_ps(low, alpha), high = _mm512_mul_ps(high, alpha);
        float* to = p.c + i * p.c_row + v * 32;
        const __mmask16 m0 = tail16(p.columns - v * 32), m1 = tail16(p.columns - v * 32 - 16);
        if (p.add) {
          low = _mm512_add_ps(low, _mm512_maskz_loadu_ps(m0, to));
          high = _mm512_add_ps(high, _mm512_maskz_loadu_ps(m1, to + 16));
        }
        _mm512_mask_storeu_ps(to, m0, low), _mm512_mask_storeu_ps(to + 16, m1, high);
      }
  }
}

template <int NV, bool kColumns>
void strip(Tile p, int64_t rows) {
  int64_t i = 0;
  for (; i + kTileRows <= rows; i += kTileRows, p.a += kTileRows * kBlock, p.c += kTileRows * p.c_row)
    tile<kTileRows, NV, kColumns>(p);
  last_rows<NV, kColumns>(p, rows - i);
}

template <bool kColumns>
void all_columns(const HalfProduct& p, Tile tile, int64_t rows, int64_t first_k) {
  for (int64_t column = 0; column < p.N;) {
    const int64_t units = (p.N - column + 31) / 32, take = units == 4 ? 2 : units > 3 ? 3 : units;
    Tile part = tile;
    part.b = p.b + column / 32 * p.b_unit + first_k * p.b_k, part.c += column, part.columns = p.N - column;
    if (take == 3) strip<3, kColumns>(part, rows);
    if (take == 2) strip<2, kColumns>(part, rows);
    if (take == 1) strip<1, kColumns>(part, rows);
    column += take * 32;
  }
}

void multiply(const HalfProduct& p) {
  alignas(64) uint32_t a[kRowBlock * kBlock];
  for (int64_t first = 0; first < p.K; first += kBlock)
    for (int64_t row = 0; row < p.M; row += kRowBlock) {
      const int64_t K = first + kBlock < p.K ? kBlock : p.K - first;
      const int64_t rows = row + kRowBlock < p.M ? kRowBlock : p.M - row;
      const uint16_t* from = p.a + row * p.a_row + first * p.a_k;
      const Tile tile{a,       nullptr, p.b_unit, p.b_k,   p.c + row * p.c_row,
                      p.c_row, K,       0,        p.alpha, p.add || first > 0};
      if (p.a_k == 1) {
        expand_rows(from, p.a_row, rows, K, a);
        all_columns<false>(p, tile, rows, first);
      } else {
        expand_columns(from, p.a_k, rows, K, a);
        all_columns<true>(p, tile, rows, first);
      }
    }
}

// Columns k .. k+15 of 16 packed rows, r[i] that of k + i, at `column` of their unit.
inline void store_packed(uint16_t* unit, int64_t column, const __m512 r[16], int64_t k, int64_t K) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i)
    if (k + i < K) _mm256_storeu_si256((__m256i*)(unit + (k + i) * kHalfUnit + column), to_half(r[i]));
}

void pack_rows(const uint16_t* x, int64_t x_row, uint16_t* y, int64_t N, int64_t K) {
  for (int64_t n = 0; n < (N + kHalfUnit - 1) / kHalfUnit * kHalfUnit; ++n)
    for (int64_t k = 0; k < K; ++k)
      y[n / kHalfUnit * kHalfUnit * K + k * kHalfUnit + n % kHalfUnit] = n < N ? x[n * x_row + k] : 0;
}
