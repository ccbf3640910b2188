// Every instruction set that runs here: matrix products against double over formats, lengths around the
// vector width and odd big ones, odd addresses, memory that ends with the matrix; and that no bit of an
// output depends on what is computed with it.
#include "hadal/kernels/infer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "hadal/error.h"
#include "hadal/kernels/infer_cases.h"
#include "hadal/kernels/isa.h"

namespace hadal {
namespace {

void for_each_table(const std::function<void(const InferKernels&)>& body) {
  for (int i = 0; i < num_infer_kernels(); ++i) body(infer_kernels_at(i));
}

std::string where(const InferKernels& kernels, WeightFormat format, int64_t M, int64_t N, int64_t K) {
  return std::string(kernels.isa) + " " + name(format) + " M " + std::to_string(M) + " N " +
         std::to_string(N) + " K " + std::to_string(K);
}

struct Expected {
  double value = 0, size = 0;  // the sum, and the sum of magnitudes that bounds its rounding
};

// Integer formats: inputs are first rounded to codes, 127 for the largest of 128.
Expected expected(const StoredMatrix& w, const PreparedInputs& in, int64_t m, int64_t n) {
  Expected sum;
  const bool codes = w.view.format == WeightFormat::kInt8 || w.view.format == WeightFormat::kInt4;
  for (int64_t first = 0; first < in.K; first += 128) {
    const int64_t last = std::min(in.K, first + 128);
    float amax = 0;
    for (int64_t k = first; k < last; ++k) amax = std::max(amax, std::abs(in.at(m, k)));
    for (int64_t k = first; k < last; ++k) {
      const double x = codes ? std::nearbyint(in.at(m, k) * (127 / amax)) * (amax / 127) : in.at(m, k);
      sum.value += x * w.at(n, k);
      sum.size += std::abs(x * w.at(n, k));
    }
  }
  return sum;
}

constexpr double kRounding = 3e-6;  // of the sum of magnitudes: K / 16 sums in a lane, K up to 7169

void expect_products(const InferKernels& kernels, WeightFormat format, int64_t M, int64_t N, int64_t K) {
  const int64_t misplaced = K % 3, gap = 3;
  const StoredMatrix w(format, N, K, /*first_row=*/K % 2 * 121, misplaced);
  const PreparedInputs in(kernels, format, M, K);
  const EdgeBytes y(((M - 1) * (N + gap) + N) * 4);
  kernels.dot_rows(w.view, in.rows.data(), nullptr, M, y.floats(), N + gap, 0, N, in.scratch.data());
  for (int64_t m = 0; m < M; ++m)
    for (int64_t n = 0; n < N; ++n) {
      const Expected want = expected(w, in, m, n);
      ASSERT_NEAR(y.floats()[m * (N + gap) + n], want.value, kRounding * want.size)
          << where(kernels, format, M, N, K) << " at " << m << ", " << n;
    }
  for (int64_t m = 0; m + 1 < M; ++m)
    for (int64_t i = 0; i < gap * 4; ++i)
      ASSERT_EQ(reinterpret_cast<uint8_t*>(y.floats() + m * (N + gap) + N)[i], 0xA5) << "wrote between rows";
  EXPECT_TRUE(y.guards_hold() && w.data.guards_hold() && in.rows.guards_hold() && in.scratch.guards_hold())
      << where(kernels, format, M, N, K);
}

TEST(InferKernels, ScalarIsLastAndTheChosenOneRunsHere) {
  EXPECT_STREQ(infer_kernels_at(num_infer_kernels() - 1).isa, "scalar");
  EXPECT_TRUE(isa_runs(infer_kernels().isa));
  EXPECT_FALSE(isa_runs("sse9"));
  EXPECT_LT(isa_rank("avx512vnni"), isa_rank("avx2"));
}

TEST(InferKernels, AnUnknownInstructionSetIsRefusedByName) {
  const char* before = std::getenv("HADAL_ISA");
  const std::string kept = before ? before : "";
  setenv("HADAL_ISA", "sse9", 1);
  try {
    chosen_isa_rank();
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("HADAL_ISA is \"sse9\""), std::string::npos) << e.what();
  }
  before ? setenv("HADAL_ISA", kept.c_str(), 1) : unsetenv("HADAL_ISA");
}

TEST(InferKernels, ProductsEqualTheFormulaOverLengthsAroundTheVectors) {
  for_each_table([](const InferKernels& kernels) {
    for (const WeightFormat format : kAllFormats)
      for (int64_t K = 1; K <= 35; ++K)
        for (const int64_t M : {1, 2, 7}) expect_products(kernels, format, M, 5, K);
  });
}

TEST(InferKernels, ProductsEqualTheFormulaOverTailsOfRowsAndOutputs) {
  for_each_table([](const InferKernels& kernels) {
    for (const WeightFormat format : kAllFormats) {
      for (int64_t M = 1; M <= 14; ++M) expect_products(kernels, format, M, 19, 70);
      for (int64_t N = 1; N <= 35; N += N < 18 ? 1 : 4)
        for (const int64_t M : {1, 3, 8}) expect_products(kernels, format, M, N, 130);
    }
  });
}

TEST(InferKernels, ProductsEqualTheFormulaOverOddBigLengths) {
  for_each_table([](const InferKernels& kernels) {
    for (const WeightFormat format : kAllFormats)
      for (const int64_t K : {127, 128, 129, 255, 257, 383, 1000, 1408, 2047, 7169})
        for (const int64_t M : {1, 9}) expect_products(kernels, format, M, 6, K);
    expect_products(kernels, WeightFormat::kF32, 250, 30, 1100);  // inputs pass over a panel in pieces
  });
}

TEST(InferKernels, NoBitOfAProductDependsOnTheOthersComputedWithIt) {
  for_each_table([](const InferKernels& kernels) {
    for (const WeightFormat format : kAllFormats)
      for (const int64_t K : {16, 40, 200, 576}) {
        constexpr int64_t M = 150, N = 67;
        const StoredMatrix w(format, N, K, 70);
        const PreparedInputs in(kernels, format, M, K);
        std::vector<float> alone(M * N), y(M * N);
        for (int32_t m = 0; m < M; ++m)
          for (int64_t n = 0; n < N; ++n)
            kernels.dot_rows(w.view, in.rows.data(), &m, 1, &alone[static_cast<size_t>(m * N)], N, n, n + 1,
                             in.scratch.data());
        for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 13, 32, 150})
          for (const int64_t split : {0, 1, 13, 16, 40}) {
            std::vector<int32_t> index;
            for (int64_t i = 0; i < rows; ++i) index.push_back(static_cast<int32_t>((i * 7 + split) % M));
            std::fill(y.begin(), y.end(), -1.0f);
            for (const auto& [first, last] : {std::pair{int64_t{0}, split}, std::pair{split, N}})
              kernels.dot_rows(w.view, in.rows.data(), index.data(), rows, y.data(), N, first, last,
                               in.scratch.data());
            for (int64_t i = 0; i < rows; ++i)
              ASSERT_EQ(0, std::memcmp(&y[static_cast<size_t>(i * N)],
                                       &alone[static_cast<size_t>(index[static_cast<size_t>(i)] * N)], N * 4))
                  << where(kernels, format, rows, N, K) << " split " << split << " row " << i;
          }
      }
  });
}

TEST(InferKernels, RowsOfAMatrixGiveTheBitsOfTheWhole) {
  for_each_table([](const InferKernels& kernels) {
    for (const WeightFormat format : kAllFormats) {
      constexpr int64_t N = 140, K = 150, kFirst = 125, kCount = 9;
      const StoredMatrix w(format, N, K);
      const PreparedInputs in(kernels, format, 2, K);
      std::vector<float> whole(2 * N), part(2 * kCount), row(K), want(K);
      kernels.dot_rows(w.view, in.rows.data(), nullptr, 2, whole.data(), N, 0, N, in.scratch.data());
      const WeightView some = rows_of(w.view, kFirst, kCount);
      kernels.dot_rows(some, in.rows.data(), nullptr, 2, part.data(), kCount, 0, kCount, in.scratch.data());
      for (int64_t i = 0; i < kCount; ++i) {
        EXPECT_EQ(part[static_cast<size_t>(i)], whole[static_cast<size_t>(kFirst + i)])
            << kernels.isa << " " << name(format);
        kernels.decode_rows(some, i, i + 1, row.data(), K);
        kernels.decode_rows(w.view, kFirst + i, kFirst + i + 1, want.data(), K);
        EXPECT_EQ(row, want) << kernels.isa << " " << name(format);
      }
    }
  });
}

TEST(InferKernels, DecodedRowsAreTheStoredValues) {
  for_each_table([](const InferKernels& kernels) {
    for (const WeightFormat format : kAllFormats)
      for (const int64_t K : {1, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 129, 200, 385}) {
        constexpr int64_t N = 3;
        const StoredMatrix w(format, N, K, 127, K % 3);
        const EdgeBytes out(((N - 1) * (K + 2) + K) * 4);
        kernels.decode_rows(w.view, 0, N, out.floats(), K + 2);
        for (int64_t n = 0; n < N; ++n)
          for (int64_t k = 0; k < K; ++k)
            ASSERT_EQ(out.floats()[n * (K + 2) + k], w.at(n, k)) << where(kernels, format, 0, N, K);
        EXPECT_TRUE(out.guards_hold());
      }
  });
}

TEST(InferKernels, EveryFp8CodeIsDecodedExactly) {
  for_each_table([](const InferKernels& kernels) {
    std::vector<uint8_t> code(256);
    for (int i = 0; i < 256; ++i) code[static_cast<size_t>(i)] = static_cast<uint8_t>(i);
    const float scale[] = {0.37f, 0.37f};
    std::vector<float> out(256);
    kernels.decode_rows({WeightFormat::kFp8, 1, 256, code.data(), scale}, 0, 1, out.data(), 256);
    for (int i = 0; i < 256; ++i)
      if ((i & 0x7F) != 0x7F) {
        ASSERT_EQ(out[static_cast<size_t>(i)], e4m3_to_f32(static_cast<uint8_t>(i)) * 0.37f)
            << kernels.isa << i;
      }
  });
}

TEST(InferKernels, LayoutsAreSharedByFormatsOfEqualRows) {
  for_each_table([](const InferKernels& kernels) {
    EXPECT_EQ(kernels.layout_of(WeightFormat::kInt8), kernels.layout_of(WeightFormat::kInt4));
    for (const WeightFormat a : kAllFormats)
      for (const WeightFormat b : kAllFormats)
        for (const int64_t K : {1, 33, 129})
          if (kernels.layout_of(a) == kernels.layout_of(b)) {
            ASSERT_EQ(kernels.prepared_bytes(a, K), kernels.prepared_bytes(b, K));
            ASSERT_EQ(kernels.prepared_bytes(a, K) % 64, 0);
            const PreparedInputs one(kernels, a, 2, K), other(kernels, b, 2, K);
            const int64_t used = a == WeightFormat::kInt8 ? one.bytes - 64 : one.bytes;
            for (int64_t m = 0; m < 2; ++m)
              EXPECT_EQ(0, std::memcmp(one.rows.data() + m * one.bytes, other.rows.data() + m * one.bytes,
                                       static_cast<size_t>(used)));
          }
  });
}

TEST(InferKernels, ZeroInputsGiveZerosInIntegerFormats) {
  for_each_table([](const InferKernels& kernels) {
    for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
      const StoredMatrix w(format, 5, 200);
      PreparedInputs in(kernels, format, 6, 200);
      std::fill(in.x.begin(), in.x.end(), 0.0f);
      kernels.prepare_rows(format, in.x.data(), 201, 6, 200, in.rows.data());
      std::vector<float> y(30, 1.0f);
      kernels.dot_rows(w.view, in.rows.data(), nullptr, 6, y.data(), 5, 0, 5, in.scratch.data());
      EXPECT_EQ(y, std::vector<float>(30, 0.0f)) << kernels.isa;
    }
  });
}

TEST(SelfTest, PassesForEveryTableAndCatchesOneThatAddsWrong) {
  for (int i = 0; i < num_infer_kernels(); ++i) self_test(infer_kernels_at(i));
  static const InferKernels& good = infer_kernels();
  InferKernels broken = good;
  broken.dot_rows = [](const WeightView& w, const void* rows, const int32_t* index, int64_t M, float* y,
                       int64_t y_stride, int64_t first, int64_t last, void* scratch) {
    good.dot_rows(w, rows, index, M, y, y_stride, first, last, scratch);
    if (w.format == WeightFormat::kInt4 && M > 1) y[(M - 1) * y_stride + last - 1] *= 1.01f;
  };
  try {
    self_test(broken);
    FAIL() << "not noticed";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("INT4"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("HADAL_ISA=scalar"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace hadal
