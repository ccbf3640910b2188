// The inference kernels in vectors (infer_lanes.h), compiled once per instruction set.
#include "hadal/kernels/cpu/infer_code_dots.h"
#include "hadal/kernels/cpu/infer_float_dots.h"

#define HADAL_STR2(a) #a
#define HADAL_STR(a) HADAL_STR2(a)

namespace hadal::kernels::HADAL_ISA {
namespace {

// exp to 2 ulp: x = n ln 2 + r, degree-6 polynomial on r, exponent added as bits. Below -87: ~0.
HADAL_INLINE Vec exp_of(Vec x) {
  x = smaller(larger(x, all(-87.0f)), all(88.0f));
  const Vec round = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = fma(x, all(1.44269504088896341f), round);
  const Vec n = sub(shifted, round);
  const Vec r = fma(n, all(2.12194440e-4f), fma(n, all(-0.693359375f), x));
  Vec p = fma(all(1.9875691500e-4f), r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), all(1.0f));
  const Ints exponent = shift_left<23>(sub_ints(as_ints(shifted), all_ints(0x4B400000)));
  return as_floats(add_ints(as_ints(p), exponent));
}

int64_t prepared_bytes(WeightFormat format, int64_t K) {
  return is_grouped(format) ? code_row_bytes(K) : rounded_up(K, kPrepareUnit) * 4;
}

// F32 and FP8: natural order. BF16: by kPairs values, the even ones, then the odd ones. INT8, INT4: CodeRow.
int layout_of(WeightFormat format) {
  return is_grouped(format) ? 2 : format == WeightFormat::kBF16 ? 1 : 0;
}

int64_t dot_scratch_bytes(int64_t K) {
  return rounded_up(K, 128) * kPanel * 4;
}

void prepare_floats(bool pairs, const float* x, int64_t K, float* out) {
  float last[kPrepareUnit];
  for (int64_t k = 0; k < K; k += kPrepareUnit) {
    const float* from = x + k;
    if (K - k < kPrepareUnit) {
      for (int64_t i = 0; i < kPrepareUnit; i += kLanes)
        store(last + i, i < K - k ? load_first(x + k + i, K - k - i) : zero());
      from = last;
    }
    if (pairs)
      for (int64_t i = 0; i < kPrepareUnit; i += kPairs) split_pairs(from + i, out + k + i);
    else
      for (int64_t i = 0; i < kPrepareUnit; i += kLanes) store(out + k + i, load(from + i));
  }
}

void prepare_rows(WeightFormat format, const float* x, int64_t x_stride, int64_t M, int64_t K, void* out) {
  const int64_t bytes = prepared_bytes(format, K);
  for (int64_t m = 0; m < M; ++m, x += x_stride) {
    char* to = (char*)out + m * bytes;
    if (is_grouped(format))
      prepare_codes(x, K, to);
    else
      prepare_floats(format == WeightFormat::kBF16, x, K, (float*)to);
  }
}

void dot_rows(const WeightView& w, const void* prepared, const int32_t* row_index, int64_t M, float* y,
              int64_t y_stride, int64_t first, int64_t last, void* scratch) {
  if (M <= 0 || first >= last) return;
  const Inputs in{(const char*)prepared, row_index, prepared_bytes(w.format, w.K)};
  switch (w.format) {
    case WeightFormat::kF32:
      return dot_floats<F32Row>(w, in, M, y, y_stride, first, last, (float*)scratch);
    case WeightFormat::kBF16:
      return dot_floats<Bf16Row>(w, in, M, y, y_stride, first, last, (float*)scratch);
    case WeightFormat::kFp8:
      return dot_floats<Fp8Row>(w, in, M, y, y_stride, first, last, (float*)scratch);
    case WeightFormat::kInt8:
      return dot_codes<false>(w, in, M, y, y_stride, first, last, (char*)scratch);
    case WeightFormat::kInt4:
      return dot_codes<true>(w, in, M, y, y_stride, first, last, (char*)scratch);
  }
}

void decode_int8(const char* from, const char* scale, int64_t K, float* out) {
  for (int64_t k = 0; k < K; k += kLanes) {  // rows are padded: whole vectors may be read
    const Vec code = to_floats(sub_ints(load_bytes(from + k), all_ints(128)));
    store_first(out + k, mul(code, all(bf16_at(scale + k / kInt8Group * 2))), K - k);
  }
}

void decode_int4(const char* from, const char* scale, int64_t K, float* out) {
  for (int64_t k = 0; k < K; k += kLanes) {
    Ints pair = load_bytes(from + k / 128 * 64 + k % 64);
    pair = k & 64 ? shift_right<4>(pair) : bits_and(pair, all_ints(15));
    const Vec code = to_floats(sub_ints(pair, all_ints(8)));
    store_first(out + k, mul(code, all(bf16_at(scale + k / kInt4Group * 2))), K - k);
  }
}

void decode_floats(const WeightView& w, int64_t row, float* out) {
  const char* from = row_at(w, row);
  for (int64_t k = 0; k < w.K; k += kLanes) {
    const int64_t n = w.K - k < kLanes ? w.K - k : kLanes;
    Vec value;
    if (w.format == WeightFormat::kF32) {
      value = load_first(from + 4 * k, n);
    } else if (w.format == WeightFormat::kBF16) {
      value = as_floats(shift_left<16>(low_words(from + 2 * k, n)));
    } else {
      const Vec scale = all(load_from<float>(fp8_scales(w, row) + k / 128 * 4) * 256.0f);
      value = mul(n == kLanes ? e4m3_at(from + k) : e4m3_first(from + k, n), scale);
    }
    store_first(out + k, value, n);
  }
}

void decode_rows(const WeightView& w, int64_t first, int64_t last, float* out, int64_t out_stride) {
  const int64_t padded = rounded_up(w.K, 128);
  for (int64_t row = first; row < last; ++row, out += out_stride) {
    if (w.format == WeightFormat::kInt8)
      decode_int8(row_at(w, row), (const char*)w.scale + row * (padded / kInt8Group) * 2, w.K, out);
    else if (w.format == WeightFormat::kInt4)
      decode_int4(row_at(w, row), (const char*)w.scale + row * (padded / kInt4Group) * 2, w.K, out);
    else
      decode_floats(w, row, out);
  }
}

// MT rows by VT vectors of columns; the last vector has `lanes` columns.
template <int MT, int VT>
HADAL_INLINE void weighted_tile(const float* p, int64_t p_stride, const float* v, int64_t v_stride, int64_t L,
                                int64_t lanes, float* y, int64_t y_stride, bool add) {
  Vec sum[MT][VT];
  const auto columns = [&](const float* at, int i) {
    return i == VT - 1 ? load_first(at + i * kLanes, lanes) : load(at + i * kLanes);
  };
#pragma GCC unroll 8
  for (int m = 0; m < MT; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < VT; ++i) sum[m][i] = add ? columns(y + m * y_stride, i) : zero();
  for (int64_t l = 0; l < L; ++l, v += v_stride) {
    Vec value[VT];
#pragma GCC unroll 8
    for (int i = 0; i < VT; ++i) value[i] = columns(v, i);
#pragma GCC unroll 8
    for (int m = 0; m < MT; ++m) {
      const Vec weight = all(p[m * p_stride + l]);
#pragma GCC unroll 8
      for (int i = 0; i < VT; ++i) sum[m][i] = fma(weight, value[i], sum[m][i]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MT; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < VT; ++i) {
      float* to = y + m * y_stride + i * kLanes;
      i == VT - 1 ? store_first(to, sum[m][i], lanes) : store(to, sum[m][i]);
    }
}

template <int MT>
void weighted_columns(const float* p, int64_t p_stride, const float* v, int64_t v_stride, int64_t L,
                      int64_t C, float* y, int64_t y_stride, bool add) {
  constexpr int VT = MT == 1 ? kStreams : kTileOutputs;
  int64_t c = 0;
  for (; C - c >= VT * kLanes; c += VT * kLanes)
    weighted_tile<MT, VT>(p, p_stride, v + c, v_stride, L, kLanes, y + c, y_stride, add);
  for (; c < C; c += kLanes)
    weighted_tile<MT, 1>(p, p_stride, v + c, v_stride, L, C - c, y + c, y_stride, add);
}

void weighted_rows(const float* p, int64_t p_stride, const float* v, int64_t v_stride, int64_t M, int64_t L,
                   int64_t C, float* y, int64_t y_stride, bool add) {
  constexpr int64_t kColumns = kTileOutputs * kLanes;  // at a time, so that v stays in the L1 cache
  if (M == 1) return weighted_columns<1>(p, p_stride, v, v_stride, L, C, y, y_stride, add);
  for (int64_t c = 0; c < C; c += kColumns)
    for (int64_t m = 0; m < M; m += kTileRows)
      with_count<kTileRows>(M - m, [&]<int MT>() {
        weighted_columns<MT>(p + m * p_stride, p_stride, v + c, v_stride, L,
                             C - c < kColumns ? C - c : kColumns, y + m * y_stride + c, y_stride, add);
      });
}

void softmax_row(float* score, int64_t visible, float scale, int64_t L, float* max, float* sum) {
  Vec most = all(score[0] * scale);
  for (int64_t l = 0; l < visible; l += kLanes) {
    const Vec scaled = mul(load_first(score + l, visible - l), all(scale));
    most = larger(most, replace_after(scaled, visible - l, most));
  }
  *max = max_of(most);
  const Vec top = all(*max);
  Vec total = zero();
  for (int64_t l = 0; l < visible; l += kLanes) {
    const Vec e = exp_of(sub(mul(load_first(score + l, visible - l), all(scale)), top));
    const Vec kept = keep_first(e, visible - l);
    total = add(total, kept);
    store_first(score + l, kept, L - l);
  }
  *sum = sum_of(total);
  for (int64_t l = rounded_up(visible, kLanes); l < L; l += kLanes) store_first(score + l, zero(), L - l);
}

void softmax_rows(float* score, int64_t score_stride, const int64_t* visible, float scale, int64_t M,
                  int64_t L, float* max, float* sum) {
  for (int64_t m = 0; m < M; ++m)
    softmax_row(score + m * score_stride, visible[m], scale, L, max + m, sum + m);
}

float largest(const float* x, int64_t n) {
  Vec most = all(x[0]);
  Ints nans = no_ints();  // the bits of a NaN's magnitude are above those of infinity
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec a = replace_after(load_first(x + i, n - i), n - i, most);
    most = larger(most, a);
    nans = add_ints(nans, shift_right<31>(sub_ints(all_ints(0x7F800000), as_ints(magnitude(a)))));
  }
  return sum_of_ints(nans) ? __builtin_nanf("") : max_of(most);
}

float exponentials(const float* x, float largest, float scale, float* y, int64_t n) {
  const Vec top = all(largest), factor = all(scale);
  Vec total = zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec kept = keep_first(exp_of(mul(sub(load_first(x + i, n - i), top), factor)), n - i);
    total = add(total, kept);
    store_first(y + i, kept, n - i);
  }
  return sum_of(total);
}

float exp_of_one(float x) {
  float lanes[kLanes];
  store(lanes, exp_of(all(x)));
  return lanes[0];
}

void merge_splits(float* max, float* sum, float* out, int64_t out_stride, const float* next_max,
                  const float* next_sum, const float* next_out, int64_t next_stride, int64_t M, int64_t C) {
  for (int64_t m = 0; m < M; ++m, out += out_stride, next_out += next_stride) {
    const float top = max[m] > next_max[m] ? max[m] : next_max[m];
    const float old_part = exp_of_one(max[m] - top), next_part = exp_of_one(next_max[m] - top);
    max[m] = top;
    sum[m] = sum[m] * old_part + next_sum[m] * next_part;
    for (int64_t c = 0; c < C; c += kLanes) {
      const Vec next = mul(load_first(next_out + c, C - c), all(next_part));
      store_first(out + c, fma(load_first(out + c, C - c), all(old_part), next), C - c);
    }
  }
}

void rms_norm(const float* x, int64_t x_stride, const float* gain, float* y, int64_t y_stride, int64_t M,
              int64_t D, float eps) {
  for (int64_t m = 0; m < M; ++m, x += x_stride, y += y_stride) {
    Vec squares = zero();
    for (int64_t d = 0; d < D; d += kLanes) {
      const Vec a = load_first(x + d, D - d);
      squares = fma(a, a, squares);
    }
    const Vec scale = all(1.0f / __builtin_sqrtf(sum_of(squares) / (float)D + eps));
    for (int64_t d = 0; d < D; d += kLanes)
      store_first(y + d, mul(mul(load_first(x + d, D - d), scale), load_first(gain + d, D - d)), D - d);
  }
}

void swiglu(const float* gate, const float* up, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec g = load_first(gate + i, n - i);
    const Vec silu = div(g, add(all(1.0f), exp_of(sub(zero(), g))));
    store_first(y + i, mul(silu, load_first(up + i, n - i)), n - i);
  }
}

void add_scaled(const float* x, float scale, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes)
    store_first(y + i, fma(load_first(x + i, n - i), all(scale), load_first(y + i, n - i)), n - i);
}

}  // namespace

extern const InferKernels kInfer;
const InferKernels kInfer{HADAL_STR(HADAL_ISA), prepared_bytes, layout_of,     prepare_rows, dot_rows,
                          dot_scratch_bytes,    decode_rows,    weighted_rows, softmax_rows, largest,
                          exponentials,         merge_splits,   rms_norm,      swiglu,       add_scaled};

}  // namespace hadal::kernels::HADAL_ISA
