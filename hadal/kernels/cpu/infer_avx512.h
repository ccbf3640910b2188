// Sixteen lanes. Internal to cpu/infer_simd.cc; what each name means is listed in infer_lanes.h.
#pragma once
#include <immintrin.h>

#include "hadal/kernels/cpu/infer_formats.h"

#define HADAL_INLINE inline __attribute__((always_inline))

namespace hadal::kernels::HADAL_ISA {
namespace {

using Vec = __m512;
using Ints = __m512i;
constexpr int64_t kLanes = 16;
constexpr int kTileRows = 6, kTileOutputs = 4, kStreams = 8;

HADAL_INLINE __mmask16 first_lanes(int64_t n) {
  return n >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << n) - 1);
}
HADAL_INLINE __mmask32 first_words(int64_t n) {
  return n >= 32 ? ~(__mmask32)0 : (__mmask32)((1u << n) - 1);
}
HADAL_INLINE Vec zero() {
  return _mm512_setzero_ps();
}
HADAL_INLINE Vec all(float x) {
  return _mm512_set1_ps(x);
}
HADAL_INLINE Vec load(const void* at) {
  return _mm512_loadu_ps(at);
}
HADAL_INLINE Vec load_first(const void* at, int64_t n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), at);
}
HADAL_INLINE void store(float* at, Vec a) {
  _mm512_storeu_ps(at, a);
}
HADAL_INLINE void store_first(float* at, Vec a, int64_t n) {
  _mm512_mask_storeu_ps(at, first_lanes(n), a);
}
HADAL_INLINE Vec add(Vec a, Vec b) {
  return _mm512_add_ps(a, b);
}
HADAL_INLINE Vec sub(Vec a, Vec b) {
  return _mm512_sub_ps(a, b);
}
HADAL_INLINE Vec mul(Vec a, Vec b) {
  return _mm512_mul_ps(a, b);
}
HADAL_INLINE Vec div(Vec a, Vec b) {
  return _mm512_div_ps(a, b);
}
HADAL_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
HADAL_INLINE Vec larger(Vec a, Vec b) {
  return _mm512_max_ps(a, b);
}
HADAL_INLINE Vec smaller(Vec a, Vec b) {
  return _mm512_min_ps(a, b);
}
HADAL_INLINE Vec magnitude(Vec a) {
  return _mm512_abs_ps(a);
}
HADAL_INLINE Vec keep_first(Vec a, int64_t n) {
  return _mm512_maskz_mov_ps(first_lanes(n), a);
}
HADAL_INLINE Vec replace_after(Vec a, int64_t n, Vec b) {
  return _mm512_mask_mov_ps(b, first_lanes(n), a);
}

HADAL_INLINE Ints as_ints(Vec a) {
  return _mm512_castps_si512(a);
}
HADAL_INLINE Vec as_floats(Ints a) {
  return _mm512_castsi512_ps(a);
}
HADAL_INLINE Ints load_ints(const void* at) {
  return _mm512_loadu_si512(at);
}
HADAL_INLINE void store_ints(void* at, Ints a) {
  _mm512_storeu_si512(at, a);
}
HADAL_INLINE Ints no_ints() {
  return _mm512_setzero_si512();
}
HADAL_INLINE Ints all_ints(int32_t x) {
  return _mm512_set1_epi32(x);
}
HADAL_INLINE Ints add_ints(Ints a, Ints b) {
  return _mm512_add_epi32(a, b);
}
HADAL_INLINE Ints sub_ints(Ints a, Ints b) {
  return _mm512_sub_epi32(a, b);
}
HADAL_INLINE Ints bits_and(Ints a, Ints b) {
  return _mm512_and_si512(a, b);
}
template <int kBy>
HADAL_INLINE Ints shift_left(Ints a) {
  return _mm512_slli_epi32(a, kBy);
}
template <int kBy>
HADAL_INLINE Ints shift_right(Ints a) {
  return _mm512_srli_epi32(a, kBy);
}
HADAL_INLINE Vec to_floats(Ints a) {
  return _mm512_cvtepi32_ps(a);
}
HADAL_INLINE Ints nearest(Vec a) {
  return _mm512_cvtps_epi32(a);
}
HADAL_INLINE Ints load_bytes(const void* at) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)at));
}
HADAL_INLINE void store_bytes(void* at, Ints a) {
  _mm_storeu_si128((__m128i*)at, _mm512_cvtepi32_epi8(a));
}
HADAL_INLINE Ints low_words(const void* at, int64_t n) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(n), at));
}

HADAL_INLINE Ints dot4(Ints sum, Ints weight, Ints x) {
#ifdef __AVX512VNNI__
  return _mm512_dpbusd_epi32(sum, weight, x);
#else
  const Ints even = _mm512_madd_epi16(_mm512_and_si512(weight, _mm512_set1_epi16(255)),
                                      _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8));
  const Ints odd = _mm512_madd_epi16(_mm512_srli_epi16(weight, 8), _mm512_srai_epi16(x, 8));
  return _mm512_add_epi32(sum, _mm512_add_epi32(even, odd));
#endif
}

// Folds of the tree: lane l with l ^ 8, ^ 4, ^ 2, ^ 1. Two sums a, b share one vector afterwards.
HADAL_INLINE Vec fold8(Vec a, Vec b) {
  return add(_mm512_mask_blend_ps(0xFF00, a, b), _mm512_shuffle_f32x4(a, b, 0x4E));
}
HADAL_INLINE Vec fold4(Vec a, Vec b) {
  const Ints other = _mm512_set_epi32(27, 26, 25, 24, 15, 14, 13, 12, 19, 18, 17, 16, 7, 6, 5, 4);
  return add(_mm512_mask_blend_ps(0xF0F0, a, b), _mm512_permutex2var_ps(a, other, b));
}
HADAL_INLINE Vec fold2(Vec a, Vec b) {
  const Vec other = _mm512_castpd_ps(_mm512_shuffle_pd(_mm512_castps_pd(a), _mm512_castps_pd(b), 0x55));
  return add(_mm512_mask_blend_ps(0xCCCC, a, b), other);
}
HADAL_INLINE Vec fold1(Vec a, Vec b) {
  const Ints other = _mm512_set_epi32(30, 15, 28, 13, 26, 11, 24, 9, 22, 7, 20, 5, 18, 3, 16, 1);
  return add(_mm512_mask_blend_ps(0xAAAA, a, b), _mm512_permutex2var_ps(a, other, b));
}
// Four sums, at out[0..count).
HADAL_INLINE void store_sums4(const Vec* v, float* out, int64_t count) {
  Vec four = fold4(fold8(v[0], v[2]), fold8(v[1], v[3]));  // a quarter of the lanes each
  four = fold2(four, four);
  four = fold1(four, four);
  const Vec packed = _mm512_maskz_compress_ps(0x1111, four);
  if (count >= 4)
    _mm_storeu_ps(out, _mm512_castps512_ps128(packed));
  else
    _mm512_mask_storeu_ps(out, first_lanes(count), packed);
}
HADAL_INLINE float sum_of(Vec a) {
  a = fold8(a, a);
  a = fold4(a, a);
  a = fold2(a, a);
  return _mm512_cvtss_f32(fold1(a, a));
}
HADAL_INLINE float max_of(Vec a) {
  return _mm512_reduce_max_ps(a);
}

HADAL_INLINE Ints fold_ints8(Ints a, Ints b) {
  return add_ints(_mm512_mask_blend_epi32(0xFF00, a, b), _mm512_shuffle_i32x4(a, b, 0x4E));
}
HADAL_INLINE Ints fold_ints4(Ints a, Ints b) {
  const Ints other = _mm512_set_epi32(27, 26, 25, 24, 15, 14, 13, 12, 19, 18, 17, 16, 7, 6, 5, 4);
  return add_ints(_mm512_mask_blend_epi32(0xF0F0, a, b), _mm512_permutex2var_epi32(a, other, b));
}
HADAL_INLINE Ints fold_ints2(Ints a, Ints b) {
  const __m512d other = _mm512_shuffle_pd(_mm512_castsi512_pd(a), _mm512_castsi512_pd(b), 0x55);
  return add_ints(_mm512_mask_blend_epi32(0xCCCC, a, b), _mm512_castpd_si512(other));
}
HADAL_INLINE Ints fold_ints1(Ints a, Ints b) {
  const Ints other = _mm512_set_epi32(30, 15, 28, 13, 26, 11, 24, 9, 22, 7, 20, 5, 18, 3, 16, 1);
  return add_ints(_mm512_mask_blend_epi32(0xAAAA, a, b), _mm512_permutex2var_epi32(a, other, b));
}
// Lane i: the sum of v[i].
HADAL_INLINE Ints sums_of_ints(Ints* v) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) v[i] = fold_ints8(v[i], v[i + 8]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) v[i] = fold_ints4(v[i], v[i + 4]);
  return fold_ints1(fold_ints2(v[0], v[2]), fold_ints2(v[1], v[3]));
}
HADAL_INLINE int32_t sum_of_ints(Ints a) {
  return _mm512_reduce_add_epi32(a);
}

// Rows r of kLanes, 64 bytes each at from[r], to vectors k of 4 bytes from every row.
HADAL_INLINE void transpose_fours(const char* const* from, Ints* out) {
#pragma GCC unroll 4
  for (int quarter = 0; quarter < 4; ++quarter) {
    Ints v[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const auto piece = [&](int row) { return _mm_loadu_si128((const __m128i*)(from[row] + 16 * quarter)); };
      Ints a = _mm512_castsi128_si512(piece(r));
      a = _mm512_inserti32x4(a, piece(r + 4), 1);
      a = _mm512_inserti32x4(a, piece(r + 8), 2);
      v[r] = _mm512_inserti32x4(a, piece(r + 12), 3);
    }
    const Ints low01 = _mm512_unpacklo_epi32(v[0], v[1]), high01 = _mm512_unpackhi_epi32(v[0], v[1]);
    const Ints low23 = _mm512_unpacklo_epi32(v[2], v[3]), high23 = _mm512_unpackhi_epi32(v[2], v[3]);
    out[4 * quarter + 0] = _mm512_unpacklo_epi64(low01, low23);
    out[4 * quarter + 1] = _mm512_unpackhi_epi64(low01, low23);
    out[4 * quarter + 2] = _mm512_unpacklo_epi64(high01, high23);
    out[4 * quarter + 3] = _mm512_unpackhi_epi64(high01, high23);
  }
}

// Half k of 32 BF16: the even ones, then the odd ones.
constexpr int64_t kPairs = 32;
HADAL_INLINE Ints bf16_pairs(const void* at) {
  return _mm512_loadu_si512(at);
}
HADAL_INLINE Ints bf16_pairs_first(const void* at, int64_t n) {
  return _mm512_maskz_loadu_epi16(first_words(n), at);
}
HADAL_INLINE Vec even_bf16(Ints pairs) {
  return as_floats(_mm512_slli_epi32(pairs, 16));
}
HADAL_INLINE Vec odd_bf16(Ints pairs) {
  return as_floats(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xFFFF0000)));
}
HADAL_INLINE void split_pairs(const float* x, float* out) {  // 32 floats, evens then odds
  const Ints even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const Ints odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  const Vec a = load(x), b = load(x + 16);
  store(out, _mm512_permutex2var_ps(a, even, b));
  store(out + 16, _mm512_permutex2var_ps(a, odd, b));
}

// E4M3 as F16 bits with F16's bias: the values / 256, exact.
HADAL_INLINE Vec e4m3_over_256(__m128i codes) {
  const __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7);
  return _mm512_cvtph_ps(_mm256_and_si256(wide, _mm256_set1_epi16((short)0xBFFF)));
}
HADAL_INLINE Vec e4m3_at(const void* at) {
  return e4m3_over_256(_mm_loadu_si128((const __m128i*)at));
}
template <int v>
HADAL_INLINE Vec e4m3_half(const char* at) {  // half v of 2 * kLanes: both halves share the widening
  const Ints codes = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)at));
  const Ints wide = _mm512_and_si512(_mm512_slli_epi16(codes, 7), _mm512_set1_epi16((short)0xBFFF));
  return _mm512_cvtph_ps(v == 0 ? _mm512_castsi512_si256(wide) : _mm512_extracti64x4_epi64(wide, 1));
}
HADAL_INLINE Vec e4m3_first(const void* at, int64_t n) {
  return e4m3_over_256(_mm_maskz_loadu_epi8(first_lanes(n), at));
}

}  // namespace
}  // namespace hadal::kernels::HADAL_ISA
