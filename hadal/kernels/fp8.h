// FP8 with a scale for each group of values: the blocks of official checkpoints and the tiles that V3 trains
// with, and products of such matrices. A value is code * scale; the name weight_scale_inv misleads.
// Torch-free. V3 report 3.3.2, 3.3.3; architecture spec, "FP8 maths"; training spec 8.
#pragma once
#include <cstdint>

namespace hadal {

constexpr int64_t kFp8Block = 128;  // side of a block, length of a tile, terms between promotions
constexpr float kE4m3Max = 448.0f;
constexpr int64_t kFp8Unit = 32;  // columns of a packed unit

inline int64_t fp8_blocks(int64_t size) {
  return (size + kFp8Block - 1) / kFp8Block;
}

enum class Fp8Format { kE4M3, kE5M2 };
float fp8_max(Fp8Format format);

// How the scale of a group follows from its largest magnitude amax, which becomes the largest code or less.
// An amax that is not finite gives a scale that is not, and then no value of the group is finite.
struct Fp8Scaling {
  Fp8Format format = Fp8Format::kE4M3;
  float floor = 0;            // amax is taken as this at least: activations, 1e-4 (DeepGEMM). 0: the scale of
                              // zeros is 1
  bool power_of_two = false;  // rounded up to one
};
float fp8_scale(float amax, const Fp8Scaling& scaling);

// A matrix in groups of group_rows x group_cols, partial at the far edges. Tiles of tokens are 1 x 128, those
// of a gradient of weights 128 x 1, weights 128 x 128; a whole matrix is one group of its size.
struct Fp8Grid {
  int64_t rows, cols, group_rows, group_cols;
  int64_t scale_rows() const { return (rows + group_rows - 1) / group_rows; }
  int64_t scale_cols() const { return (cols + group_cols - 1) / group_cols; }
  int64_t scales() const { return scale_rows() * scale_cols(); }
  int64_t scale_at(int64_t row, int64_t col) const {
    return row / group_rows * scale_cols() + col / group_cols;
  }
};

// How products of codes are added up.
enum class Fp8Sums {
  kFp32,    // 128 at a time in fp32, times the scales, added in fp32
  kHopper,  // the same with sums of 128 as Hopper's tensor cores make them: of 32 products each cut to
            // 13 bits below the largest, into a register of 13 fraction bits
  kHopperUnpromoted  // the whole sum, scales in it, in that register
};

// c [M, N] = sum over k of a_mk b_kn, or added to. Values are codes without their scales, as floats:
// a_mk = a[m * a_row + k * a_k]. b is row-major with b_unit 32, or packed by transpose_units with b_unit
// 32 * K and b_k 32: b_kn = b[n / 32 * b_unit + k * b_k + n % 32]; its rows are whole units. Scales of 128
// terms: a_scale [M, blocks of K], b_scale [blocks of K, b_columns], b_columns >= N whole units.
struct Fp8Product {
  int64_t M, N, K;
  const float* a;
  int64_t a_row, a_k;
  const float* a_scale;
  int64_t a_scale_row;
  const float* b;
  int64_t b_unit, b_k;
  const float* b_scale;
  int64_t b_columns;
  float* c;
  int64_t c_row;
  Fp8Sums sums = Fp8Sums::kFp32;
  bool add = false;
  bool round = false;  // the result to bf16
};

struct Fp8Kernels {
  const char* isa;
  // The bits of max |x|, above infinity's where one is NaN.
  uint32_t (*largest)(const float* x, int64_t n);
  // The same by column, over what `largest` holds; rows x_row apart.
  void (*largest_of_columns)(const float* x, int64_t x_row, int64_t rows, int64_t cols, uint32_t* largest);
  // code = x / scale to nearest even, at most the format's largest; NaN stays NaN.
  void (*encode)(Fp8Format format, const float* x, float scale, uint8_t* code, int64_t n);
  void (*encode_columns)(Fp8Format format, const float* x, const float* scale, uint8_t* code, int64_t n);
  // x = code * scale
  void (*decode)(Fp8Format format, const uint8_t* code, float scale, float* x, int64_t n);
  void (*decode_columns)(Fp8Format format, const uint8_t* code, const float* scale, float* x, int64_t n);
  // x / scale to nearest even in E5M6, as the fp16 numbers that those are.
  void (*encode_e5m6)(const float* x, float scale, uint16_t* half, int64_t n);
  void (*decode_half)(const uint16_t* half, float scale, float* x, int64_t n);
  // x [N, K] with rows x_row apart to units of 32 columns of x^T; columns past N are 0.
  void (*transpose_units)(const float* x, int64_t x_row, float* y, int64_t N, int64_t K);
  void (*multiply)(const Fp8Product& product);
};

const Fp8Kernels& fp8_kernels();
// All that run here, for tests; the last is scalar.
int num_fp8_kernels();
const Fp8Kernels& fp8_kernels_at(int index);

// code [rows, cols], scale [scale_rows, scale_cols]. code may be null, to get the scales alone.
void fp8_quantise(const Fp8Kernels& k, const Fp8Scaling& scaling, const Fp8Grid& grid, const float* x,
                  uint8_t* code, float* scale);
// x = code * scale
void fp8_dequantise(const Fp8Kernels& k, Fp8Format format, const Fp8Grid& grid, const uint8_t* code,
                    const float* scale, float* x);

// 1 x 128 tiles in E5M6, whose largest value is 65024, with scales that are powers of two.
void e5m6_quantise(const Fp8Kernels& k, int64_t rows, int64_t cols, const float* x, uint16_t* half,
                   float* scale);
void e5m6_dequantise(const Fp8Kernels& k, int64_t rows, int64_t cols, const uint16_t* half,
                     const float* scale, float* x);

// The blocks of an official checkpoint: 128 x 128, e4m3. A stripe that starts at a multiple of 128 rows, or
// for dequantise_blocks at first_row of the matrix whose scales are given.
Fp8Grid block_grid(int64_t rows, int64_t cols);
void quantise_blocks(const float* x, int64_t rows, int64_t cols, bool power_of_two, uint8_t* code,
                     float* scale);
void dequantise_blocks(const uint8_t* code, const float* scale, int64_t rows, int64_t cols, float* out,
                       int64_t first_row = 0);

// Activations as the official inference quantises them: 1 x 128, amax at least 1e-4.
constexpr float kActivationFloor = 1e-4f;
void quantise_activations(const float* x, int64_t rows, int64_t cols, bool power_of_two, uint8_t* code,
                          float* scale);

}  // namespace hadal
