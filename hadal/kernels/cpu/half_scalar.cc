// The oracle of the 16-bit kernels: what cpu/half.cc computes, in plain words; sums in fp32 throughout.
#include <stdint.h>

#include "hadal/kernels/half.h"

namespace hadal::kernels::HADAL_ISA {
namespace {

union Bits {
  float f;
  uint32_t u;
};

struct Fp16 {
  static float widen(uint16_t h) {
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
  static uint16_t round(float x) {
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
  // Place of (k, column) in a packed unit of K rows.
  static int64_t place(int64_t k, int64_t column, int64_t) { return k * kHalfUnit + column; }
};

struct Bf16 {
  static float widen(uint16_t h) {
    Bits bits;
    bits.u = (uint32_t)h << 16;
    return bits.f;
  }
  // To the nearest, ties to even; subnormal numbers become 0, as the instruction has it.
  static uint16_t round(float x) {
    Bits bits = {x};
    if ((bits.u & 0x7F800000) == 0) return (uint16_t)((bits.u >> 16) & 0x8000);
    if ((bits.u & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits.u >> 16 | 0x40);
    return (uint16_t)((bits.u + 0x7FFF + ((bits.u >> 16) & 1)) >> 16);
  }
  // Rows in pairs; an odd last one alone.
  static int64_t place(int64_t k, int64_t column, int64_t K) {
    if (k == K - 1 && K % 2) return k * kHalfUnit + column;
    return k / 2 * 2 * kHalfUnit + 2 * column + k % 2;
  }
};

template <typename F>
void multiply(const HalfProduct& p) {
  const bool packed = p.b_unit != kHalfUnit;
  for (int64_t i = 0; i < p.M; ++i)
    for (int64_t j = 0; j < p.N; ++j) {
      const uint16_t* b = p.b + j / kHalfUnit * p.b_unit;
      float sum = 0;
      for (int64_t k = 0; k < p.K; ++k)
        sum += F::widen(p.a[i * p.a_row + k * p.a_k]) *
               F::widen(b[packed ? F::place(k, j % kHalfUnit, p.K) : k * p.b_k + j % kHalfUnit]);
      float* c = p.c + i * p.c_row + j;
      *c = p.alpha * sum + (p.add ? *c : 0.0f);
    }
}

float max_abs(const float* x, int64_t n) {
  float top = 0;
  for (int64_t i = 0; i < n; ++i) top = __builtin_fabsf(x[i]) > top ? __builtin_fabsf(x[i]) : top;
  return top;
}

template <typename F>
void round_half(const float* x, float scale, uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = F::round(x[i] * scale);
}

template <typename F>
void pack_transposed(const float* x, float scale, uint16_t* y, int64_t N, int64_t K) {
  for (int64_t n = 0; n < (N + kHalfUnit - 1) / kHalfUnit * kHalfUnit; ++n)
    for (int64_t k = 0; k < K; ++k)
      y[n / kHalfUnit * kHalfUnit * K + F::place(k, n % kHalfUnit, K)] =
          n < N ? F::round(x[n * K + k] * scale) : 0;
}

template <typename F>
void pack_rows(const uint16_t* x, int64_t x_row, uint16_t* y, int64_t N, int64_t K) {
  for (int64_t n = 0; n < (N + kHalfUnit - 1) / kHalfUnit * kHalfUnit; ++n)
    for (int64_t k = 0; k < K; ++k)
      y[n / kHalfUnit * kHalfUnit * K + F::place(k, n % kHalfUnit, K)] = n < N ? x[n * x_row + k] : 0;
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

template <typename F>
void cross_entropy(float* logit, const int64_t* target, float* loss, uint16_t* dlogit, int64_t dlogit_row,
                   float scale, int64_t rows, int64_t W) {
  for (int64_t r = 0; r < rows; ++r, logit += W, dlogit += dlogit_row) {
    float top = logit[0], sum = 0;
    for (int64_t w = 0; w < W; ++w) top = logit[w] > top ? logit[w] : top;
    const float wanted = target[r] < 0 ? 0.0f : logit[target[r]];
    for (int64_t w = 0; w < W; ++w) sum += logit[w] = __builtin_expf(logit[w] - top);
    loss[r] = target[r] < 0 ? 0.0f : top + __builtin_logf(sum) - wanted;
    for (int64_t w = 0; w < W; ++w)
      dlogit[w] = target[r] < 0 ? 0 : F::round((logit[w] - (w == target[r] ? sum : 0.0f)) * (scale / sum));
  }
}

template <typename F>
void attention_exp(const HalfKernels::Attention& x, uint16_t* prob, float* inverse, float* lse,
                   int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* score = x.score + r * x.L;
    const int64_t begin = x.first ? x.first[r] : 0, end = x.visible + r < x.L ? x.visible + r : x.L;
    float top = score[begin], sum = 0;
    for (int64_t l = begin; l < end; ++l) top = score[l] > top ? score[l] : top;
    for (int64_t l = 0; l < x.L; ++l) {
      const float e = l < begin || l >= end ? 0.0f : __builtin_expf(x.scale * (score[l] - top));
      prob[r * x.L + l] = F::round(e * kHalfLimit);
      sum += e;
    }
    inverse[r] = 1.0f / sum, lse[r] = x.scale * top + __builtin_logf(sum);
  }
}

template <typename F>
void attention_backward(const HalfKernels::Attention& x, const HalfKernels::AttentionBackward& d,
                        int64_t rows) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t l = 0; l < x.L; ++l) {
      const bool seen = l >= (x.first ? x.first[r] : 0) && l < x.visible + r;
      const float p = seen ? __builtin_expf(x.scale * x.score[r * x.L + l] - d.lse[r]) : 0.0f;
      d.prob[r * d.stride + l] = F::round(p * kHalfLimit);
      d.dscore[r * d.stride + l] =
          seen ? F::round(p * (d.dprob[r * x.L + l] - d.delta[r]) * d.dscore_scale) : 0;
    }
}

template <typename F>
constexpr HalfKernels table() {
  return {"scalar", multiply<F>,     max_abs,          round_half<F>,    pack_transposed<F>,   pack_rows<F>,
          swiglu,   swiglu_backward, cross_entropy<F>, attention_exp<F>, attention_backward<F>};
}

}  // namespace

extern const HalfKernels kFp16, kBf16;
const HalfKernels kFp16 = table<Fp16>(), kBf16 = table<Bf16>();

}  // namespace hadal::kernels::HADAL_ISA
