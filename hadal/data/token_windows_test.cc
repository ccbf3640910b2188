#include <gtest/gtest.h>

#include <numeric>

#include "hadal/data/token_windows.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

std::vector<int32_t> counted(int32_t n) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(TokenWindows, AreRunsOfTheTextAndDependOnSeedAndRowOnly) {
  const auto ids = counted(1000);
  const Tensor batch = window_rows(ids, 40, 8, 16, 1);
  EXPECT_TRUE((batch - batch.narrow(1, 0, 1)).equal(arange(0, 16).expand({8, 16})));
  EXPECT_TRUE(batch.equal(window_rows(ids, 40, 8, 16, 1)));
  EXPECT_TRUE(batch.narrow(0, 2, 3).equal(window_rows(ids, 42, 3, 16, 1)));
  EXPECT_FALSE(batch.equal(window_rows(ids, 48, 8, 16, 1)));
  EXPECT_FALSE(batch.equal(window_rows(ids, 40, 8, 16, 2)));
}

TEST(TokenWindows, OneWindowFitsExactly) {
  const auto ids = counted(16);
  EXPECT_EQ(window_rows(ids, 0, 3, 16, 1).max().item<int64_t>(), 15);
  EXPECT_EQ(spread_windows(ids, 4, 16).size(0), 1);
}

TEST(TokenWindows, SpreadReachesFromTheFirstTokenToTheLast) {
  const Tensor windows = spread_windows(counted(1000), 10, 16);
  EXPECT_EQ(windows.size(0), 10);
  EXPECT_EQ(windows.min().item<int64_t>(), 0);
  EXPECT_EQ(windows.max().item<int64_t>(), 999);
}

TEST(TokenWindows, HeldOutTextIsTheEndAndNotTrainedOn) {
  const TokenSplit split = split_tokens(counted(1000), 0.1, 16);
  EXPECT_EQ(split.train.back(), 899);
  EXPECT_EQ(split.held_out.front(), 900);
}

TEST(TokenWindows, TooShortATextIsRefusedWithTheNumbers) {
  try {
    split_tokens(counted(100), 0.1, 16);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("100 tokens"), std::string::npos);
  }
}

}  // namespace
}  // namespace hadal
