#include "hadal/train/shard_layout.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

TEST(ShardLayout, EveryElementBelongsToOneRankInOrder) {
  const std::vector<int64_t> sizes{100, 3, 64, 1, 1000, 7};
  for (const int64_t ranks : {1, 2, 3, 4, 9}) {
    const ShardLayout layout(sizes, ranks, {}, 64);
    int64_t tensor = 0, at = 0;
    for (int64_t r = 0; r < ranks; ++r)
      for (const ShardLayout::Part& part : layout.parts(r)) {
        EXPECT_EQ(part.tensor, tensor);
        EXPECT_EQ(part.begin, at);
        EXPECT_EQ(part.begin % 64, 0);
        at = part.end;
        if (at == sizes[static_cast<size_t>(tensor)]) ++tensor, at = 0;
      }
    EXPECT_EQ(tensor, 6) << ranks;
  }
}

TEST(ShardLayout, SharesAreEqualButForABlock) {
  const std::vector<int64_t> sizes{10'000, 20'000, 5'000};
  const ShardLayout layout(sizes, 4, {}, 64);
  for (int64_t r = 0; r < 4; ++r) {
    int64_t held = 0;
    for (const ShardLayout::Part& part : layout.parts(r)) {
      held += part.size();
      EXPECT_EQ(part.offset % 16, 0);
      EXPECT_LE(part.offset + part.size(), layout.flat_size(r));
    }
    EXPECT_NEAR(static_cast<double>(held), 35'000 / 4.0, 64) << r;
  }
}

TEST(ShardLayout, OneRankHoldsWholeTensors) {
  const std::vector<int64_t> sizes{200, 5};
  const ShardLayout layout(sizes, 1, {}, 64);
  ASSERT_EQ(layout.parts(0).size(), 2u);
  EXPECT_EQ(layout.parts(0)[0].end, 200);
  EXPECT_EQ(layout.parts(0)[1].end, 5);
}

// Three experts of 100: in blocks of 64 and 36 each, so a rank that has one expert has whole blocks.
TEST(ShardLayout, BlocksEndWhereRowsDo) {
  std::vector<int64_t> sizes;
  for_each_block(0, 300, 100, 64, [&](int64_t, int64_t size) { sizes.push_back(size); });
  EXPECT_EQ(sizes, (std::vector<int64_t>{64, 36, 64, 36, 64, 36}));
  const std::vector<int64_t> tensors{300}, rows{100};
  for (const int64_t ranks : {2, 3, 4}) {
    const ShardLayout layout(tensors, ranks, rows, 64);
    for (int64_t r = 0; r < ranks; ++r)
      for (const ShardLayout::Part& part : layout.parts(r))
        EXPECT_TRUE(part.begin % 100 == 0 || part.begin % 100 == 64) << part.begin;
  }
}

}  // namespace
}  // namespace hadal
