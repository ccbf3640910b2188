// Kernels of training that LibTorch has only as many passes over memory: one table of functions per
// instruction set, chosen once. All arrays are fp32, row-major and contiguous unless a stride is named.
// Torch-free.
#pragma once
#include <cstdint>

namespace hadal {

struct TrainKernels {
  const char* isa;

  // y = x / rms(x) * gain, rstd[r] = 1 / sqrt(mean(x_r^2) + eps). x, y [rows, D], gain [D], rstd [rows]
  void (*rms_norm)(const float* x, const float* gain, float* y, float* rstd, int64_t rows, int64_t D,
                   float eps);
  // The same of x + delta, which becomes `sum`.
  void (*add_rms_norm)(const float* x, const float* delta, const float* gain, float* sum, float* y,
                       float* rstd, int64_t rows, int64_t D, float eps);
  // dx, and dgain added to. dy, x, dx [rows, D], dgain [D]. dx also holds `other` [rows, D], unless null.
  void (*rms_norm_backward)(const float* dy, const float* x, const float* gain, const float* rstd,
                            const float* other, float* dx, float* dgain, int64_t rows, int64_t D);

  // y = silu(gate) * up, element by element
  void (*swiglu)(const float* gate, const float* up, float* y, int64_t n);
  void (*swiglu_backward)(const float* dy, const float* gate, const float* up, float* dgate, float* dup,
                          int64_t n);

  // Turns pairs (2i, 2i+1) of x by the angles of the row; sign -1 turns back. y may be x. `heads` vectors of
  // R values stand x_stride apart in a row, rows x_row_stride apart; likewise y. cos, sin [rows, R/2]
  void (*rope)(const float* x, int64_t x_row_stride, int64_t x_stride, float* y, int64_t y_row_stride,
               int64_t y_stride, const float* cos, const float* sin, float sign, int64_t rows, int64_t heads,
               int64_t R);

  // In place: row r of score [rows, L] becomes softmax(scale * score) over its columns [first[r], visible +
  // r) and 0 elsewhere; lse[r] = log sum exp(scale * score). first may be null: from 0.
  void (*causal_softmax)(float* score, float* lse, const int64_t* first, float scale, int64_t rows, int64_t L,
                         int64_t visible);
  // The same probabilities from the scores and their lse.
  void (*causal_exp)(float* score, const float* lse, const int64_t* first, float scale, int64_t rows,
                     int64_t L, int64_t visible);
  // In place on dprob [rows, L]: dscore = prob * (dprob - delta_r) * scale.
  void (*softmax_backward)(const float* prob, float* dprob, const float* delta, float scale, int64_t rows,
                           int64_t L);
  // delta_r = sum_d a_rd b_rd
  void (*row_dot)(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out,
                  int64_t rows, int64_t D);

  // loss[r] = lse(logit_r) - logit_r[target_r], and in place logit_r = (softmax(logit_r) - onehot) * weight.
  // Rows with target < 0 give 0 and zeros.
  void (*cross_entropy)(float* logit, const int64_t* target, float* loss, float weight, int64_t rows,
                        int64_t W);

  // Of softmax(scale * logit_r), p: logp[r] = log p[target_r], entropy[r] = -sum p log p, lse[r] = log sum
  // exp(scale * logit_r). logit [rows, W]
  void (*log_softmax)(const float* logit, const int64_t* target, float scale, float* logp, float* entropy,
                      float* lse, int64_t rows, int64_t W);
  // In place: logit_r becomes scale * (dlogp[r] (onehot - p) - dentropy[r] p (log p + entropy[r])).
  struct LogSoftmaxGradients {
    const float *lse, *entropy, *dlogp, *dentropy;
  };
  void (*log_softmax_backward)(float* logit, const int64_t* target, float scale, const LogSoftmaxGradients& d,
                               int64_t rows, int64_t W);

  // y_t = sum_a weight[t, a] * x[place[t, a]], in ascending a. y [rows, D], x [.., D]
  void (*combine)(const float* x, const int64_t* place, const float* weight, float* y, int64_t rows,
                  int64_t A, int64_t D);
  // dx[place[t, a]] = weight[t, a] * dy_t and dweight[t, a] = dy_t . x[place[t, a]]
  void (*combine_backward)(const float* dy, const float* x, const int64_t* place, const float* weight,
                           float* dx, float* dweight, int64_t rows, int64_t A, int64_t D);
  // y_t = sum_a x[place[t, a]]: the backward of copying rows.
  void (*sum_rows)(const float* x, const int64_t* place, float* y, int64_t rows, int64_t A, int64_t D);

  // Sum of x_i^2, in double.
  double (*sum_squares)(const float* x, int64_t n);

  // AdamW (training spec 3): g is scaled, moments and weight are updated.
  void (*adamw)(float* p, float* m, float* v, const float* g, float g_scale, float beta1, float beta2,
                float rate, float correct1, float correct2, float eps, float decay, int64_t n);
};

// The best table this machine can run; HADAL_ISA=scalar|avx2|avx512 overrides (throws unsupported for one
// that does not run here).
const TrainKernels& train_kernels();

// Every table that runs here, best first; "scalar" is last and the oracle of the others.
int num_train_kernels();
const TrainKernels& train_kernels_at(int index);

}  // namespace hadal
