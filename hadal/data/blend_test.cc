#include "hadal/data/blend.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hadal {
namespace {

// The slow way: keep the counts, take what lags most.
TEST(Blend, IsErrorDiffusionAndCountsItsRows) {
  for (const std::vector<double>& weights :
       {std::vector<double>{1}, {1, 1}, {3, 1}, {0.5, 0.25, 0.25}, {5, 3, 7, 1}, {1, 0, 2}}) {
    const Blend blend(weights);
    double sum = 0;
    for (const double weight : weights) sum += weight;
    std::vector<int64_t> rows(weights.size());
    for (int64_t i = 0; i < 3000; ++i) {
      for (size_t s = 0; s < weights.size(); ++s)
        ASSERT_EQ(blend.rows_before(static_cast<int64_t>(s), i), rows[s]);
      const auto [source, row] = blend(i);
      const auto lag = [&](size_t s) {
        return weights[s] / sum * static_cast<double>(i + 1) - static_cast<double>(rows[s]);
      };
      for (size_t s = 0; s < weights.size(); ++s)
        EXPECT_LE(lag(s), lag(static_cast<size_t>(source)) + 0.05) << i;  // 1/65536 a row of rounding
      EXPECT_EQ(row, rows[static_cast<size_t>(source)]++);
    }
  }
}

TEST(Blend, SharesAreTheWeightsAndSmallOnesAreNotLost) {
  const Blend blend({1, 1e-9, 1e-12, 0});
  EXPECT_GT(blend.share(1), 0);
  EXPECT_GT(blend.share(2), 0);
  EXPECT_EQ(blend.share(3), 0);
  EXPECT_NEAR(blend.share(0), 1, 1e-4);
  const Blend thirds({1, 1, 1});
  for (int64_t s = 0; s < 3; ++s) EXPECT_NEAR(thirds.share(s), 1.0 / 3, 2e-5);
}

TEST(Blend, FarRowsContinueTheSameCount) {
  const Blend blend({1, 3});
  const int64_t far = int64_t{4} << 40;
  EXPECT_EQ(blend.rows_before(0, far), int64_t{1} << 40);
  EXPECT_EQ(blend(far).row, int64_t{blend(far).source == 0 ? 1 : 3} << 40);
}

}  // namespace
}  // namespace hadal
