// Compiled once per instruction set, with HADAL_ISA naming the namespace. No standard library here, whose
// templates would leak wide instructions into the program.
#include "hadal/kernels/half.h"

#include <stdint.h>
#ifdef __AVX512FP16__
#pragma GCC diagnostic ignored "-Wuninitialized"  // false alarms of g++ 12 on its own header, where inlined
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

#define HADAL_STR2(a) #a
#define HADAL_STR(a) HADAL_STR2(a)

namespace hadal::kernels::HADAL_ISA {
namespace {

#ifdef __AVX512FP16__

inline __mmask16 tail16(int64_t n) {
  return n >= 16 ? (__mmask16)0xFFFF : n <= 0 ? (__mmask16)0 : (__mmask16)((1u << n) - 1);
}
inline __mmask32 tail32(int64_t n) {
  return n >= 32 ? 0xFFFFFFFFu : n <= 0 ? 0u : (1u << n) - 1;
}
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
constexpr int kTileRows = 8;
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
  switch (rows - i) {
    case 7:
      return tile<7, NV, kColumns>(p);
    case 6:
      return tile<6, NV, kColumns>(p);
    case 5:
      return tile<5, NV, kColumns>(p);
    case 4:
      return tile<4, NV, kColumns>(p);
    case 3:
      return tile<3, NV, kColumns>(p);
    case 2:
      return tile<2, NV, kColumns>(p);
    case 1:
      return tile<1, NV, kColumns>(p);
  }
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

float max_abs(const float* x, int64_t n) {
  __m512 top[4];
  for (auto& t : top) t = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 64 <= n; i += 64)
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u)
      top[u] = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + i + 16 * u)), top[u]);
  for (; i < n; i += 16)
    top[0] = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(tail16(n - i), x + i)), top[0]);
  return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3])));
}

void round_half(const float* x, float scale, uint16_t* y, int64_t n) {
  const __m512 s = _mm512_set1_ps(scale);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i low = to_half(_mm512_mul_ps(_mm512_loadu_ps(x + i), s));
    const __m256i high = to_half(_mm512_mul_ps(_mm512_loadu_ps(x + i + 16), s));
    _mm512_storeu_si512(y + i, _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
  }
  for (; i < n; i += 16) {
    const __mmask16 m = tail16(n - i);
    _mm256_mask_storeu_epi16(y + i, m, to_half(_mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), s)));
  }
}

// r[i][j] -> r[j][i]
inline void transpose16(__m512 r[16]) {
  __m512 t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2)
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  const auto pair = [](__m512 a, __m512 b, bool high) {
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(x, y) : _mm512_unpacklo_pd(x, y));
  };
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // r[i + c]: columns c, 4 + c, 8 + c, 12 + c of rows i .. i+3
    r[i] = pair(t[i], t[i + 2], false), r[i + 1] = pair(t[i], t[i + 2], true);
    r[i + 2] = pair(t[i + 1], t[i + 3], false), r[i + 3] = pair(t[i + 1], t[i + 3], true);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88),
                 b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xDD);
    const __m512 d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88),
                 e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xDD);
    t[c] = _mm512_shuffle_f32x4(a, d, 0x88), t[8 + c] = _mm512_shuffle_f32x4(a, d, 0xDD);
    t[4 + c] = _mm512_shuffle_f32x4(b, e, 0x88), t[12 + c] = _mm512_shuffle_f32x4(b, e, 0xDD);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

void pack_transposed(const float* x, float scale, uint16_t* y, int64_t N, int64_t K) {
  const __m512 s = _mm512_set1_ps(scale);
  for (int64_t n = 0; n < N; n += 16) {
    uint16_t* unit = y + n / 32 * 32 * K + n % 32;
    for (int64_t k = 0; k < K; k += 16) {
      const __mmask16 m = tail16(K - k);
      __m512 r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        r[i] =
            n + i < N ? _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + (n + i) * K + k), s) : _mm512_setzero_ps();
      transpose16(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (k + i < K) _mm256_storeu_si256((__m256i*)(unit + (k + i) * 32), to_half(r[i]));
    }
  }
  if (((N + 15) / 16) % 2) {  // the last unit's right half has no rows
    uint16_t* unit = y + N / 32 * 32 * K + 16;
    for (int64_t k = 0; k < K; ++k) _mm256_storeu_si256((__m256i*)(unit + k * 32), _mm256_setzero_si256());
  }
}

// exp to 1 ulp or two: x = n ln 2 + r, degree-6 polynomial on r.
inline __m512 fast_exp(__m512 x) {
  const auto c = [](float v) { return _mm512_set1_ps(v); };
  x = _mm512_min_ps(_mm512_max_ps(x, c(-87.0f)), c(88.0f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, c(1.44269504088896341f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, c(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, c(-2.12194440e-4f), r);
  __m512 p = c(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, c(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, c(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, c(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, c(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, c(5.0000001201e-1f));
  p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, c(1.0f)));
  return _mm512_scalef_ps(p, n);
}
inline __m512 sigmoid(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_div_ps(one, _mm512_add_ps(one, fast_exp(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

float swiglu(const float* gate_up, float* hidden, int64_t rows, int64_t M) {
  __m512 top = _mm512_setzero_ps();
  for (int64_t r = 0; r < rows; ++r, gate_up += 2 * M, hidden += M)
    for (int64_t i = 0; i < M; i += 16) {
      const __mmask16 m = tail16(M - i);
      const __m512 g = _mm512_maskz_loadu_ps(m, gate_up + i), u = _mm512_maskz_loadu_ps(m, gate_up + M + i);
      const __m512 h = _mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), u);
      _mm512_mask_storeu_ps(hidden + i, m, h);
      top = _mm512_max_ps(_mm512_abs_ps(h), top);
    }
  return _mm512_reduce_max_ps(top);
}

void swiglu_backward(HalfKernels::SwigluBackward& x, int64_t rows, int64_t M) {
  const __m512 one = _mm512_set1_ps(1.0f);
  __m512 top_d = _mm512_setzero_ps(), top_h = _mm512_setzero_ps();
  for (int64_t r = 0; r < rows; ++r) {
    const float *gate = x.gate_up + r * 2 * M, *up = gate + M, *dh = x.dhidden + r * M;
    float *dgate = x.dgate_up + r * 2 * M, *dup = dgate + M, *hidden = x.hidden + r * M;
    const __m512 w = _mm512_set1_ps(x.weight ? x.weight[r] : 1.0f);
    __m512 dot = _mm512_setzero_ps();
    for (int64_t i = 0; i < M; i += 16) {
      const __mmask16 m = tail16(M - i);
      const __m512 g = _mm512_maskz_loadu_ps(m, gate + i), u = _mm512_maskz_loadu_ps(m, up + i),
                   d = _mm512_maskz_loadu_ps(m, dh + i), s = sigmoid(g), silu = _mm512_mul_ps(g, s),
                   h = _mm512_mul_ps(silu, u);
      dot = _mm512_fmadd_ps(d, h, dot);
      const __m512 wd = _mm512_mul_ps(w, d), wh = _mm512_mul_ps(w, h), du = _mm512_mul_ps(wd, silu);
      const __m512 slope = _mm512_fmadd_ps(silu, _mm512_sub_ps(one, s), s);
      const __m512 dg = _mm512_mul_ps(_mm512_mul_ps(wd, u), slope);
      _mm512_mask_storeu_ps(hidden + i, m, wh);
      _mm512_mask_storeu_ps(dgate + i, m, dg), _mm512_mask_storeu_ps(dup + i, m, du);
      top_h = _mm512_max_ps(_mm512_abs_ps(wh), top_h);
      top_d = _mm512_max_ps(_mm512_max_ps(_mm512_abs_ps(dg), _mm512_abs_ps(du)), top_d);
    }
    if (x.dweight) x.dweight[r] = _mm512_reduce_add_ps(dot);
  }
  x.max_dgate_up = _mm512_reduce_max_ps(top_d), x.max_hidden = _mm512_reduce_max_ps(top_h);
}

void cross_entropy(float* logit, const int64_t* target, float* loss, uint16_t* dlogit, int64_t dlogit_row,
                   float scale, int64_t rows, int64_t W) {
  for (int64_t r = 0; r < rows; ++r, logit += W, dlogit += dlogit_row) {
    if (target[r] < 0) {
      for (int64_t w = 0; w < W; ++w) dlogit[w] = 0;
      loss[r] = 0;
      continue;
    }
    const __m512 lowest = _mm512_set1_ps(-3.4e38f);
    __m512 top_v = lowest;
    for (int64_t w = 0; w < W; w += 16) {
      const __mmask16 m = tail16(W - w);
      top_v = _mm512_max_ps(_mm512_mask_loadu_ps(lowest, m, logit + w), top_v);
    }
    const float top = _mm512_reduce_max_ps(top_v), wanted = logit[target[r]];
    const __m512 shift = _mm512_set1_ps(top);
    __m512 sum_v = _mm512_setzero_ps();
    for (int64_t w = 0; w < W; w += 16) {
      const __mmask16 m = tail16(W - w);
      const __m512 e = fast_exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, logit + w), shift));
      _mm512_mask_storeu_ps(logit + w, m, e);
      sum_v = _mm512_mask_add_ps(sum_v, m, sum_v, e);
    }
    const float sum = _mm512_reduce_add_ps(sum_v);
    loss[r] = top + __builtin_logf(sum) - wanted;
    logit[target[r]] -= sum;  // p - 1 without cancelling in half precision
    round_half(logit, scale / sum, dlogit, W);
  }
}

// Columns [begin, end) of the 16 from w on.
inline __mmask16 between(int64_t w, int64_t begin, int64_t end) {
  return (__mmask16)(tail16(end - w) & ~tail16(begin - w));
}

void attention_exp(const HalfKernels::Attention& x, uint16_t* prob, float* inverse, float* lse,
                   int64_t rows) {
  const __m512 lowest = _mm512_set1_ps(-3.4e38f), scale = _mm512_set1_ps(x.scale),
               limit = _mm512_set1_ps(kHalfLimit);
  const float* score = x.score;
  for (int64_t r = 0; r < rows; ++r, score += x.L, prob += x.L) {
    const int64_t begin = x.first ? x.first[r] : 0, end = x.visible + r < x.L ? x.visible + r : x.L;
    const int64_t w0 = begin & ~(int64_t)15;
    __m512 top_v = lowest;
    for (int64_t w = w0; w < end; w += 16)
      top_v = _mm512_max_ps(_mm512_mask_loadu_ps(lowest, between(w, begin, end), score + w), top_v);
    const float top = _mm512_reduce_max_ps(top_v) * x.scale;
    const __m512 shift = _mm512_set1_ps(top);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t w = 0; w < x.L; w += 16) {
      const __mmask16 m = between(w, begin, end);
      __m512 e = _mm512_setzero_ps();
      if (m) {
        e = fast_exp(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(m, score + w), scale, shift));
        sum = _mm512_mask_add_ps(sum, m, sum, e);
      }
      _mm256_mask_storeu_epi16(prob + w, tail16(x.L - w), to_half(_mm512_maskz_mul_ps(m, e, limit)));
    }
    const float total = _mm512_reduce_add_ps(sum);
    inverse[r] = 1.0f / total, lse[r] = top + __builtin_logf(total);
  }
}

void attention_backward(const HalfKernels::Attention& x, const HalfKernels::AttentionBackward& d,
                        int64_t rows) {
  const __m512 scale = _mm512_set1_ps(x.scale), limit = _mm512_set1_ps(kHalfLimit),
               factor = _mm512_set1_ps(d.dscore_scale);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t begin = x.first ? x.first[r] : 0, end = x.visible + r < x.L ? x.visible + r : x.L;
    const __m512 lse = _mm512_set1_ps(d.lse[r]), delta = _mm512_set1_ps(d.delta[r]);
    const float *score = x.score + r * x.L, *dprob = d.dprob + r * x.L;
    uint16_t *prob = d.prob + r * d.stride, *dscore = d.dscore + r * d.stride;
    for (int64_t w = 0; w < x.L; w += 16) {
      const __mmask16 m = between(w, begin, end), all = tail16(x.L - w);
      __m256i p16 = _mm256_setzero_si256(), d16 = p16;
      if (m) {
        const __m512 p = _mm512_maskz_mov_ps(
            m, fast_exp(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(m, score + w), scale, lse)));
        const __m512 dp = _mm512_sub_ps(_mm512_maskz_loadu_ps(m, dprob + w), delta);
        p16 = to_half(_mm512_mul_ps(p, limit)), d16 = to_half(_mm512_mul_ps(_mm512_mul_ps(p, dp), factor));
      }
      _mm256_mask_storeu_epi16(prob + w, all, p16), _mm256_mask_storeu_epi16(dscore + w, all, d16);
    }
  }
}

#else  // the oracle: what the above computes, in plain words; sums in fp32 throughout

union Bits {
  float f;
  uint32_t u;
};

float from_half(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023;
  Bits bits;
  if (exponent == 0) {
    bits.f = (float)mantissa * 5.9604644775390625e-8f;  // 2^-24
    bits.u |= sign;
  } else {
    bits.u = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | mantissa << 13;
  }
  return bits.f;
}

// To the nearest, ties to even.
uint16_t to_half(float x) {
  Bits bits = {x};
  const uint32_t sign = (bits.u >> 16) & 0x8000;
  bits.u &= 0x7FFFFFFF;
  if (bits.u > 0x7F800000) return (uint16_t)(sign | 0x7E00);
  if (bits.u >= 0x477FF000) return (uint16_t)(sign | 0x7C00);
  if (bits.u < 0x38800000) {  // below 2^-14: adding 0.5 leaves multiples of 2^-24
    bits.f += 0.5f;
    return (uint16_t)(sign | (bits.u - 0x3F000000));
  }
  return (uint16_t)(sign | ((bits.u - 0x38000000 + 0xFFF + ((bits.u >> 13) & 1)) >> 13));
}

void multiply(const HalfProduct& p) {
  for (int64_t i = 0; i < p.M; ++i)
    for (int64_t j = 0; j < p.N; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < p.K; ++k)
        sum +=
            from_half(p.a[i * p.a_row + k * p.a_k]) * from_half(p.b[j / 32 * p.b_unit + k * p.b_k + j % 32]);
      float* c = p.c + i * p.c_row + j;
      *c = p.alpha * sum + (p.add ? *c : 0.0f);
    }
}

float max_abs(const float* x, int64_t n) {
  float top = 0;
  for (int64_t i = 0; i < n; ++i) top = __builtin_fabsf(x[i]) > top ? __builtin_fabsf(x[i]) : top;
  return top;
}

void round_half(const float* x, float scale, uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = to_half(x[i] * scale);
}

void pack_transposed(const float* x, float scale, uint16_t* y, int64_t N, int64_t K) {
  for (int64_t n = 0; n < (N + 31) / 32 * 32; ++n)
    for (int64_t k = 0; k < K; ++k)
      y[n / 32 * 32 * K + k * 32 + n % 32] = n < N ? to_half(x[n * K + k] * scale) : 0;
}

float sigmoid(float x) {
  return 1.0f / (1.0f + __builtin_expf(-x));
}

float swiglu(const float* gate_up, float* hidden, int64_t rows, int64_t M) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < M; ++i) {
      const float g = gate_up[r * 2 * M + i];
      hidden[r * M + i] = g * sigmoid(g) * gate_up[r * 2 * M + M + i];
    }
  return max_abs(hidden, rows * M);
}

void swiglu_backward(HalfKernels::SwigluBackward& x, int64_t rows, int64_t M) {
  for (int64_t r = 0; r < rows; ++r) {
    float dot = 0;
    for (int64_t i = 0; i < M; ++i) {
      const int64_t at = r * 2 * M + i;
      const float g = x.gate_up[at], u = x.gate_up[at + M], d = x.dhidden[r * M + i], s = sigmoid(g);
      const float w = x.weight ? x.weight[r] : 1.0f;
      dot += d * g * s * u;
      x.hidden[r * M + i] = w * g * s * u;
      x.dgate_up[at] = w * d * u * (s + g * s * (1.0f - s));
      x.dgate_up[at + M] = w * d * g * s;
    }
    if (x.dweight) x.dweight[r] = dot;
  }
  x.max_dgate_up = max_abs(x.dgate_up, rows * 2 * M), x.max_hidden = max_abs(x.hidden, rows * M);
}

void cross_entropy(float* logit, const int64_t* target, float* loss, uint16_t* dlogit, int64_t dlogit_row,
                   float scale, int64_t rows, int64_t W) {
  for (int64_t r = 0; r < rows; ++r, logit += W, dlogit += dlogit_row) {
    float top = logit[0], sum = 0;
    for (int64_t w = 0; w < W; ++w) top = logit[w] > top ? logit[w] : top;
    const float wanted = target[r] < 0 ? 0.0f : logit[target[r]];
    for (int64_t w = 0; w < W; ++w) sum += logit[w] = __builtin_expf(logit[w] - top);
    loss[r] = target[r] < 0 ? 0.0f : top + __builtin_logf(sum) - wanted;
    for (int64_t w = 0; w < W; ++w)
      dlogit[w] = target[r] < 0 ? 0 : to_half((logit[w] - (w == target[r] ? sum : 0.0f)) * (scale / sum));
  }
}

void attention_exp(const HalfKernels::Attention& x, uint16_t* prob, float* inverse, float* lse,
                   int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* score = x.score + r * x.L;
    const int64_t begin = x.first ? x.first[r] : 0, end = x.visible + r < x.L ? x.visible + r : x.L;
    float top = score[begin], sum = 0;
    for (int64_t l = begin; l < end; ++l) top = score[l] > top ? score[l] : top;
    for (int64_t l = 0; l < x.L; ++l) {
      const float e = l < begin || l >= end ? 0.0f : __builtin_expf(x.scale * (score[l] - top));
      prob[r * x.L + l] = to_half(e * kHalfLimit);
      sum += e;
    }
    inverse[r] = 1.0f / sum, lse[r] = x.scale * top + __builtin_logf(sum);
  }
}

void attention_backward(const HalfKernels::Attention& x, const HalfKernels::AttentionBackward& d,
                        int64_t rows) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t l = 0; l < x.L; ++l) {
      const bool seen = l >= (x.first ? x.first[r] : 0) && l < x.visible + r;
      const float p = seen ? __builtin_expf(x.scale * x.score[r * x.L + l] - d.lse[r]) : 0.0f;
      d.prob[r * d.stride + l] = to_half(p * kHalfLimit);
      d.dscore[r * d.stride + l] =
          seen ? to_half(p * (d.dprob[r * x.L + l] - d.delta[r]) * d.dscore_scale) : 0;
    }
}

#endif

}  // namespace

extern const HalfKernels kHalf;
const HalfKernels kHalf = {
    HADAL_STR(HADAL_ISA), multiply,      max_abs,       round_half,        pack_transposed, swiglu,
    swiglu_backward,      cross_entropy, attention_exp, attention_backward};

}  // namespace hadal::kernels::HADAL_ISA
