// The inference kernels as plain loops: what runs everywhere, and the oracle of the other tables.
#include "hadal/kernels/cpu/exp.h"
#include "hadal/kernels/cpu/infer_formats.h"

#define HADAL_SIMD _Pragma("omp simd")

namespace hadal::kernels::HADAL_ISA {
namespace {

constexpr int64_t kLanes = 16;  // of every sum: lane j takes the terms j, j + 16, ...

inline float tree_sum(const float* lane) {
  float half[kLanes / 2];
  for (int64_t j = 0; j < 8; ++j) half[j] = lane[j] + lane[j + 8];
  for (int64_t width = 4; width > 0; width /= 2)
    for (int64_t j = 0; j < width; ++j) half[j] += half[j + width];
  return half[0];
}

// Prepared: floats padded with zeros to whole lanes; or int8 codes padded to 128, then a scale per 128.
int64_t prepared_bytes(WeightFormat format, int64_t K) {
  if (!is_grouped(format)) return rounded_up(K, kLanes) * 4;
  const int64_t padded = rounded_up(K, 128);
  return rounded_up(padded + padded / 128 * 4, 64);
}

int layout_of(WeightFormat format) {
  return is_grouped(format) ? 1 : 0;
}

int64_t dot_scratch_bytes(int64_t K) {
  return rounded_up(K, 128) * 4;
}

void prepare_codes(const float* x, int64_t K, int8_t* code) {
  const int64_t padded = rounded_up(K, 128);
  char* scale = (char*)code + padded;
  for (int64_t k = 0; k < padded; k += 128, scale += 4) {
    const int64_t n = K - k < 128 ? K - k : 128;
    float amax = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float a = __builtin_fabsf(x[k + i]);
      amax = a > amax ? a : amax;
    }
    const float s = amax / 127, factor = amax > 1e-35f ? 127 / amax : 0.0f;
    for (int64_t i = 0; i < n; ++i) code[k + i] = (int8_t)((x[k + i] * factor + 12582912.0f) - 12582912.0f);
    for (int64_t i = n; i < 128; ++i) code[k + i] = 0;
    __builtin_memcpy(scale, &s, 4);
  }
}

void prepare_rows(WeightFormat format, const float* x, int64_t x_stride, int64_t M, int64_t K, void* out) {
  const int64_t bytes = prepared_bytes(format, K);
  for (int64_t m = 0; m < M; ++m, x += x_stride) {
    char* to = (char*)out + m * bytes;
    if (is_grouped(format)) {
      prepare_codes(x, K, (int8_t*)to);
      continue;
    }
    for (int64_t k = 0; k < K; ++k) ((float*)to)[k] = x[k];
    for (int64_t k = K; k < rounded_up(K, kLanes); ++k) ((float*)to)[k] = 0;
  }
}

// The codes of a row as signed bytes, padded to 128.
void codes_of_row(const WeightView& w, int64_t row, int8_t* out) {
  const uint8_t* from = (const uint8_t*)row_at(w, row);
  const int64_t padded = rounded_up(w.K, 128);
  if (w.format == WeightFormat::kInt8) {
    for (int64_t k = 0; k < padded; ++k) out[k] = (int8_t)(from[k] - 128);
    return;
  }
  for (int64_t k = 0; k < padded; k += 128, from += 64)
    for (int64_t i = 0; i < 64; ++i) {
      out[k + i] = (int8_t)((from[i] & 15) - 8);
      out[k + i + 64] = (int8_t)((from[i] >> 4) - 8);
    }
}

inline const char* group_scales(const WeightView& w, int64_t row, int64_t group) {
  return (const char*)w.scale + row * (rounded_up(w.K, 128) / group) * 2;
}

void decode_row(const WeightView& w, int64_t row, float* out) {
  const char* from = row_at(w, row);
  const int64_t K = w.K;
  switch (w.format) {
    case WeightFormat::kF32:
      __builtin_memcpy(out, from, (size_t)K * 4);
      return;
    case WeightFormat::kBF16:
      for (int64_t k = 0; k < K; ++k) out[k] = bf16_at(from + 2 * k);
      return;
    case WeightFormat::kFp8: {
      const char* scale = fp8_scales(w, row);
      for (int64_t k = 0; k < K; ++k) out[k] = e4m3((uint8_t)from[k]) * load_from<float>(scale + k / 128 * 4);
      return;
    }
    case WeightFormat::kInt8: {
      const char* scale = group_scales(w, row, kInt8Group);
      for (int64_t k = 0; k < K; ++k)
        out[k] = (float)((uint8_t)from[k] - 128) * bf16_at(scale + k / kInt8Group * 2);
      return;
    }
    case WeightFormat::kInt4: {
      const char* scale = group_scales(w, row, kInt4Group);
      for (int64_t k = 0; k < K; ++k) {
        const uint8_t pair = (uint8_t)from[k / 128 * 64 + k % 64];
        out[k] = (float)((k & 64 ? pair >> 4 : pair & 15) - 8) * bf16_at(scale + k / kInt4Group * 2);
      }
      return;
    }
  }
}

void decode_rows(const WeightView& w, int64_t first, int64_t last, float* out, int64_t out_stride) {
  for (int64_t row = first; row < last; ++row, out += out_stride) decode_row(w, row, out);
}

float dot(const float* x, const float* w, int64_t padded) {
  float lane[kLanes] = {};
  for (int64_t k = 0; k < padded; k += kLanes) {
    HADAL_SIMD
    for (int64_t j = 0; j < kLanes; ++j) lane[j] += x[k + j] * w[k + j];
  }
  return tree_sum(lane);
}

float grouped_dot(const int8_t* x, const int8_t* w, int64_t padded, const char* w_scale, int64_t group) {
  const char* x_scale = (const char*)x + padded;
  float sum = 0;
  for (int64_t k = 0; k < padded; k += group, w_scale += 2) {
    int32_t products = 0;
    for (int64_t i = 0; i < group; ++i) products += x[k + i] * w[k + i];
    sum += (float)products * (bf16_at(w_scale) * load_from<float>(x_scale + k / 128 * 4));
  }
  return sum;
}

void dot_rows(const WeightView& w, const void* prepared, const int32_t* row_index, int64_t M, float* y,
              int64_t y_stride, int64_t first, int64_t last, void* scratch) {
  const int64_t bytes = prepared_bytes(w.format, w.K);
  const int64_t padded = rounded_up(w.K, is_grouped(w.format) ? 128 : kLanes);
  const int64_t group = w.format == WeightFormat::kInt8 ? kInt8Group : kInt4Group;
  for (int64_t n = first; n < last; ++n) {
    if (is_grouped(w.format)) {
      codes_of_row(w, n, (int8_t*)scratch);
    } else {
      decode_row(w, n, (float*)scratch);
      for (int64_t k = w.K; k < padded; ++k) ((float*)scratch)[k] = 0;
    }
    for (int64_t m = 0; m < M; ++m) {
      const char* x = (const char*)prepared + (row_index ? row_index[m] : m) * bytes;
      y[m * y_stride + n] = is_grouped(w.format) ? grouped_dot((const int8_t*)x, (const int8_t*)scratch,
                                                               padded, group_scales(w, n, group), group)
                                                 : dot((const float*)x, (const float*)scratch, padded);
    }
  }
}

void weighted_rows(const float* p, int64_t p_stride, const float* v, int64_t v_stride, int64_t M, int64_t L,
                   int64_t C, float* y, int64_t y_stride, bool add) {
  for (int64_t m = 0; m < M; ++m, p += p_stride, y += y_stride) {
    if (!add)
      for (int64_t c = 0; c < C; ++c) y[c] = 0;
    for (int64_t l = 0; l < L; ++l) {
      HADAL_SIMD
      for (int64_t c = 0; c < C; ++c) y[c] += p[l] * v[l * v_stride + c];
    }
  }
}

void softmax_rows(float* score, int64_t score_stride, const int64_t* visible, float scale, int64_t M,
                  int64_t L, float* max, float* sum) {
  for (int64_t m = 0; m < M; ++m, score += score_stride) {
    float top = score[0] * scale;
    for (int64_t l = 1; l < visible[m]; ++l) top = score[l] * scale > top ? score[l] * scale : top;
    float lane[kLanes] = {};
    for (int64_t l = 0; l < visible[m]; ++l) {
      score[l] = fast_exp(score[l] * scale - top);
      lane[l % kLanes] += score[l];
    }
    for (int64_t l = visible[m]; l < L; ++l) score[l] = 0;
    max[m] = top;
    sum[m] = tree_sum(lane);
  }
}

float largest(const float* x, int64_t n) {
  float most = x[0];
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] != x[i]) return x[i];
    most = x[i] > most ? x[i] : most;
  }
  return most;
}

float exponentials(const float* x, float largest, float scale, float* y, int64_t n) {
  float lane[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    y[i] = fast_exp((x[i] - largest) * scale);
    lane[i % kLanes] += y[i];
  }
  return tree_sum(lane);
}

void merge_splits(float* max, float* sum, float* out, int64_t out_stride, const float* next_max,
                  const float* next_sum, const float* next_out, int64_t next_stride, int64_t M, int64_t C) {
  for (int64_t m = 0; m < M; ++m, out += out_stride, next_out += next_stride) {
    const float top = max[m] > next_max[m] ? max[m] : next_max[m];
    const float old_part = fast_exp(max[m] - top), next_part = fast_exp(next_max[m] - top);
    max[m] = top;
    sum[m] = sum[m] * old_part + next_sum[m] * next_part;
    for (int64_t c = 0; c < C; ++c) out[c] = out[c] * old_part + next_out[c] * next_part;
  }
}

void rms_norm(const float* x, int64_t x_stride, const float* gain, float* y, int64_t y_stride, int64_t M,
              int64_t D, float eps) {
  for (int64_t m = 0; m < M; ++m, x += x_stride, y += y_stride) {
    float lane[kLanes] = {};
    for (int64_t d = 0; d < D; ++d) lane[d % kLanes] += x[d] * x[d];
    const float scale = 1.0f / __builtin_sqrtf(tree_sum(lane) / (float)D + eps);
    for (int64_t d = 0; d < D; ++d) y[d] = x[d] * scale * gain[d];
  }
}

void swiglu(const float* gate, const float* up, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] / (1.0f + fast_exp(-gate[i])) * up[i];
}

void add_scaled(const float* x, float scale, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += scale * x[i];
}

}  // namespace

extern const InferKernels kInfer;
const InferKernels kInfer{"scalar",          prepared_bytes, layout_of,     prepare_rows, dot_rows,
                          dot_scratch_bytes, decode_rows,    weighted_rows, softmax_rows, largest,
                          exponentials,      merge_splits,   rms_norm,      swiglu,       add_scaled};

}  // namespace hadal::kernels::HADAL_ISA
