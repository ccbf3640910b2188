// Compiled once per instruction set, with HADAL_ISA naming the namespace. Plain loops that the compiler
// vectorises: no standard library here, whose templates would leak wide instructions into the program.
#include <stddef.h>
#include <stdint.h>

#include "hadal/kernels/cpu/exp.h"
#include "hadal/kernels/train.h"

#define HADAL_CAT2(a, b) a##b
#define HADAL_CAT(a, b) HADAL_CAT2(a, b)
#define HADAL_STR2(a) #a
#define HADAL_STR(a) HADAL_STR2(a)
#define HADAL_SIMD _Pragma("omp simd")
#define HADAL_SIMD_SUM(x) _Pragma(HADAL_STR(omp simd reduction(+ : x)))
#define HADAL_SIMD_MAX(x) _Pragma(HADAL_STR(omp simd reduction(max : x)))

namespace hadal::kernels::HADAL_ISA {
namespace {

inline float sigmoid(float x) {
  return 1.0f / (1.0f + fast_exp(-x));
}

// One row, compiled once: what is computed again in the backward pass must be the same bits. Returns 1 / rms.
__attribute__((noinline)) float norm_row(const float* x, const float* gain, float* y, int64_t D, float eps) {
  float squares = 0;
  HADAL_SIMD_SUM(squares)
  for (int64_t d = 0; d < D; ++d) squares += x[d] * x[d];
  const float scale = 1.0f / __builtin_sqrtf(squares / (float)D + eps);
  HADAL_SIMD
  for (int64_t d = 0; d < D; ++d) y[d] = x[d] * scale * gain[d];
  return scale;
}

void rms_norm(const float* x, const float* gain, float* y, float* rstd, int64_t rows, int64_t D, float eps) {
  for (int64_t r = 0; r < rows; ++r) rstd[r] = norm_row(x + r * D, gain, y + r * D, D, eps);
}

void add_rms_norm(const float* x, const float* delta, const float* gain, float* sum, float* y, float* rstd,
                  int64_t rows, int64_t D, float eps) {
  for (int64_t r = 0; r < rows; ++r, x += D, delta += D, sum += D) {
    HADAL_SIMD
    for (int64_t d = 0; d < D; ++d) sum[d] = x[d] + delta[d];
    rstd[r] = norm_row(sum, gain, y + r * D, D, eps);
  }
}

void rms_norm_backward(const float* dy, const float* x, const float* gain, const float* rstd,
                       const float* other, float* dx, float* dgain, int64_t rows, int64_t D) {
  for (int64_t r = 0; r < rows; ++r, dy += D, x += D, dx += D) {
    const float scale = rstd[r];
    float dot = 0;
    HADAL_SIMD_SUM(dot)
    for (int64_t d = 0; d < D; ++d) dot += dy[d] * gain[d] * x[d];
    const float pull = dot * scale * scale * scale / (float)D;
    HADAL_SIMD
    for (int64_t d = 0; d < D; ++d) {
      dgain[d] += dy[d] * x[d] * scale;
      dx[d] = dy[d] * gain[d] * scale - x[d] * pull;
    }
    if (!other) continue;
    HADAL_SIMD
    for (int64_t d = 0; d < D; ++d) dx[d] += other[r * D + d];
  }
}

void swiglu(const float* __restrict gate, const float* __restrict up, float* __restrict y, int64_t n) {
  HADAL_SIMD
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

void swiglu_backward(const float* __restrict dy, const float* __restrict gate, const float* __restrict up,
                     float* __restrict dgate, float* __restrict dup, int64_t n) {
  HADAL_SIMD
  for (int64_t i = 0; i < n; ++i) {
    const float s = sigmoid(gate[i]);
    const float silu = gate[i] * s;
    dgate[i] = dy[i] * up[i] * (s + silu * (1.0f - s));
    dup[i] = dy[i] * silu;
  }
}

void rope(const float* x, int64_t x_row_stride, int64_t x_stride, float* y, int64_t y_row_stride,
          int64_t y_stride, const float* cos, const float* sin, float sign, int64_t rows, int64_t heads,
          int64_t R) {
  for (int64_t r = 0; r < rows; ++r, cos += R / 2, sin += R / 2)
    for (int64_t h = 0; h < heads; ++h) {
      const float* from = x + r * x_row_stride + h * x_stride;
      float* to = y + r * y_row_stride + h * y_stride;
      for (int64_t i = 0; i < R / 2; ++i) {
        const float a = from[2 * i], b = from[2 * i + 1], s = sign * sin[i];
        to[2 * i] = a * cos[i] - b * s;
        to[2 * i + 1] = a * s + b * cos[i];
      }
    }
}

void causal_softmax(float* score, float* lse, const int64_t* first, float scale, int64_t rows, int64_t L,
                    int64_t visible) {
  for (int64_t r = 0; r < rows; ++r, score += L) {
    const int64_t begin = first ? first[r] : 0, end = visible + r < L ? visible + r : L;
    float top = score[begin];
    HADAL_SIMD_MAX(top)
    for (int64_t l = begin; l < end; ++l) top = score[l] > top ? score[l] : top;
    float sum = 0;
    HADAL_SIMD_SUM(sum)
    for (int64_t l = begin; l < end; ++l) {
      score[l] = fast_exp((score[l] - top) * scale);
      sum += score[l];
    }
    const float inverse = 1.0f / sum;
    HADAL_SIMD
    for (int64_t l = begin; l < end; ++l) score[l] *= inverse;
    for (int64_t l = 0; l < begin; ++l) score[l] = 0;
    for (int64_t l = end; l < L; ++l) score[l] = 0;
    lse[r] = top * scale + __builtin_logf(sum);
  }
}

void causal_exp(float* score, const float* lse, const int64_t* first, float scale, int64_t rows, int64_t L,
                int64_t visible) {
  for (int64_t r = 0; r < rows; ++r, score += L) {
    const int64_t begin = first ? first[r] : 0, end = visible + r < L ? visible + r : L;
    const float shift = lse[r];
    HADAL_SIMD
    for (int64_t l = begin; l < end; ++l) score[l] = fast_exp(score[l] * scale - shift);
    for (int64_t l = 0; l < begin; ++l) score[l] = 0;
    for (int64_t l = end; l < L; ++l) score[l] = 0;
  }
}

void softmax_backward(const float* prob, float* dprob, const float* delta, float scale, int64_t rows,
                      int64_t L) {
  for (int64_t r = 0; r < rows; ++r, prob += L, dprob += L) {
    const float shift = delta[r];
    HADAL_SIMD
    for (int64_t l = 0; l < L; ++l) dprob[l] = prob[l] * (dprob[l] - shift) * scale;
  }
}

void row_dot(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out, int64_t rows,
             int64_t D) {
  for (int64_t r = 0; r < rows; ++r, a += a_stride, b += b_stride) {
    float sum = 0;
    HADAL_SIMD_SUM(sum)
    for (int64_t d = 0; d < D; ++d) sum += a[d] * b[d];
    out[r] = sum;
  }
}

void cross_entropy(float* logit, const int64_t* target, float* loss, float weight, int64_t rows, int64_t W) {
  for (int64_t r = 0; r < rows; ++r, logit += W) {
    if (target[r] < 0) {
      for (int64_t w = 0; w < W; ++w) logit[w] = 0;
      loss[r] = 0;
      continue;
    }
    float top = logit[0];
    HADAL_SIMD_MAX(top)
    for (int64_t w = 0; w < W; ++w) top = logit[w] > top ? logit[w] : top;
    const float wanted = logit[target[r]];
    float sum = 0;
    HADAL_SIMD_SUM(sum)
    for (int64_t w = 0; w < W; ++w) {
      logit[w] = fast_exp(logit[w] - top);
      sum += logit[w];
    }
    loss[r] = top + __builtin_logf(sum) - wanted;
    const float factor = weight / sum;
    HADAL_SIMD
    for (int64_t w = 0; w < W; ++w) logit[w] *= factor;
    logit[target[r]] -= weight;
  }
}

void log_softmax(const float* logit, const int64_t* target, float scale, float* logp, float* entropy,
                 float* lse, int64_t rows, int64_t W) {
  for (int64_t r = 0; r < rows; ++r, logit += W) {
    float top = logit[0];
    HADAL_SIMD_MAX(top)
    for (int64_t w = 0; w < W; ++w) top = logit[w] > top ? logit[w] : top;
    float sum = 0, dot = 0;
    _Pragma("omp simd reduction(+ : sum, dot)") for (int64_t w = 0; w < W; ++w) {
      const float below = scale * (logit[w] - top), e = fast_exp(below);
      sum += e, dot += e * below;
    }
    const float log_sum = __builtin_logf(sum);
    logp[r] = scale * (logit[target[r]] - top) - log_sum;
    entropy[r] = log_sum - dot / sum;
    lse[r] = scale * top + log_sum;
  }
}

void log_softmax_backward(float* logit, const int64_t* target, float scale,
                          const TrainKernels::LogSoftmaxGradients& d, int64_t rows, int64_t W) {
  for (int64_t r = 0; r < rows; ++r, logit += W) {
    const float lse = d.lse[r], entropy = d.entropy[r], dlogp = scale * d.dlogp[r],
                dentropy = scale * d.dentropy[r];
    HADAL_SIMD
    for (int64_t w = 0; w < W; ++w) {
      const float log_p = scale * logit[w] - lse, p = fast_exp(log_p);
      logit[w] = -p * (dlogp + dentropy * (log_p + entropy));
    }
    logit[target[r]] += dlogp;
  }
}

void combine(const float* x, const int64_t* place, const float* weight, float* y, int64_t rows, int64_t A,
             int64_t D) {
  for (int64_t t = 0; t < rows; ++t, y += D) {
    for (int64_t a = 0; a < A; ++a) {
      const float* from = x + place[t * A + a] * D;
      const float w = weight[t * A + a];
      if (a == 0) {
        HADAL_SIMD
        for (int64_t d = 0; d < D; ++d) y[d] = w * from[d];
      } else {
        HADAL_SIMD
        for (int64_t d = 0; d < D; ++d) y[d] += w * from[d];
      }
    }
  }
}

void combine_backward(const float* dy, const float* x, const int64_t* place, const float* weight, float* dx,
                      float* dweight, int64_t rows, int64_t A, int64_t D) {
  for (int64_t t = 0; t < rows; ++t, dy += D)
    for (int64_t a = 0; a < A; ++a) {
      const int64_t at = place[t * A + a] * D;
      const float w = weight[t * A + a];
      float dot = 0;
      HADAL_SIMD_SUM(dot)
      for (int64_t d = 0; d < D; ++d) {
        dot += dy[d] * x[at + d];
        dx[at + d] = w * dy[d];
      }
      dweight[t * A + a] = dot;
    }
}

void sum_rows(const float* x, const int64_t* place, float* y, int64_t rows, int64_t A, int64_t D) {
  for (int64_t t = 0; t < rows; ++t, y += D) {
    for (int64_t a = 0; a < A; ++a) {
      const float* from = x + place[t * A + a] * D;
      if (a == 0) {
        HADAL_SIMD
        for (int64_t d = 0; d < D; ++d) y[d] = from[d];
      } else {
        HADAL_SIMD
        for (int64_t d = 0; d < D; ++d) y[d] += from[d];
      }
    }
  }
}

double sum_squares(const float* x, int64_t n) {
  double sum = 0;
  HADAL_SIMD_SUM(sum)
  for (int64_t i = 0; i < n; ++i) sum += (double)x[i] * (double)x[i];
  return sum;
}

void adamw(float* __restrict p, float* __restrict m, float* __restrict v, const float* __restrict g,
           float g_scale, float beta1, float beta2, float rate, float correct1, float correct2, float eps,
           float decay, int64_t n) {
  const float shrink = 1.0f - rate * decay, step = rate / correct1, inverse2 = 1.0f / correct2;
  HADAL_SIMD
  for (int64_t i = 0; i < n; ++i) {
    const float grad = g[i] * g_scale;
    m[i] = beta1 * m[i] + (1.0f - beta1) * grad;
    v[i] = beta2 * v[i] + (1.0f - beta2) * grad * grad;
    p[i] = p[i] * shrink - step * m[i] / (__builtin_sqrtf(v[i] * inverse2) + eps);
  }
}

}  // namespace

extern const TrainKernels kTrain;
const TrainKernels kTrain = {HADAL_STR(HADAL_ISA),
                             rms_norm,
                             add_rms_norm,
                             rms_norm_backward,
                             swiglu,
                             swiglu_backward,
                             rope,
                             causal_softmax,
                             causal_exp,
                             softmax_backward,
                             row_dot,
                             cross_entropy,
                             log_softmax,
                             log_softmax_backward,
                             combine,
                             combine_backward,
                             sum_rows,
                             sum_squares,
                             adamw};

}  // namespace hadal::kernels::HADAL_ISA
