// Dot products against INT8 and INT4 weights. The products of a group are summed in integers, exactly, so in
// any order; then sum = fma(group, weight scale * input scale, sum) over groups ascending, one sum an output.
// Codes are unsigned (offset 128 or 8) and inputs signed; the offset's share is taken off by a prepared
// correction. Internal to cpu/infer_simd.cc.
#pragma once
#include "hadal/kernels/cpu/infer_float_dots.h"

namespace hadal::kernels::HADAL_ISA {
namespace {

constexpr int64_t kBytes = 4 * kLanes;      // codes in a vector
constexpr int64_t kCodePanel = 2 * kLanes;  // weight rows interleaved at once
constexpr int64_t kDirectRows = 3;          // up to so many inputs, interleaving does not pay
constexpr int kCodeTileRows = kLanes == 16 ? 6 : 2;

// A prepared row: codes padded to 128, then by 128 codes: scale, -128 * sum of codes, and by 64: -8 * sum.
struct CodeRow {
  const char* code;
  int64_t padded;
  HADAL_INLINE float scale(int64_t k) const { return load_from<float>(code + padded + k / 128 * 4); }
  template <bool kInt4>
  HADAL_INLINE int32_t correction(int64_t k) const {
    const char* from = code + padded + padded / 128 * (kInt4 ? 8 : 4);
    return load_from<int32_t>(from + k / (kInt4 ? 64 : 128) * 4);
  }
};
inline int64_t code_row_bytes(int64_t K) {
  const int64_t padded = rounded_up(K, 128);
  return rounded_up(padded + padded / 128 * 16, 64);
}

inline void prepare_codes(const float* x, int64_t K, char* out) {
  const int64_t padded = rounded_up(K, 128), groups = padded / 128;
  char *scale = out + padded, *by128 = scale + 4 * groups, *by64 = by128 + 4 * groups;
  for (int64_t g = 0; g < groups; ++g) {
    const float* from = x + g * 128;
    const int64_t count = K - g * 128 < 128 ? K - g * 128 : 128;
    Vec most = zero();
    for (int64_t i = 0; i < count; i += kLanes)
      most = larger(most, magnitude(load_first(from + i, count - i)));
    const float amax = max_of(most), s = amax / 127;
    const Vec factor = all(amax > 1e-35f ? 127 / amax : 0.0f);
    int32_t half[2];
    for (int64_t h = 0; h < 2; ++h) {
      Ints sum = no_ints();
      for (int64_t i = 64 * h; i < 64 * h + 64; i += kLanes) {
        const Ints code = i < count ? nearest(mul(load_first(from + i, count - i), factor)) : no_ints();
        store_bytes(out + g * 128 + i, code);
        sum = add_ints(sum, code);
      }
      half[h] = sum_of_ints(sum);
    }
    const int32_t correction[3] = {-128 * (half[0] + half[1]), -8 * half[0], -8 * half[1]};
    __builtin_memcpy(scale + 4 * g, &s, 4);
    __builtin_memcpy(by128 + 4 * g, correction, 4);
    __builtin_memcpy(by64 + 8 * g, correction + 1, 8);
  }
}

template <bool kInt4>
struct Codes {
  static constexpr int64_t kGroup = kInt4 ? 64 : 128, kGroupBytes = kInt4 ? 64 : 128;
  // Bytes of group g in a row: for INT4 two groups share them, as low and high halves.
  static HADAL_INLINE int64_t offset(int64_t g) { return kInt4 ? g / 2 * 64 : g * 128; }
  static HADAL_INLINE Ints unpack(Ints bytes, bool high) {
    if constexpr (!kInt4) return bytes;
    return bits_and(high ? shift_right<4>(bytes) : bytes, all_ints(0x0F0F0F0F));
  }
};

// Scales of `count` rows from `row` on, to [groups][width] floats, 0 for the rows that are not there.
inline void turn_scales(const WeightView& w, int64_t row, int64_t count, int64_t width, int64_t groups,
                        float* out) {
  for (int64_t r = 0; r < width; ++r) {
    const char* from = (const char*)w.scale + (row + r) * groups * 2;
    for (int64_t g = 0; g < groups; ++g) out[g * width + r] = r < count ? bf16_at(from + 2 * g) : 0.0f;
  }
}

// kLanes weight rows against MT inputs, lanes of a vector along k.
template <bool kInt4, int MT>
HADAL_INLINE void direct_tile(const char* const* row, const CodeRow* x, int64_t padded, int64_t ahead,
                              const float* scale, Vec* sum) {
  using C = Codes<kInt4>;
  for (int m = 0; m < MT; ++m) sum[m] = zero();
  for (int64_t g = 0; g * C::kGroup < padded; ++g) {
    const int64_t k = g * C::kGroup;
    for (int64_t r = 0; ahead && r < kLanes && !(kInt4 && g % 2); ++r)
      for (int64_t b = 0; b < C::kGroupBytes; b += 64)
        __builtin_prefetch(row[r] + C::offset(g) + b + ahead, 0, 2);
    const Vec w_scale = load(scale + g * kLanes);
#pragma GCC unroll 3
    for (int m = 0; m < MT; ++m) {
      Ints part[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        part[r] = no_ints();
#pragma GCC unroll 4
        for (int64_t b = 0; b < C::kGroupBytes; b += kBytes)
          part[r] = dot4(part[r], C::unpack(load_ints(row[r] + C::offset(g) + b), g % 2),
                         load_ints(x[m].code + k + b));
      }
      const Ints group = add_ints(sums_of_ints(part), all_ints(x[m].template correction<kInt4>(k)));
      sum[m] = fma(to_floats(group), mul(w_scale, all(x[m].scale(k))), sum[m]);
    }
  }
}

template <bool kInt4, int MT>
void direct_codes(const WeightView& w, const Inputs& in, float* y, int64_t y_stride, int64_t first,
                  int64_t last, float* scratch) {
  const int64_t padded = rounded_up(w.K, 128), groups = padded / Codes<kInt4>::kGroup;
  CodeRow x[MT];
  for (int m = 0; m < MT; ++m) x[m] = {in.row(m), padded};
  for (int64_t n = first; n < last; n += kLanes) {
    const int64_t count = last - n < kLanes ? last - n : kLanes;
    const char* row[kLanes];
    for (int64_t r = 0; r < kLanes; ++r) row[r] = row_at(w, n + (r < count ? r : count - 1));
    turn_scales(w, n, count, kLanes, groups, scratch);
    Vec sum[MT];
    direct_tile<kInt4, MT>(row, x, padded, kLanes * row_bytes(w.format, w.K), scratch, sum);
    for (int m = 0; m < MT; ++m) store_first(y + m * y_stride + n, sum[m], count);
  }
}

// kCodePanel rows interleaved by 4 codes: [padded / 4][2] vectors, a lane a row. Rows beyond count repeat.
template <bool kInt4>
void interleave(const WeightView& w, int64_t first, int64_t count, int64_t padded, char* out) {
  for (int64_t v = 0; v < 2; ++v) {
    const char* row[kLanes];
    for (int64_t r = 0; r < kLanes; ++r) {
      const int64_t at = v * kLanes + r;
      row[r] = row_at(w, first + (at < count ? at : count - 1));
    }
    const int64_t bytes = kInt4 ? padded / 2 : padded;
    for (int64_t b = 0; b < bytes; b += kBytes) {
      Ints turned[kLanes];
      transpose_fours(row, turned);
      for (int64_t r = 0; r < kLanes; ++r) row[r] += kBytes;
      const int64_t k = kInt4 ? b / 64 * 128 + b % 64 : b;
      char* to = out + (k / 4 * 2 + v) * kBytes;
      for (int64_t i = 0; i < kLanes; ++i, to += 2 * kBytes) {
        store_ints(to, Codes<kInt4>::unpack(turned[i], false));
        if constexpr (kInt4) store_ints(to + 64 / 4 * 2 * kBytes, Codes<kInt4>::unpack(turned[i], true));
      }
    }
  }
}

// MT inputs by 2 * kLanes interleaved weight rows.
template <bool kInt4, int MT>
HADAL_INLINE void code_tile(const char* panel, const float* scale, const CodeRow* x, int64_t padded,
                            Vec (*sum)[2]) {
  constexpr int64_t kGroup = Codes<kInt4>::kGroup;
#pragma GCC unroll 6
  for (int m = 0; m < MT; ++m) sum[m][0] = sum[m][1] = zero();
  for (int64_t k = 0; k < padded; k += kGroup, scale += kCodePanel) {
    Ints part[MT][2];
#pragma GCC unroll 6
    for (int m = 0; m < MT; ++m) part[m][0] = part[m][1] = all_ints(x[m].template correction<kInt4>(k));
    for (int64_t i = 0; i < kGroup; i += 4, panel += 2 * kBytes) {
      const Ints w0 = load_ints(panel), w1 = load_ints(panel + kBytes);
#pragma GCC unroll 6
      for (int m = 0; m < MT; ++m) {
        const Ints xm = all_ints(load_from<int32_t>(x[m].code + k + i));
        part[m][0] = dot4(part[m][0], w0, xm);
        part[m][1] = dot4(part[m][1], w1, xm);
      }
    }
    const Vec s0 = load(scale), s1 = load(scale + kLanes);
#pragma GCC unroll 6
    for (int m = 0; m < MT; ++m) {
      const Vec xs = all(x[m].scale(k));
      sum[m][0] = fma(to_floats(part[m][0]), mul(s0, xs), sum[m][0]);
      sum[m][1] = fma(to_floats(part[m][1]), mul(s1, xs), sum[m][1]);
    }
  }
}

template <bool kInt4>
void panel_codes(const char* panel, const float* scale, int64_t rows, int64_t padded, const Inputs& in,
                 int64_t m0, int64_t m1, float* y, int64_t y_stride) {
  for (int64_t m = m0; m < m1; m += kCodeTileRows) {
    const int64_t tile = m1 - m < kCodeTileRows ? m1 - m : kCodeTileRows;
    const int64_t next = m + kCodeTileRows;
    fetch_outputs(y + next * y_stride, y_stride, m1 - next < kCodeTileRows ? m1 - next : kCodeTileRows, rows);
    with_count<kCodeTileRows>(tile, [&]<int MT>() {
      CodeRow x[MT];
      for (int i = 0; i < MT; ++i) x[i] = {in.row(m + i), padded};
      Vec sum[MT][2];
      code_tile<kInt4, MT>(panel, scale, x, padded, sum);
#pragma GCC unroll 6
      for (int i = 0; i < MT; ++i) {
        float* to = y + (m + i) * y_stride;
        store_first(to, sum[i][0], rows);
        if (rows > kLanes) store_first(to + kLanes, sum[i][1], rows - kLanes);
      }
    });
  }
}

template <bool kInt4>
void dot_codes(const WeightView& w, const Inputs& in, int64_t M, float* y, int64_t y_stride, int64_t first,
               int64_t last, char* scratch) {
  if (M <= kDirectRows)
    return with_count<kDirectRows>(
        M, [&]<int MT>() { direct_codes<kInt4, MT>(w, in, y, y_stride, first, last, (float*)scratch); });
  const int64_t padded = rounded_up(w.K, 128), groups = padded / Codes<kInt4>::kGroup;
  float* scale = (float*)(scratch + kCodePanel * padded);
  for (int64_t n = first; n < last; n += kCodePanel) {
    const int64_t rows = last - n < kCodePanel ? last - n : kCodePanel;
    interleave<kInt4>(w, n, rows, padded, scratch);
    turn_scales(w, n, rows, kCodePanel, groups, scale);
    panel_codes<kInt4>(scratch, scale, rows, padded, in, 0, M, y + n, y_stride);
  }
}

}  // namespace
}  // namespace hadal::kernels::HADAL_ISA
