#include <cmath>
#include <cstring>

#include "hadal/base/aligned_buffer.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/kernels/infer.h"

namespace hadal {
namespace {

constexpr int64_t kN = 5, kK = 200, kM = 9;  // tails everywhere; both the streaming and the panel form

// Codes of any format, none of them a NaN or far from the others.
struct Matrix {
  unsigned char code[kN * kK * 4];
  unsigned char scale[64 * 4];
  WeightView view;

  explicit Matrix(WeightFormat format) {
    for (size_t i = 0; i < sizeof code; ++i) code[i] = static_cast<unsigned char>(i * 37 % 113);
    if (format == WeightFormat::kF32) fill<float>(code, kN * kK);
    if (format == WeightFormat::kBF16)
      for (int64_t i = 0; i < kN * kK; ++i) code[2 * i + 1] = 0x3F;  // 0.5 to 2
    if (format == WeightFormat::kFp8)
      fill<float>(scale, 64);
    else
      for (size_t i = 0; i < sizeof scale; i += 2) scale[i] = 0, scale[i + 1] = 0x3C;  // BF16 of about 0.008
    view = {format, kN, kK, code, scale};
  }

  template <typename T>
  static void fill(unsigned char* to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const T value = static_cast<T>(i * 29 % 17 - 8) / 16;
      std::memcpy(to + i * static_cast<int64_t>(sizeof(T)), &value, sizeof value);
    }
  }
};

void multiply(const InferKernels& kernels, const WeightView& w, int64_t M, float* y) {
  float x[kM * kK];
  for (int64_t i = 0; i < kM * kK; ++i) x[i] = static_cast<float>(i * 31 % 23 - 11) / 8;
  AlignedBuffer<char> rows, scratch;
  kernels.prepare_rows(w.format, x, kK, M, kK, rows.ensure(M * kernels.prepared_bytes(w.format, kK)));
  kernels.dot_rows(w, rows.data(), nullptr, M, y, kN, 0, kN, scratch.ensure(kernels.dot_scratch_bytes(kK)));
}

}  // namespace

void self_test(const InferKernels& kernels) {
  const InferKernels& scalar = infer_kernels_at(num_infer_kernels() - 1);
  const struct {
    WeightFormat format;
    const char* name;
  } formats[] = {{WeightFormat::kF32, "F32"},
                 {WeightFormat::kBF16, "BF16"},
                 {WeightFormat::kFp8, "FP8"},
                 {WeightFormat::kInt8, "INT8"},
                 {WeightFormat::kInt4, "INT4"}};
  for (const auto& [format, format_name] : formats) {
    const Matrix matrix(format);
    for (const int64_t M : {int64_t{1}, kM}) {
      float got[kM * kN], want[kM * kN], most = 0;
      multiply(kernels, matrix.view, M, got);
      multiply(scalar, matrix.view, M, want);
      for (int64_t i = 0; i < M * kN; ++i) most = std::fmax(most, std::fabs(want[i]));
      for (int64_t i = 0; i < M * kN; ++i)
        if (!(std::fabs(got[i] - want[i]) <= 1e-4f * most))
          throw Error(ErrorCode::kInternal, cat("[kernels.self_test] ", kernels.isa, " multiplies ",
                                                format_name, " wrong on this processor: ", got[i], " for ",
                                                want[i], ". Set HADAL_ISA=scalar, and please report this."));
    }
  }
}

}  // namespace hadal
