// The FP8 kernels: simple loops, which the compiler turns into each instruction set's vectors, and a product
// on vectors of the compiler.
#include "hadal/kernels/fp8.h"

#include "hadal/base/number_formats.h"

#ifndef HADAL_ISA
#error "set by cmake, see HadalModule.cmake"
#endif
#define HADAL_STR2(x) #x
#define HADAL_STR(x) HADAL_STR2(x)
#define HADAL_INLINE inline __attribute__((always_inline))

namespace hadal::kernels::HADAL_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kVecs = 2;  // of a tile's row
#elif defined(__AVX2__)
constexpr int kLanes = 8, kVecs = 2;
#else
constexpr int kLanes = 4, kVecs = 2;
#endif
#if defined(__AVX512F__)
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTileColumns = kLanes * kVecs;

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Bits __attribute__((vector_size(kLanes * 4)));
typedef float LooseVec __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

HADAL_INLINE Vec load(const float* at) {
  return *(const LooseVec*)at;
}
HADAL_INLINE void store(float* at, Vec x) {
  *(LooseVec*)at = x;
}

uint32_t largest(const float* x, int64_t n) {
  uint32_t most = 0;  // integers: the order of a float maximum may not be changed
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x[i]) & 0x7FFFFFFF;
    most = bits > most ? bits : most;
  }
  return most;
}

void largest_of_columns(const float* x, int64_t x_row, int64_t rows, int64_t cols, uint32_t* most) {
  for (int64_t r = 0; r < rows; ++r, x += x_row)
#pragma omp simd
    for (int64_t c = 0; c < cols; ++c) {
      const uint32_t bits = __builtin_bit_cast(uint32_t, x[c]) & 0x7FFFFFFF;
      most[c] = bits > most[c] ? bits : most[c];
    }
}

// In two loops by way of a buffer: in one, the bytes written might alias x.
constexpr int64_t kPiece = 256;
template <class Number, class Round>
HADAL_INLINE void encode_by(const float* x, const float* scale, int64_t scale_step, Number* code, int64_t n,
                            Round round) {
  float quotient[kPiece];
  for (int64_t at = 0; at < n; at += kPiece) {
    const int64_t piece = n - at < kPiece ? n - at : kPiece;
    if (scale_step == 0) {
      const float s = *scale;
#pragma omp simd
      for (int64_t i = 0; i < piece; ++i) quotient[i] = x[at + i] / s;
    } else {
#pragma omp simd
      for (int64_t i = 0; i < piece; ++i) quotient[i] = x[at + i] / scale[at + i];
    }
#pragma omp simd
    for (int64_t i = 0; i < piece; ++i) code[at + i] = round(quotient[i]);
  }
}

void encode_any(Fp8Format format, const float* x, const float* scale, int64_t step, uint8_t* code,
                int64_t n) {
  if (format == Fp8Format::kE4M3)
    encode_by(x, scale, step, code, n, [](float v) { return f32_to_e4m3(v); });
  else
    encode_by(x, scale, step, code, n, [](float v) { return f32_to_e5m2(v); });
}
void encode(Fp8Format format, const float* x, float scale, uint8_t* code, int64_t n) {
  encode_any(format, x, &scale, 0, code, n);
}
void encode_columns(Fp8Format format, const float* x, const float* scale, uint8_t* code, int64_t n) {
  encode_any(format, x, scale, 1, code, n);
}

// By arithmetic on the bits: a table would not vectorise.
HADAL_INLINE float e4m3(uint32_t code) {
  const uint32_t magnitude = code & 0x7F;
  const float small = (float)(int32_t)magnitude * 0x1p-9f;  // below 2^-6
  uint32_t bits = magnitude < 8 ? __builtin_bit_cast(uint32_t, small) : (magnitude << 20) + (120u << 23);
  bits = magnitude == 0x7F ? 0x7FC00000 : bits;
  return __builtin_bit_cast(float, bits | (code & 0x80) << 24);
}

void decode(Fp8Format format, const uint8_t* code, float scale, float* x, int64_t n) {
  if (format == Fp8Format::kE4M3) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) x[i] = e4m3(code[i]) * scale;
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) x[i] = e5m2_to_f32(code[i]) * scale;
  }
}
void decode_columns(Fp8Format format, const uint8_t* code, const float* scale, float* x, int64_t n) {
  if (format == Fp8Format::kE4M3) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) x[i] = e4m3(code[i]) * scale[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) x[i] = e5m2_to_f32(code[i]) * scale[i];
  }
}

void encode_e5m6(const float* x, float scale, uint16_t* half, int64_t n) {
  encode_by(x, &scale, 0, half, n, [](float v) { return f32_to_e5m6(v); });
}
void decode_half(const uint16_t* half, float scale, float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] = f16_to_f32(half[i]) * scale;
}

void transpose_units(const float* x, int64_t x_row, float* y, int64_t N, int64_t K) {
  for (int64_t first = 0; first < N; first += kFp8Unit, x += kFp8Unit * x_row) {
    const int64_t n = N - first < kFp8Unit ? N - first : kFp8Unit;
    for (int64_t k = 0; k < K; ++k, y += kFp8Unit) {
      for (int64_t i = 0; i < n; ++i) y[i] = x[i * x_row + k];
      for (int64_t i = n; i < kFp8Unit; ++i) y[i] = 0;
    }
  }
}

// Columns of c from one tile on.
struct Tile {
  const float* a;
  const float* a_scale;
  const float* b;
  const float* b_scale;
  float* c;
  int64_t columns;
};

HADAL_INLINE Vec rounded_to_bf16(Vec x) {  // to nearest even; NaN stays NaN
  const Bits bits = (Bits)x, even = (bits >> 16) & 1u;
  const Bits rounded = (bits + 0x7FFFu + even) & 0xFFFF0000u;
  return (bits & 0x7FFFFFFFu) > 0x7F800000u ? x : (Vec)rounded;
}

HADAL_INLINE void write(const Fp8Product& p, float* c, int64_t columns, const Vec* total) {
  float row[kTileColumns];
  for (int v = 0; v < kVecs; ++v) store(row + v * kLanes, total[v]);
  if (p.add)
    for (int64_t i = 0; i < columns; ++i) row[i] += c[i];
  if (p.round)
    for (int v = 0; v < kVecs; ++v) store(row + v * kLanes, rounded_to_bf16(load(row + v * kLanes)));
  for (int64_t i = 0; i < columns; ++i) c[i] = row[i];
}

template <int kRows>
void fp32_tile(const Fp8Product& p, const Tile& t) {
  Vec total[kRows][kVecs] = {};
  const float *a = t.a, *b = t.b, *b_scale = t.b_scale;
  for (int64_t block = 0, k0 = 0; k0 < p.K; ++block, k0 += kFp8Block, b_scale += p.b_columns) {
    Vec sum[kRows][kVecs] = {};
    const int64_t n = p.K - k0 < kFp8Block ? p.K - k0 : kFp8Block;
    for (int64_t k = 0; k < n; ++k, a += p.a_k, b += p.b_k) {
      Vec right[kVecs];
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) right[v] = load(b + v * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const float left = a[r * p.a_row];
#pragma GCC unroll 2
        for (int v = 0; v < kVecs; ++v) sum[r][v] += left * right[v];
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v)
        total[r][v] += sum[r][v] * (t.a_scale[r * p.a_scale_row + block] * load(b_scale + v * kLanes));
  }
  for (int r = 0; r < kRows; ++r) write(p, t.c + r * p.c_row, t.columns, total[r]);
}

constexpr int64_t kHopperGroup = 32;
constexpr int kHopperBits = 13;

// What the register keeps of a sum.
HADAL_INLINE Vec cut(Vec x) {
  return (Vec)((Bits)x & ~((1u << (23 - kHopperBits)) - 1));
}

// Products of one group, each cut towards zero at 13 bits below the largest one's leading bit.
HADAL_INLINE Vec hopper_group(const float* a, int64_t a_k, const float* b, int64_t b_k, int64_t n,
                              Vec scale) {
  Vec product[kHopperGroup];
  Bits top = {};
  for (int64_t k = 0; k < n; ++k) {
    product[k] = (a[k * a_k] * load(b + k * b_k)) * scale;
    const Bits bits = (Bits)product[k] & 0x7FFFFFFFu;
    top = bits > top ? bits : top;
  }
  // 2^e of the largest, at least 2^-100, so that what is below stays normal; not finite: the sum is not.
  const Bits exponent = top & 0x7F800000u, least = Bits{} + (27u << 23);
  const Bits bounded = exponent > least ? exponent : least;
  const Vec step = (Vec)(bounded - ((uint32_t)kHopperBits << 23)),
            inverse = (Vec)(((254u + (uint32_t)kHopperBits) << 23) - bounded);
  Ints sum = {};
  for (int64_t k = 0; k < n; ++k) sum += __builtin_convertvector(product[k] * inverse, Ints);
  const Vec result = __builtin_convertvector(sum, Vec) * step;
  return top >= 0x7F800000u ? (Vec)(Bits{} + 0x7FC00000u) : result;
}

void hopper_tile(const Fp8Product& p, const Tile& t) {
  const bool promoted = p.sums == Fp8Sums::kHopper;
  const Vec one = Vec{} + 1.0f;
  Vec total[kVecs] = {};
  for (int v = 0; v < kVecs; ++v) {
    Vec held = {};
    for (int64_t block = 0, k0 = 0; k0 < p.K; ++block, k0 += kFp8Block) {
      const Vec scale = t.a_scale[block] * load(t.b_scale + block * p.b_columns + v * kLanes);
      const int64_t end = p.K - k0 < kFp8Block ? p.K : k0 + kFp8Block;
      for (int64_t k = k0; k < end; k += kHopperGroup) {
        const int64_t n = end - k < kHopperGroup ? end - k : kHopperGroup;
        held = cut(held + hopper_group(t.a + k * p.a_k, p.a_k, t.b + k * p.b_k + v * kLanes, p.b_k, n,
                                       promoted ? one : scale));
      }
      if (promoted) total[v] += held * scale, held = Vec{};
    }
    if (!promoted) total[v] = held;
  }
  write(p, t.c, t.columns, total);
}

void rows_of_tiles(const Fp8Product& p, int64_t rows, const Tile& t) {
  if (p.sums != Fp8Sums::kFp32) {
    for (int64_t r = 0; r < rows; ++r)
      hopper_tile(p, {t.a + r * p.a_row, t.a_scale + r * p.a_scale_row, t.b, t.b_scale, t.c + r * p.c_row,
                      t.columns});
    return;
  }
  Tile at = t;
  const auto step = [&](int64_t n) {
    at.a += n * p.a_row, at.a_scale += n * p.a_scale_row, at.c += n * p.c_row, rows -= n;
  };
  for (; rows >= kTileRows; step(kTileRows)) fp32_tile<kTileRows>(p, at);
  if (kTileRows > 4 && rows >= 4) fp32_tile<4>(p, at), step(4);
  if (rows >= 2) fp32_tile<2>(p, at), step(2);
  if (rows >= 1) fp32_tile<1>(p, at);
}

void multiply(const Fp8Product& p) {
  constexpr int64_t kStrip = 32;  // rows of a that stay in the first cache
  for (int64_t m = 0; m < p.M; m += kStrip)
    for (int64_t n = 0; n < p.N; n += kTileColumns) {
      const int64_t left = p.N - n;
      const Tile t{
          p.a + m * p.a_row, p.a_scale + m * p.a_scale_row, p.b + n / kFp8Unit * p.b_unit + n % kFp8Unit,
          p.b_scale + n,     p.c + m * p.c_row + n,         left < kTileColumns ? left : kTileColumns};
      rows_of_tiles(p, p.M - m < kStrip ? p.M - m : kStrip, t);
    }
}

}  // namespace

extern const Fp8Kernels kFp8;
const Fp8Kernels kFp8 = {
    HADAL_STR(HADAL_ISA), largest,     largest_of_columns, encode,          encode_columns, decode,
    decode_columns,       encode_e5m6, decode_half,        transpose_units, multiply};

}  // namespace hadal::kernels::HADAL_ISA
