// Matrix products on half precision (IEEE fp16) for training: inputs are rounded to 11 bits, products summed
// in fp16 over kHalfChunk terms and from there on in fp32. That is V3's recipe for FP8 (report 3.3.2: short
// sums in the tensor core, promotion to fp32) with a wider type; on a machine with AVX512-FP16 and without
// AMX it is twice as fast as fp32 and more accurate than bf16 inputs. Scales keep values in fp16's range: a
// rounded matrix holds at most kHalfLimit, so a chunk of products cannot overflow. Torch-free.
#pragma once
#include <cstdint>

namespace hadal {

constexpr int64_t kHalfChunk = 128;
constexpr float kHalfLimit = 16;   // kHalfChunk * kHalfLimit^2 < 65504
constexpr int64_t kHalfUnit = 32;  // columns of a packed unit

// c [M, N] fp32 = alpha a b, or added to. a_ik = a[i * a_row + k * a_k], b_kj = b[j / 32 * b_unit + k * b_k +
// j % 32]: a row-major [K, N] has b_unit 32 and b_k N, a packed one b_unit 32 K and b_k 32. a_row or a_k
// is 1.
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
  // x [N, K] to units of 32 columns of x^T: y[n / 32][k][n % 32] = x[n][k] * scale, columns past N are 0.
  void (*pack_transposed)(const float* x, float scale, uint16_t* y, int64_t N, int64_t K);

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

// The table of this machine: "avx512fp16", or "scalar", the slow oracle that runs everywhere.
const HalfKernels& half_kernels();
const HalfKernels& scalar_half_kernels();
// Whether half_kernels() is faster than fp32 here.
bool half_is_fast();

// A power of two that brings values up to max_abs below kHalfLimit; 1 for 0 and for what is not finite.
float half_scale(float max_abs);

}  // namespace hadal
