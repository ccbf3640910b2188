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

TEST(TokenWindows, OneWindowFitsExactly) {
  EXPECT_EQ(spread_windows(counted(16), 4, 16).size(0), 1);
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
