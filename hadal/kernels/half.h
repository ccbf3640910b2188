// Matrix products on 16-bit floats for training: inputs are rounded, sums and all else are fp32. Scales keep
// values in range. Torch-free.
//
// kFp16: rounded to 11 bits, products summed in fp16 over kHalfChunk terms and from there on in fp32. That is
// V3's recipe for FP8 (report 3.3.2: short sums in the tensor core, promotion to fp32) with a wider type; on
// a machine with AVX512-FP16 and without AMX it is twice as fast as fp32 and more accurate than bf16. A
// rounded matrix holds at most kHalfLimit, so a chunk of products cannot overflow. kBf16: rounded to 8 bits,
// products summed in fp32; AVX512-BF16 multiplies pairs along K, on Zen 5 at twice the rate of fp32.
#pragma once
#include <cstdint>

namespace hadal {

enum class HalfFormat { kFp16, kBf16 };

constexpr int64_t kHalfChunk = 128;
constexpr float kHalfLimit = 16;   // kHalfChunk * kHalfLimit^2 < 65504
constexpr int64_t kHalfUnit = 32;  // columns of a packed unit

// c [M, N] fp32 = alpha a b, or added to. a_ik = a[i * a_row + k * a_k], a_row or a_k is 1. b is row-major
// [K, N] with b_unit 32 and b_k N: b_kj = b[j / 32 * b_unit + k * b_k + j % 32]; or packed by
// pack_transposed, with b_unit 32 K and b_k 32.
struct HalfProduct {
  int64_t M, N, K;
  const uint16_t* a;
  int64_t a_row, a_k;
  const uint16_t* b;
  int64_t b_unit, b_k;
  float* c;
  int64_t c_row;
  float alpha;
  bool add;
};

struct HalfKernels {
  const char* isa;
  void (*multiply)(const HalfProduct& product);
  float (*max_abs)(const float* x, int64_t n);
  // y = x * scale, rounded
  void (*round)(const float* x, float scale, uint16_t* y, int64_t n);
  // x [N, K] times scale to units of 32 columns of x^T, columns past N are 0. kFp16: y[n / 32][k][n % 32].
  // kBf16: rows of K in pairs, y[n / 32][k / 2][n % 32][k % 2], an odd last row alone.
  void (*pack_transposed)(const float* x, float scale, uint16_t* y, int64_t N, int64_t K);

  // The same of rows that are rounded already, x_row apart.
  void (*pack_rows)(const uint16_t* x, int64_t x_row, uint16_t* y, int64_t N, int64_t K);

  // hidden = silu(gate) * up; gate_up [rows, 2M], gate first. Returns max |hidden|.
  float (*swiglu)(const float* gate_up, float* hidden, int64_t rows, int64_t M);
  // dgate_up and hidden, both times weight[r] (null: 1), and dweight[r] = dhidden_r . hidden_r (null: not
  // wanted). dhidden [rows, M] is not weighted yet. max_dgate_up and max_hidden: of the absolute values.
  struct SwigluBackward {
    const float *gate_up, *dhidden, *weight;
    float *dgate_up, *hidden, *dweight;
    float max_dgate_up, max_hidden;
  };
  void (*swiglu_backward)(SwigluBackward& x, int64_t rows, int64_t M);

  // loss[r] = lse(logit_r) - logit_r[target_r]; dlogit = round((softmax(logit_r) - onehot) * scale). Rows
  // with target < 0 give 0 and zeros. logit [rows, W] is overwritten; rows of dlogit stand dlogit_row apart.
  void (*cross_entropy)(float* logit, const int64_t* target, float* loss, uint16_t* dlogit,
                        int64_t dlogit_row, float scale, int64_t rows, int64_t W);

  // Row r of scores [rows, L] sees columns [first[r], visible + r), first null: from 0. What it does not see
  // becomes 0.
  struct Attention {
    const float* score;  // not yet times `scale`
    int64_t L;
    const int64_t* first;
    int64_t visible;
    float scale;
  };
  // prob [rows, L] = round(kHalfLimit exp(scale score - top)), top the row's largest; inverse[r] = 1 / sum of
  // exp(scale score - top), lse[r] = log sum exp(scale score).
  void (*attention_exp)(const Attention& x, uint16_t* prob, float* inverse, float* lse, int64_t rows);
  // prob = round(kHalfLimit p), p = exp(scale score - lse); dscore = round(p (dprob - delta) dscore_scale);
  // dprob [rows, L]; rows of prob and dscore stand `stride` apart.
  struct AttentionBackward {
    const float *dprob, *lse, *delta;
    float dscore_scale;
    uint16_t *prob, *dscore;
    int64_t stride;
  };
  void (*attention_backward)(const Attention& x, const AttentionBackward& d, int64_t rows);
};

// The table of this machine: "avx512fp16" or "avx512bf16", else "scalar", the slow oracle that runs
// everywhere.
const HalfKernels& half_kernels(HalfFormat format);
const HalfKernels& scalar_half_kernels(HalfFormat format);
// Whether half_kernels() is faster than fp32 here.
bool half_is_fast(HalfFormat format);

// A power of two that brings values up to max_abs below kHalfLimit; 1 for 0 and for what is not finite.
float half_scale(float max_abs);

}  // namespace hadal
