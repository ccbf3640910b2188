#include "hadal/data/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace hadal {
namespace {

TEST(Permutation, HitsEveryPlaceOnceForEverySize) {
  for (int64_t n = 1; n <= 600; ++n) {
    const Permutation permutation(n, 7, static_cast<uint64_t>(n));
    std::vector<int> hits(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t to = permutation(i);
      ASSERT_TRUE(to >= 0 && to < n) << n;
      ++hits[static_cast<size_t>(to)];
    }
    for (const int hit : hits) ASSERT_EQ(hit, 1) << n;
  }
}

TEST(Permutation, WorksBeyondThirtyTwoBits) {
  const int64_t n = int64_t{1} << 40;
  const Permutation permutation(n - 3, 1, 2);
  for (int64_t i = 0; i < 1000; ++i) {
    const int64_t to = permutation(n - 4 - i);
    EXPECT_TRUE(to >= 0 && to < n - 3);
  }
}

TEST(Permutation, OrderLooksRandomAndDependsOnSeedAndStream) {
  const int64_t n = 10000;
  const Permutation a(n, 1, 1), b(n, 2, 1), c(n, 1, 2);
  double product = 0;
  int same_b = 0, same_c = 0, neighbours = 0;
  const double mean = (n - 1) / 2.0;
  for (int64_t i = 0; i < n; ++i) {
    product += (static_cast<double>(i) - mean) * (static_cast<double>(a(i)) - mean);
    same_b += a(i) == b(i), same_c += a(i) == c(i);
    if (i > 0) neighbours += a(i) == a(i - 1) + 1;
  }
  const double variance = (static_cast<double>(n) * n - 1) / 12;
  EXPECT_LT(std::abs(product / (static_cast<double>(n) * variance)), 0.04);  // four deviations
  EXPECT_LT(same_b, 10);                                                     // one expected
  EXPECT_LT(same_c, 10);
  EXPECT_LT(neighbours, 10);
}

// Each element of a small set comes first about equally often over many keys: every epoch's start is fair.
TEST(Permutation, FirstElementIsUniformOverKeys) {
  constexpr int kSize = 5, kKeys = 5000;
  int first[kSize] = {};
  for (uint64_t stream = 0; stream < kKeys; ++stream) ++first[Permutation(kSize, 3, stream)(0)];
  for (const int count : first) EXPECT_NEAR(count, kKeys / kSize, 150);
}

}  // namespace
}  // namespace hadal
