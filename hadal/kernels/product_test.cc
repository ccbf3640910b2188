// Every instruction set against double, and all of them bit for bit: over sizes around the tiles, the packed
// depth and the packed columns, either order of each factor, with guards around what is written.
#include "hadal/kernels/product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "hadal/base/random.h"

namespace hadal {
namespace {

constexpr float kGuard = -77.25f;
constexpr int64_t kGap = 3;  // between the rows of a matrix

struct Case {
  int64_t M, N, K;
  bool a_transposed, b_transposed, add;
};

std::vector<float> random_values(int64_t n, uint64_t stream) {
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(normal(5, stream, i));
  return x;
}

struct Factors {
  std::vector<float> a, b, c;
  Product product;
};
Factors factors(const Case& s) {
  const int64_t a_row = s.a_transposed ? 1 : s.K + kGap, a_k = s.a_transposed ? s.M + kGap : 1;
  const int64_t b_k = s.b_transposed ? 1 : s.N + kGap, b_column = s.b_transposed ? s.K + kGap : 1;
  Factors f{random_values((s.M + kGap) * (s.K + kGap), 1),
            random_values((s.N + kGap) * (s.K + kGap), 2),
            std::vector<float>(static_cast<size_t>(s.M * (s.N + kGap) + kGap), kGuard),
            {}};
  for (int64_t i = 0; i < s.M; ++i)
    for (int64_t j = 0; j < s.N; ++j)
      f.c[static_cast<size_t>(kGap + i * (s.N + kGap) + j)] = s.add ? 0.5f * static_cast<float>(i - j) : NAN;
  f.product = {s.M,        s.N, s.K,      f.a.data(),        a_row,      a_k,
               f.b.data(), b_k, b_column, f.c.data() + kGap, s.N + kGap, s.add};
  return f;
}

std::vector<float> run(int table, Factors& f, int64_t first_row = 0, int64_t first_column = 0) {
  const auto deleter = [](float* x) { std::free(x); };
  const std::unique_ptr<float, decltype(deleter)> space(
      static_cast<float*>(std::aligned_alloc(64, kProductSpace * sizeof(float))), deleter);
  Product p = f.product;
  p.M -= first_row, p.N -= first_column;
  p.a += first_row * p.a_row, p.b += first_column * p.b_column, p.c += first_row * p.c_row + first_column;
  product_kernels_at(table).multiply(p, space.get());
  return f.c;
}

std::string name(const Case& s) {
  return std::to_string(s.M) + "x" + std::to_string(s.N) + "x" + std::to_string(s.K) +
         (s.a_transposed ? " a^T" : "") + (s.b_transposed ? " b^T" : "") + (s.add ? " added" : "");
}

std::vector<Case> cases() {
  const std::vector<std::vector<int64_t>> sizes = {{1, 1, 1},     {3, 2, 0},    {11, 15, 7}, {12, 32, 16},
                                                   {13, 33, 17},  {24, 48, 5},  {6, 16, 40}, {7, 500, 255},
                                                   {25, 70, 257}, {2, 530, 300}};
  std::vector<Case> all;
  for (const auto& size : sizes)
    for (int bits = 0; bits < 8; ++bits)
      all.push_back({size[0], size[1], size[2], (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0});
  return all;
}

TEST(Product, EqualsDoubleAndWritesNothingElse) {
  for (const Case& s : cases())
    for (int table = 0; table < num_product_kernels(); ++table) {
      Factors f = factors(s);
      const std::vector<float> before = f.c, c = run(table, f);
      for (int64_t at = 0; at < static_cast<int64_t>(c.size()); ++at) {
        const int64_t i = (at - kGap) / (s.N + kGap), j = at - kGap - i * (s.N + kGap);
        if (at < kGap || j >= s.N) {
          ASSERT_EQ(c[static_cast<size_t>(at)], kGuard) << name(s) << " at " << at;
          continue;
        }
        double want = s.add ? before[static_cast<size_t>(at)] : 0, size = std::abs(want);
        for (int64_t k = 0; k < s.K; ++k) {
          const Product& p = f.product;
          const double term =
              static_cast<double>(p.a[i * p.a_row + k * p.a_k]) * p.b[k * p.b_k + j * p.b_column];
          want += term, size += std::abs(term);
        }
        ASSERT_NEAR(c[static_cast<size_t>(at)], want, 1e-6 * (1 + size)) << name(s) << " " << i << " " << j;
      }
    }
}

TEST(Product, BitsAreTheSameForEveryInstructionSet) {
  for (const Case& s : cases()) {
    Factors scalar = factors(s);
    const std::vector<float> want = run(num_product_kernels() - 1, scalar);
    for (int table = 0; table + 1 < num_product_kernels(); ++table) {
      Factors f = factors(s);
      ASSERT_EQ(run(table, f), want) << name(s) << " " << product_kernels_at(table).isa;
    }
  }
}

TEST(Product, BitsDoNotDependOnWhereWorkIsCut) {
  for (Case s : cases()) {
    s.add = false;
    for (int table = 0; table < num_product_kernels(); ++table) {
      Factors whole = factors(s), part = factors(s);
      const std::vector<float> want = run(table, whole);
      const int64_t first_row = s.M / 3, first_column = s.N / 2;
      run(table, part, first_row, first_column);
      for (int64_t i = first_row; i < s.M; ++i)
        for (int64_t j = first_column; j < s.N; ++j) {
          const auto at = static_cast<size_t>(kGap + i * (s.N + kGap) + j);
          ASSERT_EQ(part.c[at], want[at]) << name(s) << " " << product_kernels_at(table).isa;
        }
    }
  }
}

}  // namespace
}  // namespace hadal
