#include "hadal/kernels/fp8.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "hadal/base/number_formats.h"
#include "hadal/kernels/kernel_tables.h"

namespace hadal {
namespace kernels {
namespace scalar {
extern const Fp8Kernels kFp8;
}
#ifdef __x86_64__
namespace avx2 {
extern const Fp8Kernels kFp8;
}
namespace avx512 {
extern const Fp8Kernels kFp8;
}
#endif
}  // namespace kernels

namespace {

const KernelTables<Fp8Kernels>& tables() {
  static const KernelTables<Fp8Kernels> found{
#ifdef __x86_64__
      &kernels::avx512::kFp8, &kernels::avx2::kFp8,
#endif
      &kernels::scalar::kFp8};
  return found;
}

// 2^ceil(log2 scale) of a positive normal float, by its bits; infinity and NaN stay.
float round_up_to_power_of_two(float scale) {
  const uint32_t bits = std::bit_cast<uint32_t>(scale);
  return bits >= 0x7F800000 ? scale : std::bit_cast<float>((bits + 0x7FFFFF) & 0x7F800000);
}

float scale_of(float amax, float floor, float max, bool power_of_two) {
  if (amax == 0 && floor == 0) return 1;
  // Below 2^-126 the scale would be subnormal, and amax / scale could overflow. A NaN goes through.
  const float wide = amax < floor ? floor : amax, quotient = wide / max;
  const float scale = quotient < 0x1p-126f ? 0x1p-126f : quotient;
  return power_of_two ? round_up_to_power_of_two(scale) : scale;
}

}  // namespace

const Fp8Kernels& fp8_kernels() {
  static const Fp8Kernels& chosen = tables().chosen();
  return chosen;
}
int num_fp8_kernels() {
  return tables().size();
}
const Fp8Kernels& fp8_kernels_at(int index) {
  return tables().at(index);
}

float fp8_max(Fp8Format format) {
  return format == Fp8Format::kE4M3 ? kE4m3Max : kE5m2Max;
}

float fp8_scale(float amax, const Fp8Scaling& scaling) {
  return scale_of(amax, scaling.floor, fp8_max(scaling.format), scaling.power_of_two);
}

void fp8_quantise(const Fp8Kernels& k, const Fp8Scaling& scaling, const Fp8Grid& g, const float* x,
                  uint8_t* code, float* scale) {
  const bool columns = g.group_cols == 1;
  std::vector<uint32_t> largest(static_cast<size_t>(g.scale_cols()));
  for (int64_t first = 0; first < g.rows; first += g.group_rows, scale += g.scale_cols()) {
    const int64_t last = std::min(first + g.group_rows, g.rows);
    std::fill(largest.begin(), largest.end(), 0);
    const auto segments = [&](auto&& body) {  // of a row, one group each
      for (int64_t r = first; r < last; ++r)
        for (int64_t s = 0, c = 0; c < g.cols; ++s, c += g.group_cols)
          body(r * g.cols + c, std::min(g.group_cols, g.cols - c), s);
    };
    if (columns) {
      k.largest_of_columns(x + first * g.cols, g.cols, last - first, g.cols, largest.data());
    } else {
      segments([&](int64_t at, int64_t n, int64_t s) {
        uint32_t& top = largest[static_cast<size_t>(s)];
        top = std::max(top, k.largest(x + at, n));
      });
    }
    for (size_t s = 0; s < largest.size(); ++s)
      scale[s] = fp8_scale(std::bit_cast<float>(largest[s]), scaling);
    if (!code) continue;
    if (columns) {
      for (int64_t r = first; r < last; ++r)
        k.encode_columns(scaling.format, x + r * g.cols, scale, code + r * g.cols, g.cols);
    } else {
      segments([&](int64_t at, int64_t n, int64_t s) {
        k.encode(scaling.format, x + at, scale[s], code + at, n);
      });
    }
  }
}

void fp8_dequantise(const Fp8Kernels& k, Fp8Format format, const Fp8Grid& g, const uint8_t* code,
                    const float* scale, float* x) {
  for (int64_t r = 0; r < g.rows; ++r, code += g.cols, x += g.cols) {
    const float* row_scale = scale + g.scale_at(r, 0);
    if (g.group_cols == 1) {
      k.decode_columns(format, code, row_scale, x, g.cols);
      continue;
    }
    for (int64_t c = 0; c < g.cols; c += g.group_cols)
      k.decode(format, code + c, *row_scale++, x + c, std::min(g.group_cols, g.cols - c));
  }
}

void e5m6_quantise(const Fp8Kernels& k, int64_t rows, int64_t cols, const float* x, uint16_t* half,
                   float* scale) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; c += kFp8Block, ++scale) {
      const int64_t n = std::min(kFp8Block, cols - c), at = r * cols + c;
      *scale = scale_of(std::bit_cast<float>(k.largest(x + at, n)), 0, kE5m6Max, /*power_of_two=*/true);
      k.encode_e5m6(x + at, *scale, half + at, n);
    }
}

void e5m6_dequantise(const Fp8Kernels& k, int64_t rows, int64_t cols, const uint16_t* half,
                     const float* scale, float* x) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; c += kFp8Block, ++scale)
      k.decode_half(half + r * cols + c, *scale, x + r * cols + c, std::min(kFp8Block, cols - c));
}

Fp8Grid block_grid(int64_t rows, int64_t cols) {
  return {rows, cols, kFp8Block, kFp8Block};
}

void quantise_blocks(const float* x, int64_t rows, int64_t cols, bool power_of_two, uint8_t* code,
                     float* scale) {
  fp8_quantise(fp8_kernels(), {.power_of_two = power_of_two}, block_grid(rows, cols), x, code, scale);
}

void dequantise_blocks(const uint8_t* code, const float* scale, int64_t rows, int64_t cols, float* out,
                       int64_t first_row) {
  const Fp8Kernels& k = fp8_kernels();
  for (int64_t r = 0; r < rows; ++r) {
    const float* row_scale = scale + (first_row + r) / kFp8Block * fp8_blocks(cols);
    for (int64_t c = 0; c < cols; c += kFp8Block)
      k.decode(Fp8Format::kE4M3, code + r * cols + c, *row_scale++, out + r * cols + c,
               std::min(kFp8Block, cols - c));
  }
}

void quantise_activations(const float* x, int64_t rows, int64_t cols, bool power_of_two, uint8_t* code,
                          float* scale) {
  fp8_quantise(fp8_kernels(), {.floor = kActivationFloor, .power_of_two = power_of_two},
               {rows, cols, 1, kFp8Block}, x, code, scale);
}

}  // namespace hadal
