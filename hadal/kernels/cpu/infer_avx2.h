// Eight lanes. Internal to cpu/infer_simd.cc; what each name means is listed in infer_lanes.h.
#pragma once
#include <immintrin.h>

#include "hadal/kernels/cpu/infer_formats.h"

#define HADAL_INLINE inline __attribute__((always_inline))

namespace hadal::kernels::HADAL_ISA {
namespace {

using Vec = __m256;
using Ints = __m256i;
constexpr int64_t kLanes = 8;
constexpr int kTileRows = 3, kTileOutputs = 4, kStreams = 8;

HADAL_INLINE Ints first_lanes(int64_t n) {
  const Ints lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : (int)n), lane);
}
HADAL_INLINE Vec zero() {
  return _mm256_setzero_ps();
}
HADAL_INLINE Vec all(float x) {
  return _mm256_set1_ps(x);
}
HADAL_INLINE Vec load(const void* at) {
  return _mm256_loadu_ps((const float*)at);
}
HADAL_INLINE void store(float* at, Vec a) {
  _mm256_storeu_ps(at, a);
}
HADAL_INLINE Vec load_first(const void* at, int64_t n) {
  return n >= 8 ? load(at) : _mm256_maskload_ps((const float*)at, first_lanes(n));
}
HADAL_INLINE void store_first(float* at, Vec a, int64_t n) {
  n >= 8 ? store(at, a) : _mm256_maskstore_ps(at, first_lanes(n), a);
}
HADAL_INLINE Vec add(Vec a, Vec b) {
  return _mm256_add_ps(a, b);
}
HADAL_INLINE Vec sub(Vec a, Vec b) {
  return _mm256_sub_ps(a, b);
}
HADAL_INLINE Vec mul(Vec a, Vec b) {
  return _mm256_mul_ps(a, b);
}
HADAL_INLINE Vec div(Vec a, Vec b) {
  return _mm256_div_ps(a, b);
}
HADAL_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return _mm256_fmadd_ps(a, b, c);
}
HADAL_INLINE Vec larger(Vec a, Vec b) {
  return _mm256_max_ps(a, b);
}
HADAL_INLINE Vec smaller(Vec a, Vec b) {
  return _mm256_min_ps(a, b);
}
HADAL_INLINE Vec magnitude(Vec a) {
  return _mm256_andnot_ps(all(-0.0f), a);
}
HADAL_INLINE Vec keep_first(Vec a, int64_t n) {
  return _mm256_and_ps(a, _mm256_castsi256_ps(first_lanes(n)));
}
HADAL_INLINE Vec replace_after(Vec a, int64_t n, Vec b) {
  return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(first_lanes(n)));
}

HADAL_INLINE Ints as_ints(Vec a) {
  return _mm256_castps_si256(a);
}
HADAL_INLINE Vec as_floats(Ints a) {
  return _mm256_castsi256_ps(a);
}
HADAL_INLINE Ints load_ints(const void* at) {
  return _mm256_loadu_si256((const Ints*)at);
}
HADAL_INLINE void store_ints(void* at, Ints a) {
  _mm256_storeu_si256((Ints*)at, a);
}
HADAL_INLINE Ints no_ints() {
  return _mm256_setzero_si256();
}
HADAL_INLINE Ints all_ints(int32_t x) {
  return _mm256_set1_epi32(x);
}
HADAL_INLINE Ints add_ints(Ints a, Ints b) {
  return _mm256_add_epi32(a, b);
}
HADAL_INLINE Ints sub_ints(Ints a, Ints b) {
  return _mm256_sub_epi32(a, b);
}
HADAL_INLINE Ints bits_and(Ints a, Ints b) {
  return _mm256_and_si256(a, b);
}
template <int kBy>
HADAL_INLINE Ints shift_left(Ints a) {
  return _mm256_slli_epi32(a, kBy);
}
template <int kBy>
HADAL_INLINE Ints shift_right(Ints a) {
  return _mm256_srli_epi32(a, kBy);
}
HADAL_INLINE Vec to_floats(Ints a) {
  return _mm256_cvtepi32_ps(a);
}
HADAL_INLINE Ints nearest(Vec a) {
  return _mm256_cvtps_epi32(a);
}
HADAL_INLINE Ints load_bytes(const void* at) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)at));
}
HADAL_INLINE void store_bytes(void* at, Ints a) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  _mm_storel_epi64((__m128i*)at, _mm_packs_epi16(words, words));
}
// The first n of up to 32 bytes, for the end of a row.
HADAL_INLINE Ints bytes_first(const void* at, int64_t n) {
  char bytes[32] = {};
  __builtin_memcpy(bytes, at, (size_t)(n > 32 ? 32 : n));
  return load_ints(bytes);
}
HADAL_INLINE Ints low_words(const void* at, int64_t n) {
  return _mm256_cvtepu16_epi32(n >= 8 ? _mm_loadu_si128((const __m128i*)at)
                                      : _mm256_castsi256_si128(bytes_first(at, 2 * n)));
}

// Unsigned by signed bytes would saturate in 16 bits: even and odd bytes are widened first.
HADAL_INLINE Ints dot4(Ints sum, Ints weight, Ints x) {
  const Ints even = _mm256_madd_epi16(_mm256_and_si256(weight, _mm256_set1_epi16(255)),
                                      _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
  const Ints odd = _mm256_madd_epi16(_mm256_srli_epi16(weight, 8), _mm256_srai_epi16(x, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}

// The tree: lane l with l ^ 1, ^ 2, ^ 4.
HADAL_INLINE __m128 sums4(const Vec* v) {
  const Vec four = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
  return _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1));
}
HADAL_INLINE void store_sums4(const Vec* v, float* out, int64_t count) {
  const __m128 sums = sums4(v);
  if (count >= 4)
    _mm_storeu_ps(out, sums);
  else
    _mm_maskstore_ps(out, _mm256_castsi256_si128(first_lanes(count)), sums);
}
HADAL_INLINE float sum_of(Vec a) {
  const Vec v[4] = {a, a, a, a};
  return _mm_cvtss_f32(sums4(v));
}
HADAL_INLINE float max_of(Vec a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
HADAL_INLINE __m128i sums4_ints(const Ints* v) {
  const Ints four = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
  return _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
}
// Lane i: the sum of v[i].
HADAL_INLINE Ints sums_of_ints(Ints* v) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(sums4_ints(v)), sums4_ints(v + 4), 1);
}
HADAL_INLINE int32_t sum_of_ints(Ints a) {
  const Ints v[4] = {a, a, a, a};
  return _mm_cvtsi128_si32(sums4_ints(v));
}

// Rows r of kLanes, 32 bytes each at from[r], to vectors k of 4 bytes from every row.
HADAL_INLINE void transpose_fours(const char* const* from, Ints* out) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    Ints v[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const __m128i low = _mm_loadu_si128((const __m128i*)(from[r] + 16 * half));
      const __m128i high = _mm_loadu_si128((const __m128i*)(from[r + 4] + 16 * half));
      v[r] = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    }
    const Ints low01 = _mm256_unpacklo_epi32(v[0], v[1]), high01 = _mm256_unpackhi_epi32(v[0], v[1]);
    const Ints low23 = _mm256_unpacklo_epi32(v[2], v[3]), high23 = _mm256_unpackhi_epi32(v[2], v[3]);
    out[4 * half + 0] = _mm256_unpacklo_epi64(low01, low23);
    out[4 * half + 1] = _mm256_unpackhi_epi64(low01, low23);
    out[4 * half + 2] = _mm256_unpacklo_epi64(high01, high23);
    out[4 * half + 3] = _mm256_unpackhi_epi64(high01, high23);
  }
}

// 16 BF16: the even ones, then the odd ones.
constexpr int64_t kPairs = 16;
HADAL_INLINE Ints bf16_pairs(const void* at) {
  return load_ints(at);
}
HADAL_INLINE Ints bf16_pairs_first(const void* at, int64_t n) {
  return bytes_first(at, 2 * n);
}
HADAL_INLINE Vec even_bf16(Ints pairs) {
  return as_floats(_mm256_slli_epi32(pairs, 16));
}
HADAL_INLINE Vec odd_bf16(Ints pairs) {
  return as_floats(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xFFFF0000)));
}
HADAL_INLINE void split_pairs(const float* x, float* out) {
  for (int64_t i = 0; i < 8; ++i) {
    out[i] = x[2 * i];
    out[8 + i] = x[2 * i + 1];
  }
}

// E4M3 as F16 bits with F16's bias: the values / 256, exact.
HADAL_INLINE Vec e4m3_over_256(__m128i codes) {
  const __m128i wide = _mm_slli_epi16(_mm_cvtepi8_epi16(codes), 7);
  return _mm256_cvtph_ps(_mm_and_si128(wide, _mm_set1_epi16((short)0xBFFF)));
}
HADAL_INLINE Vec e4m3_at(const void* at) {
  return e4m3_over_256(_mm_loadl_epi64((const __m128i*)at));
}
template <int v>
HADAL_INLINE Vec e4m3_half(const char* at) {  // half v of 2 * kLanes
  return e4m3_at(at + v * kLanes);
}
HADAL_INLINE Vec e4m3_first(const void* at, int64_t n) {
  return e4m3_over_256(_mm256_castsi256_si128(bytes_first(at, n > 8 ? 8 : n)));
}

}  // namespace
}  // namespace hadal::kernels::HADAL_ISA
