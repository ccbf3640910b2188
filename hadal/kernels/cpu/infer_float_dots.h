// Dot products against F32, BF16 and FP8 weights. One accumulator of kLanes an output, k ascending, lane j
// taking every kLanes-th value of the prepared order; then one tree. Internal to cpu/infer_simd.cc.
#pragma once
#include "hadal/kernels/cpu/infer_lanes.h"

namespace hadal::kernels::HADAL_ISA {
namespace {

constexpr int64_t kUnblocked = INT64_MAX / 2;
constexpr int64_t kFewInputs = 48;  // for up to so many, the floats of a panel stay in the L1 cache
constexpr int64_t kNearBytes = 24 << 10;
constexpr int64_t kPanel = 24;           // weight rows widened at once: their floats stay in the L2 cache
constexpr int64_t kPrepareUnit = 32;     // prepared floats are padded to it
constexpr int64_t kRowsBytes = 1 << 20;  // of prepared rows that pass over a panel, to stay in the L2 cache

// A weight row, read in steps of kStep values as kVecs vectors in prepared order. enter(k): k begins a block.
struct F32Row {
  static constexpr int64_t kStep = kLanes, kBlock = kUnblocked;
  static constexpr int kVecs = 1;
  const char* at;
  F32Row(const WeightView& w, int64_t n) : at(row_at(w, n)) {}
  explicit F32Row(const float* row) : at((const char*)row) {}
  HADAL_INLINE void enter(int64_t k) {}
  HADAL_INLINE const char* address(int64_t k) const { return at + 4 * k; }
  template <int v>
  HADAL_INLINE Vec part(int64_t k) const {
    return load(at + 4 * k);
  }
  template <int v>
  HADAL_INLINE Vec part_first(int64_t k, int64_t n) const {
    return load_first(at + 4 * k, n);
  }
};

struct Bf16Row {
  static constexpr int64_t kStep = kPairs, kBlock = kUnblocked;
  static constexpr int kVecs = 2;
  const char* at;
  Bf16Row(const WeightView& w, int64_t n) : at(row_at(w, n)) {}
  HADAL_INLINE void enter(int64_t k) {}
  HADAL_INLINE const char* address(int64_t k) const { return at + 2 * k; }
  template <int v>
  HADAL_INLINE Vec part(int64_t k) const {
    return v == 0 ? even_bf16(bf16_pairs(at + 2 * k)) : odd_bf16(bf16_pairs(at + 2 * k));
  }
  template <int v>
  HADAL_INLINE Vec part_first(int64_t k, int64_t n) const {
    return v == 0 ? even_bf16(bf16_pairs_first(at + 2 * k, n)) : odd_bf16(bf16_pairs_first(at + 2 * k, n));
  }
};

struct Fp8Row {
  static constexpr int64_t kStep = 2 * kLanes, kBlock = 128;
  static constexpr int kVecs = 2;
  const char *at, *scales;
  Vec scale;
  Fp8Row(const WeightView& w, int64_t n) : at(row_at(w, n)), scales(fp8_scales(w, n)), scale(zero()) {}
  HADAL_INLINE void enter(int64_t k) { scale = all(load_from<float>(scales + k / 128 * 4) * 256.0f); }
  HADAL_INLINE const char* address(int64_t k) const { return at + k; }
  template <int v>
  HADAL_INLINE Vec part(int64_t k) const {
    return mul(e4m3_half<v>(at + k), scale);
  }
  template <int v>
  HADAL_INLINE Vec part_first(int64_t k, int64_t n) const {
    return n > v * kLanes ? mul(e4m3_first(at + k + v * kLanes, n - v * kLanes), scale) : zero();
  }
};

template <class Row, int MT, int NT, int v>
HADAL_INLINE void multiply(const Row* row, const float* const* x, int64_t k, Vec (*sum)[NT]) {
  Vec w[NT];
#pragma GCC unroll 8
  for (int n = 0; n < NT; ++n) w[n] = row[n].template part<v>(k);
#pragma GCC unroll 8
  for (int m = 0; m < MT; ++m) {
    const Vec xm = load(x[m] + k + v * kLanes);
#pragma GCC unroll 8
    for (int n = 0; n < NT; ++n) sum[m][n] = fma(xm, w[n], sum[m][n]);
  }
}
template <class Row, int MT, int NT, int v>
HADAL_INLINE void multiply_first(const Row* row, const float* const* x, int64_t k, int64_t count,
                                 Vec (*sum)[NT]) {
#pragma GCC unroll 8
  for (int n = 0; n < NT; ++n) {
    const Vec w = row[n].template part_first<v>(k, count);
#pragma GCC unroll 8
    for (int m = 0; m < MT; ++m) sum[m][n] = fma(load(x[m] + k + v * kLanes), w, sum[m][n]);
  }
}

// MT inputs by NT weight rows; y[m * y_stride + 0..count). ahead: bytes from a weight to the one that the
// next tile has in its place, fetched early; 0: none.
template <class Row, int MT, int NT>
HADAL_INLINE void dot_tile(Row* row, const float* const* x, int64_t K, int64_t ahead, float* y,
                           int64_t y_stride, int64_t count) {
  Vec sum[MT][NT];
#pragma GCC unroll 8
  for (int m = 0; m < MT; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NT; ++n) sum[m][n] = zero();
  const int64_t whole = K / Row::kStep * Row::kStep;
  int64_t k = 0;
  while (k < whole) {
    const int64_t end = whole - k > Row::kBlock ? k + Row::kBlock : whole;
#pragma GCC unroll 8
    for (int n = 0; n < NT; ++n) row[n].enter(k);
    for (; k < end; k += Row::kStep) {
      if (ahead)
#pragma GCC unroll 8
        for (int n = 0; n < NT; ++n) __builtin_prefetch(row[n].address(k) + ahead, 0, 2);
      multiply<Row, MT, NT, 0>(row, x, k, sum);
      if constexpr (Row::kVecs == 2) multiply<Row, MT, NT, 1>(row, x, k, sum);
    }
  }
  if (k < K) {
#pragma GCC unroll 8
    for (int n = 0; n < NT; ++n) row[n].enter(k);
    multiply_first<Row, MT, NT, 0>(row, x, k, K - k, sum);
    if constexpr (Row::kVecs == 2) multiply_first<Row, MT, NT, 1>(row, x, k, K - k, sum);
  }
#pragma GCC unroll 8
  for (int m = 0; m < MT; ++m)
#pragma GCC unroll 2
    for (int n = 0; n < NT; n += 4)
      if (n < count) store_sums4(&sum[m][n], y + m * y_stride + n, count - n);
}

// Calls f.template operator()<count>() for a count known at run time.
template <int kMost, class F>
HADAL_INLINE void with_count(int64_t count, F&& f) {
  static_assert(kMost <= 6);
  switch (count) {
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 3:
      if constexpr (kMost >= 3) return f.template operator()<3>();
      [[fallthrough]];
    case 4:
      if constexpr (kMost >= 4) return f.template operator()<4>();
      [[fallthrough]];
    case 5:
      if constexpr (kMost >= 5) return f.template operator()<5>();
      [[fallthrough]];
    default:
      return f.template operator()<kMost>();
  }
}

// Outputs of the tile after this one, for writing: with many outputs a row, their lines are far away.
HADAL_INLINE void fetch_outputs(float* y, int64_t y_stride, int64_t rows, int64_t count) {
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t n = 0; n < count; n += 16) __builtin_prefetch(y + m * y_stride + n, 1, 3);
}

struct Inputs {
  const char* prepared;
  const int32_t* row_index;
  int64_t bytes;
  HADAL_INLINE const char* row(int64_t m) const { return prepared + (row_index ? row_index[m] : m) * bytes; }
};

template <class Row, int MT, int NT>
HADAL_INLINE void stream_tile(const WeightView& w, const float* const* x, int64_t n, int64_t count,
                              int64_t ahead, float* y, int64_t y_stride) {
  const auto at = [&](int i) { return Row(w, n + (i < count ? i : count - 1)); };
  if constexpr (NT == 8) {
    Row row[8] = {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)};
    dot_tile<Row, MT, NT>(row, x, w.K, ahead, y + n, y_stride, count);
  } else {
    Row row[4] = {at(0), at(1), at(2), at(3)};
    dot_tile<Row, MT, NT>(row, x, w.K, ahead, y + n, y_stride, count);
  }
}

// Few inputs: every weight is widened where it is used. MT inputs, then `more`: MT or one less, if any.
template <class Row, int MT, int NT>
void stream_rows(const WeightView& w, const Inputs& in, int64_t more, float* y, int64_t y_stride,
                 int64_t first, int64_t last) {
  const float* x[2 * MT] = {};
  for (int64_t m = 0; m < MT + more; ++m) x[m] = (const float*)in.row(m);
  const int64_t ahead = NT * row_bytes(w.format, w.K);
  for (int64_t n = first; n < last; n += NT) {
    const int64_t count = last - n < NT ? last - n : NT;
    stream_tile<Row, MT, NT>(w, x, n, count, ahead, y, y_stride);
    if constexpr (2 * MT > kTileRows && MT > 1) {
      float* y_more = y + MT * y_stride;
      if (more == MT) stream_tile<Row, MT, NT>(w, x + MT, n, count, 0, y_more, y_stride);
      if (more == MT - 1) stream_tile<Row, MT - 1, NT>(w, x + MT, n, count, 0, y_more, y_stride);
    }
  }
}

template <class Row>
void widen_row(Row row, int64_t K, int64_t padded, float* out) {
  int64_t k = 0;
  for (; k + Row::kStep <= K; k += Row::kStep) {
    row.enter(k);
    store(out + k, row.template part<0>(k));
    if constexpr (Row::kVecs == 2) store(out + k + kLanes, row.template part<1>(k));
  }
  if (k < K) {
    row.enter(k);
    store(out + k, row.template part_first<0>(k, K - k));
    if constexpr (Row::kVecs == 2) store(out + k + kLanes, row.template part_first<1>(k, K - k));
    k += Row::kStep;
  }
  for (; k < padded; k += kLanes) store(out + k, zero());
}

// A panel of widened rows, all inputs over it. ahead: bytes from it to the next panel, fetched early; 0:
// none.
inline void panel_rows(const float* panel, int64_t panel_stride, int64_t rows, int64_t K, int64_t ahead,
                       const Inputs& in, int64_t m0, int64_t m1, float* y, int64_t y_stride) {
  for (int64_t m = m0; m < m1; m += kTileRows) {
    const int64_t tile = m1 - m < kTileRows ? m1 - m : kTileRows;
    const float* x[kTileRows];
    for (int64_t i = 0; i < kTileRows; ++i) x[i] = (const float*)in.row(m + (i < tile ? i : 0));
    const int64_t next = m + kTileRows;
    fetch_outputs(y + next * y_stride, y_stride, m1 - next < kTileRows ? m1 - next : kTileRows, rows);
    with_count<kTileRows>(tile, [&]<int MT>() {
      for (int64_t n = 0; n < rows; n += kTileOutputs) {
        const int64_t count = rows - n < kTileOutputs ? rows - n : kTileOutputs;
        const auto at = [&](int64_t i) {
          return F32Row(panel + (n + (i < count ? i : count - 1)) * panel_stride);
        };
        F32Row row[kTileOutputs] = {at(0), at(1), at(2), at(3)};
        dot_tile<F32Row, MT, kTileOutputs>(row, x, K, next < m1 ? 0 : ahead, y + m * y_stride + n, y_stride,
                                           count);
      }
    });
  }
}

template <class Row>
void dot_floats(const WeightView& w, const Inputs& in, int64_t M, float* y, int64_t y_stride, int64_t first,
                int64_t last, float* scratch) {
  if (M == 1) return stream_rows<Row, 1, kStreams>(w, in, 0, y, y_stride, first, last);
  constexpr bool kCheap = Row::kBlock == kUnblocked;  // to widen twice, rather than to store and load
  if (M <= (kCheap ? 2 : 1) * kTileRows) {
    const int64_t tile = M <= kTileRows ? M : (M + 1) / 2;
    return with_count<kTileRows>(tile, [&]<int MT>() {
      stream_rows<Row, MT, kTileOutputs>(w, in, M - tile, y, y_stride, first, last);
    });
  }
  // Steps of the rows' own kind, so that every lane gets the same terms.
  const int64_t padded = rounded_up(w.K, Row::kStep);
  int64_t block = kRowsBytes / in.bytes / kTileRows * kTileRows;
  block = block < 16 * kTileRows ? 16 * kTileRows : block;
  int64_t panel = kNearBytes / (4 * padded) / kTileOutputs * kTileOutputs;
  panel = M > kFewInputs || panel > kPanel ? kPanel : panel < kTileOutputs ? kTileOutputs : panel;
  for (int64_t m = 0; m < M; m += block)
    for (int64_t n = first; n < last; n += panel) {
      const int64_t rows = last - n < panel ? last - n : panel;
      const int64_t end = M - m < block ? M : m + block;
      if (w.format == WeightFormat::kF32 && w.K % kLanes == 0) {
        const int64_t ahead = last - n > rows ? rows * w.K * 4 : 0;
        panel_rows((const float*)row_at(w, n), w.K, rows, w.K, ahead, in, m, end, y + n, y_stride);
        continue;
      }
      for (int64_t r = 0; r < rows; ++r) widen_row(Row(w, n + r), w.K, padded, scratch + r * padded);
      panel_rows(scratch, padded, rows, padded, 0, in, m, end, y + n, y_stride);
    }
}

}  // namespace
}  // namespace hadal::kernels::HADAL_ISA
