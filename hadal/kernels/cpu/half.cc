// The 16-bit kernels on AVX-512: fp16 where compiled with AVX512-FP16, bf16 otherwise, with AVX512-BF16.
// Compiled once per instruction set, with HADAL_ISA naming the namespace. No standard library here, whose
// templates would leak wide instructions into the program.
#include "hadal/kernels/half.h"

#include <stdint.h>
#pragma GCC diagnostic ignored "-Wuninitialized"  // false alarms of g++ 12 on its own header, where inlined
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#define HADAL_STR2(a) #a
#define HADAL_STR(a) HADAL_STR2(a)

namespace hadal::kernels::HADAL_ISA {
namespace {

inline __mmask16 tail16(int64_t n) {
  return n >= 16 ? (__mmask16)0xFFFF : n <= 0 ? (__mmask16)0 : (__mmask16)((1u << n) - 1);
}
inline __mmask32 tail32(int64_t n) {
  return n >= 32 ? 0xFFFFFFFFu : n <= 0 ? 0u : (1u << n) - 1;
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

// A product is made of tiles, which half_product_*.h define.
constexpr int kTileRows = 8;
struct Tile;
template <int MR, int NV, bool kColumns>
void tile(const Tile& p);

// The last rows of a strip, fewer than a tile has.
template <int NV, bool kColumns, int MR = kTileRows - 1>
void last_rows(const Tile& p, int64_t rows) {
  if (rows == MR) return tile<MR, NV, kColumns>(p);
  if constexpr (MR > 1) last_rows<NV, kColumns, MR - 1>(p, rows);
}

#ifdef __AVX512FP16__
#include "hadal/kernels/cpu/half_product_fp16.h"
#else
#include "hadal/kernels/cpu/half_product_bf16.h"
#endif

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

void pack_transposed(const float* x, float scale, uint16_t* y, int64_t N, int64_t K) {
  const __m512 s = _mm512_set1_ps(scale);
  for (int64_t n = 0; n < (N + kHalfUnit - 1) / kHalfUnit * kHalfUnit; n += 16) {
    uint16_t* unit = y + n / kHalfUnit * kHalfUnit * K;
    for (int64_t k = 0; k < K; k += 16) {
      const __mmask16 m = tail16(K - k);
      __m512 r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        r[i] =
            n + i < N ? _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + (n + i) * K + k), s) : _mm512_setzero_ps();
      transpose16(r);
      store_packed(unit, n % kHalfUnit, r, k, K);
    }
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

}  // namespace

extern const HalfKernels kHalf;
const HalfKernels kHalf = {
    HADAL_STR(HADAL_ISA), multiply,      max_abs,       round_half,        pack_transposed, pack_rows, swiglu,
    swiglu_backward,      cross_entropy, attention_exp, attention_backward};

}  // namespace hadal::kernels::HADAL_ISA
