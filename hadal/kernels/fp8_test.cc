// FP8 kernels of every instruction set that runs here, against their rules in double precision.
#include "hadal/kernels/fp8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "hadal/base/number_formats.h"
#include "hadal/base/random.h"

namespace hadal {
namespace {

using Floats = std::vector<float>;
using Codes = std::vector<uint8_t>;

void for_each_table(const std::function<void(const Fp8Kernels&)>& body) {
  for (int i = 0; i < num_fp8_kernels(); ++i) {
    SCOPED_TRACE(fp8_kernels_at(i).isa);
    body(fp8_kernels_at(i));
  }
}

// A format by its definition: numbers m * 2^(max(e, least) - bits), the nearest, ties to even m, up to max.
struct Format {
  int bits, least;
  double max;
  double nearest(double x) const {
    const double size = std::min(std::fabs(x), max);
    const double step = std::ldexp(1, std::max(size == 0 ? least : std::ilogb(size), least) - bits);
    return std::copysign(std::min(std::nearbyint(size / step) * step, max), x);  // rounds to even
  }
};
constexpr Format kE4m3{3, -6, 448}, kE5m2{2, -14, 57344}, kE5m6{6, -14, 65024};

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

// A few values of all sizes, subnormal ones and zeros among them; at most 2^top.
float any_size(uint64_t stream, uint64_t i, int top) {
  const auto dice = philox(5, stream, i);
  if (dice[3] % 16 == 0) return 0;
  const int exponent = top - static_cast<int>(dice[0] % 40);
  return static_cast<float>(std::ldexp(static_cast<double>(dice[1]) / 0x1p31 - 1, exponent));
}

TEST(Fp8Kernels, EveryBf16NumberIsRoundedAsTheFormatsSay) {
  Floats x;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = bf16_to_f32(static_cast<uint16_t>(bits));
    if (std::isfinite(value)) x.push_back(value);
  }
  const auto n = static_cast<int64_t>(x.size());
  for_each_table([&](const Fp8Kernels& k) {
    Codes code(x.size());
    std::vector<uint16_t> half(x.size());
    Floats back(x.size());
    const auto expect = [&](const Format& format) {
      for (size_t i = 0; i < x.size(); ++i)
        ASSERT_TRUE(same(back[i], static_cast<float>(format.nearest(x[i])))) << x[i] << " to " << back[i];
    };
    for (const auto& [format, rule] : {std::pair{Fp8Format::kE4M3, kE4m3}, {Fp8Format::kE5M2, kE5m2}}) {
      k.encode(format, x.data(), 1, code.data(), n);
      k.decode(format, code.data(), 1, back.data(), n);
      expect(rule);
    }
    k.encode_e5m6(x.data(), 1, half.data(), n);
    k.decode_half(half.data(), 1, back.data(), n);
    expect(kE5m6);
  });
}

TEST(Fp8Kernels, CodesDecodeAsTheTableSays) {
  Codes code(256);
  Floats out(256), scale(256, 0.5f);
  for (int i = 0; i < 256; ++i) code[static_cast<size_t>(i)] = static_cast<uint8_t>(i);
  for_each_table([&](const Fp8Kernels& k) {
    k.decode_columns(Fp8Format::kE4M3, code.data(), scale.data(), out.data(), 256);
    for (int i = 0; i < 256; ++i) {
      const float want = e4m3_to_f32(static_cast<uint8_t>(i)) * 0.5f;
      ASSERT_TRUE(std::isnan(want) ? std::isnan(out[static_cast<size_t>(i)])
                                   : same(out[static_cast<size_t>(i)], want));
    }
  });
}

// 10^6 groups of 8 values from 2^-149 to the largest floats, by the rule in double precision: amax, raised to
// the floor, over 448 (both divisions rounded to fp32), the quotient to the nearest code.
TEST(Fp8, AMillionRandomGroupsFollowTheRuleAndNoneHasANan) {
  constexpr int64_t kGroup = 8, kRows = 1000, kCols = 1000 * kGroup;
  const Fp8Grid grid{kRows, kCols, 1, kGroup};
  Floats x(kRows * kCols), scale(static_cast<size_t>(grid.scales()));
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = any_size(1, i, static_cast<int>(i / kGroup % 276) - 148);  // up to 2^127
  Codes code(x.size());
  for (const Fp8Scaling& scaling :
       {Fp8Scaling{.floor = kActivationFloor}, Fp8Scaling{.power_of_two = true}}) {
    fp8_quantise(fp8_kernels(), scaling, grid, x.data(), code.data(), scale.data());
    for (size_t g = 0; g < scale.size(); ++g) {
      const float* group = x.data() + g * kGroup;
      double amax = 0;
      for (int i = 0; i < kGroup; ++i) amax = std::max(amax, std::fabs(static_cast<double>(group[i])));
      double want = 1;
      if (amax > 0 || scaling.floor > 0) {
        amax = std::max(amax, static_cast<double>(scaling.floor));
        want = std::max(static_cast<double>(static_cast<float>(amax / 448)), std::ldexp(1, -126));
        if (scaling.power_of_two) want = std::exp2(std::ceil(std::log2(want)));
      }
      ASSERT_EQ(scale[g], want) << amax;
      for (int i = 0; i < kGroup; ++i) {
        const double quotient = static_cast<float>(group[i] / want);
        const float got = e4m3_to_f32(code[g * kGroup + static_cast<size_t>(i)]);
        ASSERT_EQ(got, kE4m3.nearest(quotient)) << group[i] << " / " << want;
      }
    }
  }
}

TEST(Fp8, PowersOfTwoAreReachedExactly) {
  const Fp8Scaling scaling{.floor = kActivationFloor, .power_of_two = true};
  EXPECT_EQ(fp8_scale(448, scaling), 1);
  EXPECT_EQ(fp8_scale(449, scaling), 2);
  EXPECT_EQ(fp8_scale(0, scaling), 0x1p-22f);
}

TEST(Fp8, AGroupWithAnInfinityOrNanHasNoFiniteValue) {
  for (const float bad : {INFINITY, NAN}) {
    Floats x(2 * 128, 1.0f), scale(2), back(256);
    x[5] = bad;
    Codes code(256);
    for (const bool power_of_two : {false, true}) {
      const Fp8Grid grid{2, 128, 1, 128};
      fp8_quantise(fp8_kernels(), {.power_of_two = power_of_two}, grid, x.data(), code.data(), scale.data());
      fp8_dequantise(fp8_kernels(), Fp8Format::kE4M3, grid, code.data(), scale.data(), back.data());
      for (int i = 0; i < 128; ++i) ASSERT_FALSE(std::isfinite(back[static_cast<size_t>(i)]));
      ASSERT_EQ(back[128], 1.0f);
    }
  }
}

// 128 x 1 groups are the 1 x 128 groups of the transposed matrix.
TEST(Fp8, GroupsOfAColumnAreThoseOfTheTransposedRow) {
  const int64_t rows = 150, cols = 37;
  Floats x(static_cast<size_t>(rows * cols)), turned(x.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      x[static_cast<size_t>(r * cols + c)] = turned[static_cast<size_t>(c * rows + r)] =
          any_size(2, static_cast<uint64_t>(r * cols + c), 3);
  const Fp8Grid tall{rows, cols, 128, 1}, wide{cols, rows, 1, 128};
  for_each_table([&](const Fp8Kernels& k) {
    Codes code(x.size()), other(x.size());
    Floats scale(static_cast<size_t>(tall.scales())), other_scale(static_cast<size_t>(wide.scales()));
    Floats back(x.size());
    fp8_quantise(k, {}, tall, x.data(), code.data(), scale.data());
    fp8_quantise(k, {}, wide, turned.data(), other.data(), other_scale.data());
    fp8_dequantise(k, Fp8Format::kE4M3, tall, code.data(), scale.data(), back.data());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        const auto at = static_cast<size_t>(r * cols + c), turned_at = static_cast<size_t>(c * rows + r);
        ASSERT_EQ(code[at], other[turned_at]);
        const float s = other_scale[static_cast<size_t>(wide.scale_at(c, r))];
        ASSERT_EQ(scale[static_cast<size_t>(tall.scale_at(r, c))], s);
        ASSERT_EQ(back[at], e4m3_to_f32(code[at]) * s);
      }
  });
}

// V3 report 3.3.3: tiles of the attention output turn from 1 x 128 to 128 x 1 without another rounding.
TEST(Fp8, E5m6TilesWithPowersOfTwoKeepTheirValuesWhenTheyAreGroupedAnew) {
  const int64_t rows = 128, cols = 256;
  Floats x(static_cast<size_t>(rows * cols)), scale(256), once(x.size()), twice(x.size()), turned(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(normal(5, 3, i));
  std::vector<uint16_t> half(x.size());
  const Fp8Kernels& k = fp8_kernels();
  e5m6_quantise(k, rows, cols, x.data(), half.data(), scale.data());
  e5m6_dequantise(k, rows, cols, half.data(), scale.data(), once.data());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      turned[static_cast<size_t>(c * rows + r)] = once[static_cast<size_t>(r * cols + c)];
  e5m6_quantise(k, cols, rows, turned.data(), half.data(), scale.data());
  e5m6_dequantise(k, cols, rows, half.data(), scale.data(), twice.data());
  EXPECT_EQ(twice, turned);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i)
    if (std::fabs(x[i]) > 1e-3) worst = std::max(worst, std::fabs(once[i] / static_cast<double>(x[i]) - 1));
  EXPECT_LE(worst, 0x1p-7);  // half a step of 7 significant bits
  EXPECT_GT(worst, 0x1p-8);
}

// Codes and scales of a product, as floats. b is [K, N]; transposed it is given as [N, K].
struct Case {
  int64_t M, N, K, N_row;
  Floats a, a_scale, b, b_scale, c;
  Case(int64_t m, int64_t n, int64_t k, double spread = 1) : M(m), N(n), K(k), N_row((n + 31) / 32 * 32) {
    const auto blocks = static_cast<size_t>(fp8_blocks(K));
    a = codes(1, M * K), b = codes(2, K * N_row), c.assign(static_cast<size_t>(M * N), 0);
    for (size_t i = 0; i < static_cast<size_t>(M) * blocks; ++i)
      a_scale.push_back(static_cast<float>(std::exp(spread * normal(7, 3, i))));
    for (size_t i = 0; i < static_cast<size_t>(N_row) * blocks; ++i)
      b_scale.push_back(static_cast<float>(std::exp(spread * normal(7, 4, i))));
  }
  static Floats codes(uint64_t stream, int64_t n) {
    Floats out;
    for (int64_t i = 0; i < n; ++i)
      out.push_back(static_cast<float>(kE4m3.nearest(60 * normal(7, stream, static_cast<uint64_t>(i)))));
    return out;
  }
  Fp8Product product(Fp8Sums sums) {
    return {.M = M,
            .N = N,
            .K = K,
            .a = a.data(),
            .a_row = K,
            .a_k = 1,
            .a_scale = a_scale.data(),
            .a_scale_row = fp8_blocks(K),
            .b = b.data(),
            .b_unit = 32,
            .b_k = N_row,
            .b_scale = b_scale.data(),
            .b_columns = N_row,
            .c = c.data(),
            .c_row = N,
            .sums = sums};
  }
  double scale(int64_t m, int64_t n, int64_t block) const {
    return static_cast<double>(a_scale[static_cast<size_t>(m * fp8_blocks(K) + block)]) *
           b_scale[static_cast<size_t>(block * N_row + n)];
  }
  double term(int64_t m, int64_t n, int64_t k) const {
    return static_cast<double>(a[static_cast<size_t>(m * K + k)]) * b[static_cast<size_t>(k * N_row + n)];
  }
  // The sum, and that of the magnitudes.
  std::pair<double, double> exact(int64_t m, int64_t n) const {
    double sum = 0, size = 0;
    for (int64_t k = 0; k < K; ++k) {
      const double x = term(m, n, k) * scale(m, n, k / kFp8Block);
      sum += x, size += std::fabs(x);
    }
    return {sum, size};
  }
  float got(int64_t m, int64_t n) const { return c[static_cast<size_t>(m * N + n)]; }
};

TEST(Fp8Product, EqualsDoublePrecisionWithinFp32Sums) {
  for_each_table([&](const Fp8Kernels& k) {
    for (const auto& [M, N, K] :
         {std::array<int64_t, 3>{1, 1, 1}, {3, 33, 128}, {47, 70, 300}, {9, 32, 129}}) {
      Case x(M, N, K);
      k.multiply(x.product(Fp8Sums::kFp32));
      for (int64_t m = 0; m < M; ++m)
        for (int64_t n = 0; n < N; ++n) {
          const auto [want, size] = x.exact(m, n);
          // A block's terms are exact, each of its up to 128 sums rounds to 2^-24 of what there is so far.
          ASSERT_NEAR(x.got(m, n), want, 132 * 0x1p-24 * size) << M << " " << N << " " << K;
        }
    }
  });
}

TEST(Fp8Product, TransposedFactorsGiveTheSameBits) {
  for_each_table([&](const Fp8Kernels& k) {
    Case x(5, 40, 200);
    k.multiply(x.product(Fp8Sums::kFp32));
    const Floats want = x.c;
    Floats a_columns(x.a.size()), b_rows(static_cast<size_t>(x.N * x.K)), units(x.b.size());
    for (int64_t i = 0; i < x.K; ++i) {
      for (int64_t m = 0; m < x.M; ++m)
        a_columns[static_cast<size_t>(i * x.M + m)] = x.a[static_cast<size_t>(m * x.K + i)];
      for (int64_t n = 0; n < x.N; ++n)
        b_rows[static_cast<size_t>(n * x.K + i)] = x.b[static_cast<size_t>(i * x.N_row + n)];
    }
    k.transpose_units(b_rows.data(), x.K, units.data(), x.N, x.K);
    Fp8Product p = x.product(Fp8Sums::kFp32);
    p.a = a_columns.data(), p.a_row = 1, p.a_k = x.M;
    p.b = units.data(), p.b_unit = 32 * x.K, p.b_k = 32;
    std::fill(x.c.begin(), x.c.end(), -1.0f);
    k.multiply(p);
    EXPECT_EQ(x.c, want);
  });
}

TEST(Fp8Product, AddsAndRoundsToBf16Once) {
  for_each_table([&](const Fp8Kernels& k) {
    Case x(6, 37, 128);
    k.multiply(x.product(Fp8Sums::kFp32));
    const Floats once = x.c;
    Fp8Product p = x.product(Fp8Sums::kFp32);
    p.add = p.round = true;
    k.multiply(p);
    for (size_t i = 0; i < once.size(); ++i) ASSERT_EQ(x.c[i], bf16_to_f32(f32_to_bf16(once[i] + once[i])));
  });
}

double cut(double x, int last_exponent) {
  return std::trunc(std::ldexp(x, -last_exponent)) * std::ldexp(1, last_exponent);
}
float cut_register(float x) {
  return x == 0 ? x : static_cast<float>(cut(x, std::ilogb(x) - 13));
}

// Training spec 8.3: products of a group of 32 cut at 13 bits below the largest, the register at 13.
double hopper_rule(const Case& x, int64_t m, int64_t n, bool promoted) {
  double total = 0;
  float held = 0;
  for (int64_t first = 0; first < x.K; first += 32) {
    const int64_t block = first / kFp8Block, last = std::min(first + 32, x.K);
    const double scale = static_cast<float>(x.scale(m, n, block));
    std::vector<double> terms;
    int top = -100;
    for (int64_t k = first; k < last; ++k) {
      terms.push_back(promoted ? x.term(m, n, k)
                               : static_cast<float>(static_cast<float>(x.term(m, n, k)) * scale));
      if (terms.back() != 0) top = std::max(top, std::ilogb(terms.back()));
    }
    double sum = 0;
    for (const double term : terms) sum += cut(term, top - 13);
    held = cut_register(held + static_cast<float>(sum));
    if (promoted && (last % kFp8Block == 0 || last == x.K)) total += held * scale, held = 0;
  }
  return promoted ? total : held;
}

TEST(Fp8Product, ShortSumsFollowTheRuleOfTheTensorCore) {
  for_each_table([&](const Fp8Kernels& k) {
    for (const Fp8Sums sums : {Fp8Sums::kHopper, Fp8Sums::kHopperUnpromoted}) {
      Case x(3, 35, 330);
      k.multiply(x.product(sums));
      for (int64_t m = 0; m < x.M; ++m)
        for (int64_t n = 0; n < x.N; ++n) {
          const double want = hopper_rule(x, m, n, sums == Fp8Sums::kHopper);
          ASSERT_NEAR(x.got(m, n), want, 4 * 0x1p-24 * x.exact(m, n).second) << m << " " << n;
        }
    }
  });
}

// Of normal codes at K = 4096 (training spec 8.3): 0.31 % without promotion, 0.01 % with.
TEST(Fp8Product, PromotionBuysThirtyTimesTheAccuracy) {
  Case x(16, 32, 4096, /*spread=*/0);
  const auto error = [&](Fp8Sums sums) {
    fp8_kernels().multiply(x.product(sums));
    double difference = 0, size = 0;
    for (int64_t m = 0; m < x.M; ++m)
      for (int64_t n = 0; n < x.N; ++n) {
        const double want = x.exact(m, n).first;
        difference += (x.got(m, n) - want) * (x.got(m, n) - want), size += want * want;
      }
    return std::sqrt(difference / size);
  };
  const double with = error(Fp8Sums::kHopper), without = error(Fp8Sums::kHopperUnpromoted);
  EXPECT_NEAR(without, 0.0031, 0.001);
  EXPECT_NEAR(with, 1e-4, 0.4e-4);
  EXPECT_LT(error(Fp8Sums::kFp32), 1e-6);
}

// Training spec 8.7: 8 channels of the activations a hundred times as large, 4 tokens thirty times; x w^T at
// K = 4096 with weights in 128 x 128 blocks against the product before rounding.
struct OutlierProduct {
  static constexpr int64_t T = 128, N = 16, K = 4096;
  Floats x = Floats(T * K), w = Floats(N * K);
  OutlierProduct() {
    for (int64_t t = 0; t < T; ++t)
      for (int64_t k = 0; k < K; ++k)
        x[static_cast<size_t>(t * K + k)] =
            static_cast<float>(normal(9, 1, static_cast<uint64_t>(t * K + k)) * (k % 512 == 77 ? 100 : 1) *
                               (t % 32 == 5 ? 30 : 1));
    for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(normal(9, 2, i));
  }
  static Floats rounded(const Floats& from, const Fp8Scaling& scaling, const Fp8Grid& grid) {
    Codes code(from.size());
    Floats scale(static_cast<size_t>(grid.scales())), out(from.size());
    fp8_quantise(fp8_kernels(), scaling, grid, from.data(), code.data(), scale.data());
    fp8_dequantise(fp8_kernels(), scaling.format, grid, code.data(), scale.data(), out.data());
    return out;
  }
  // Relative, in the Frobenius norm.
  double error(const Fp8Scaling& scaling, int64_t group_rows, int64_t group_cols) const {
    const Floats a = rounded(x, scaling, {T, K, group_rows, group_cols}),
                 b = rounded(w, {}, block_grid(N, K));
    double wrong = 0, size = 0;
    for (int64_t t = 0; t < T; ++t)
      for (int64_t n = 0; n < N; ++n) {
        double got = 0, want = 0;
        for (int64_t k = 0; k < K; ++k) {
          const auto i = static_cast<size_t>(t * K + k), j = static_cast<size_t>(n * K + k);
          got += static_cast<double>(a[i]) * b[j], want += static_cast<double>(x[i]) * w[j];
        }
        wrong += (got - want) * (got - want), size += want * want;
      }
    return std::sqrt(wrong / size);
  }
};

TEST(Fp8, TilesLoseLessToOutliersThanBlocksAndThoseLessThanOneScale) {
  const OutlierProduct p;
  const double tile = p.error({}, 1, 128), block = p.error({}, 128, 128),
               tensor = p.error({}, OutlierProduct::T, OutlierProduct::K),
               power = p.error({.power_of_two = true}, 1, 128),
               wide = p.error({.format = Fp8Format::kE5M2}, OutlierProduct::T, OutlierProduct::K);
  EXPECT_LT(tile, block);
  EXPECT_LT(block, tensor);
  EXPECT_NEAR(tile, 0.030, 0.002);  // two factors of 4 bits: 2 % each
  EXPECT_NEAR(power, 0.040, 0.003);
  EXPECT_NEAR(block, 0.035, 0.002);
  EXPECT_NEAR(tensor, 0.037, 0.001);
  EXPECT_NEAR(wide, 0.059, 0.004);
}

}  // namespace
}  // namespace hadal
