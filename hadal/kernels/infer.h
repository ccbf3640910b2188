// Kernels of inference: matrix products against weights as they are stored, latent attention, and what lies
// between. One table of functions per instruction set, chosen once. Torch-free.
//
// The rule that makes answers independent of batch, chunk and threads: an output element is computed by the
// same operations in the same order whatever else is computed with it. Each dot product runs over k in blocks
// of fixed lanes, one accumulator of lanes an output, and one fixed tree adds the lanes up at the end; tiles
// share loads and nothing else. Threads split outputs, never sums. Instruction sets may differ from each
// other.
#pragma once
#include <cstdint>

namespace hadal {

// How a weight matrix is stored. All are row-major, N rows (outputs) of K values (inputs).
enum class WeightFormat {
  kF32,
  kBF16,
  kFp8,   // e4m3 codes and an F32 scale per 128x128 block (official checkpoints)
  kInt8,  // code + 128 as u8, rows padded to 128 with code 0; a BF16 scale per row and 128 values
  kInt4,  // code + 8 as 4 bits, rows padded to 128 with code 0; a BF16 scale per row and 64 values. Byte j of
          // a 64-byte block holds value j in its low half, value j + 64 in its high half.
};
constexpr int64_t kInt8Group = 128, kInt4Group = 64, kInt4Block = 128;

// Values of a stored row of K in the integer formats: padded to whole blocks.
constexpr int64_t padded_columns(int64_t K) {
  return (K + kInt4Block - 1) / kInt4Block * kInt4Block;
}
// BF16 scales of one row; 0 for formats that have none of their own.
constexpr int64_t row_groups(WeightFormat format, int64_t K) {
  if (format == WeightFormat::kInt8) return padded_columns(K) / kInt8Group;
  if (format == WeightFormat::kInt4) return padded_columns(K) / kInt4Group;
  return 0;
}

// Bytes of one stored row of K values.
constexpr int64_t row_bytes(WeightFormat format, int64_t K) {
  switch (format) {
    case WeightFormat::kF32:
      return 4 * K;
    case WeightFormat::kBF16:
      return 2 * K;
    case WeightFormat::kFp8:
      return K;
    case WeightFormat::kInt8:
      return padded_columns(K);
    case WeightFormat::kInt4:
      return padded_columns(K) / 2;
  }
  return 0;
}

// A matrix where it lies: maybe in a file map, so maybe misaligned.
struct WeightView {
  WeightFormat format = WeightFormat::kF32;
  int64_t N = 0, K = 0;
  const void* data = nullptr;   // N rows of row_bytes()
  const void* scale = nullptr;  // kFp8: float [.., ceil(K/128)], of the block rows; kInt8, kInt4: BF16
                                // [N, padded K / group]
  int64_t first_row = 0;        // kFp8: position of row 0 in the whole matrix, for its block row
};
// Rows [first, first + count) of a matrix.
constexpr WeightView rows_of(WeightView w, int64_t first, int64_t count) {
  w.data = static_cast<const char*>(w.data) + first * row_bytes(w.format, w.K);
  if (const int64_t groups = row_groups(w.format, w.K); groups > 0)
    w.scale = static_cast<const char*>(w.scale) + first * groups * 2;
  w.first_row += first;
  w.N = count;
  return w;
}

struct InferKernels {
  const char* isa;

  // Bytes of one input row prepared for a format; a multiple of 64. Formats with equal `layout_of` share
  // prepared rows.
  int64_t (*prepared_bytes)(WeightFormat format, int64_t K);
  int (*layout_of)(WeightFormat format);
  // Brings rows x [M, K] (x_stride floats apart) into the order, padding and number format that dot_rows
  // wants. out [M] rows of prepared_bytes, 64-byte aligned. Integer formats: int8 codes with one scale per
  // 128.
  void (*prepare_rows)(WeightFormat format, const float* x, int64_t x_stride, int64_t M, int64_t K,
                       void* out);

  // y[m, n] = sum_k x[m, k] w[n, k] for m in [0, M), n in [first, last); element (m, n) goes to
  // y[m * y_stride + n]. Row m of x is prepared row row_index[m] (row_index null: m). scratch:
  // dot_scratch_bytes(), 64-byte aligned, of this thread's own.
  void (*dot_rows)(const WeightView& w, const void* prepared, const int32_t* row_index, int64_t M, float* y,
                   int64_t y_stride, int64_t first, int64_t last, void* scratch);
  int64_t (*dot_scratch_bytes)(int64_t K);

  // out[r, k] = value of w[first + r, k] as fp32, natural order; out rows out_stride floats apart.
  void (*decode_rows)(const WeightView& w, int64_t first, int64_t last, float* out, int64_t out_stride);

  // y[m, c] = sum_l p[m, l] v[l, c] over l ascending, for c in [0, C). fp32. With `add`, onto what y holds.
  // Rows of v at multiples of 64 bytes are read at twice the speed of others when M is small.
  void (*weighted_rows)(const float* p, int64_t p_stride, const float* v, int64_t v_stride, int64_t M,
                        int64_t L, int64_t C, float* y, int64_t y_stride, bool add);

  // One split of attention for M query rows: score [M, L] in place becomes exp(scale * score - max) where
  // column < visible[m], 0 beyond; max[m] of the scaled visible scores and sum[m] of the exponentials.
  // REQUIRES visible[m] >= 1.
  void (*softmax_rows)(float* score, int64_t score_stride, const int64_t* visible, float scale, int64_t M,
                       int64_t L, float* max, float* sum);
  // What a sampler asks of n logits: the largest, or NaN if one is; and y = exp(scale * (x - largest)), whose
  // exponents end at -87, and their sum.
  float (*largest)(const float* x, int64_t n);
  float (*exponentials)(const float* x, float largest, float scale, float* y, int64_t n);
  // Joins the running (max, sum, out [M, C]) of earlier splits with the next one's, in place.
  void (*merge_splits)(float* max, float* sum, float* out, int64_t out_stride, const float* next_max,
                       const float* next_sum, const float* next_out, int64_t next_stride, int64_t M,
                       int64_t C);

  // y[m, :] += weight[m] * x[m, :] and friends stay with the caller: they are one pass over memory.
  // y = x / rms(x) * gain. Rows x_stride, y_stride floats apart.
  void (*rms_norm)(const float* x, int64_t x_stride, const float* gain, float* y, int64_t y_stride, int64_t M,
                   int64_t D, float eps);
  // y = silu(gate) * up, n values.
  void (*swiglu)(const float* gate, const float* up, float* y, int64_t n);
  // y += scale * x, n values.
  void (*add_scaled)(const float* x, float scale, float* y, int64_t n);
};

// The table for this machine; HADAL_ISA=scalar|avx2|avx512|avx512vnni|avx512bf16 overrides (throws
// unsupported for one that does not run here; isa.h). The same on every start on one machine: bits must not
// depend on a measurement.
const InferKernels& infer_kernels();

// Every table that runs here, best first; "scalar" is last and the oracle of the others.
int num_infer_kernels();
const InferKernels& infer_kernels_at(int index);

// Compares a small product in every format with the scalar table's. Throws internal, naming instruction set
// and format: better no answer than a wrong one from a processor or compiler that is not what it says.
// Microseconds.
void self_test(const InferKernels& kernels);

}  // namespace hadal
