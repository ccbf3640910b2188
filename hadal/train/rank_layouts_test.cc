// Every layout of ranks trains the same model, bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hadal/error.h"
#include "hadal/train/rank_sum.h"
#include "tests/support/layout_runs.h"

namespace hadal {
namespace {

void expect_same(const Outcome& got, const Outcome& want, const std::string& what) {
  EXPECT_EQ(got.numbers, want.numbers) << what;
  EXPECT_TRUE(same_weights(got, want)) << what;
  EXPECT_TRUE(same_bits(got.moments, want.moments)) << what;
}

TEST(RankLayouts, EveryOneTrainsTheModelOfOneProcessBitForBit) {
  for (const Variant& variant : variants()) {
    const TrainConfig config = layout_run(variant);
    const TrainRows rows = bordered_rows(config.batch.length + 1 + variant.mtp_depth);
    const Outcome one = train(config, layout_model(variant.mtp_depth), kAlone, rows);
    ASSERT_EQ(one.numbers.size(), 60u);
    EXPECT_TRUE(std::isfinite(one.numbers.back()));
    for (const int64_t ranks : {2, 3, 4})
      for (const bool shard : {false, true}) {
        const Layout layout{.ranks = ranks, .shard = shard};
        expect_same(train(config, layout_model(variant.mtp_depth), layout, rows), one,
                    std::string(variant.name) + ", " + layout.text());
      }
  }
}

TEST(RankLayouts, RanksWithoutRowsTakePart) {
  TrainConfig config = layout_run(variants()[1]);
  config.batch.sequences = 2;
  const TrainRows rows = bordered_rows(config.batch.length + 1);
  const Outcome one = train(config, layout_model(0), kAlone, rows);
  for (const bool shard : {false, true})
    expect_same(train(config, layout_model(0), {.ranks = 4, .shard = shard}, rows), one, "2 rows, 4 ranks");
}

TEST(RankLayouts, ANonFiniteGradientOfOneRankIsSkippedByAll) {
  TrainConfig config = layout_run(variants()[1], 6);
  config.optimizer.lr = 1e18;  // overflows by itself after a few steps
  const TrainRows rows = bordered_rows(config.batch.length + 1);
  const Outcome one = train(config, layout_model(0), kAlone, rows);
  EXPECT_FALSE(std::isfinite(one.numbers[one.numbers.size() - 3]));
  for (const bool shard : {false, true}) {
    const Outcome two = train(config, layout_model(0), {.ranks = 2, .shard = shard}, rows);
    EXPECT_TRUE(same_weights(two, one));
  }
}

TEST(RankLayouts, AnyResumesACheckpointOfAnyOtherBitForBit) {
  const Variant variant = variants()[8];
  const TrainConfig config = layout_run(variant);
  const TrainRows rows = bordered_rows(config.batch.length + 2);
  const Outcome whole = train(config, layout_model(1), kAlone, rows);
  const Layout layouts[] = {kAlone, {.ranks = 2}, {.ranks = 2, .shard = true}, {.ranks = 4, .shard = true}};
  for (const Layout& first : layouts)
    for (const Layout& second : layouts) {
      const TemporaryFolder folder;
      const Outcome begun = train(config, layout_model(1), first, rows, folder.path() / "checkpoints", 4);
      EXPECT_EQ(begun.numbers.size(), 24u);
      expect_same(joined(begun, train(config, layout_model(1), second, rows, folder.path() / "checkpoints")),
                  whole, first.text() + "; then " + second.text());
    }
}

TEST(RankLayouts, AnotherConfigurationOnOneRankIsRefusedByItsName) {
  const auto body = [](Comm& comm) {
    TrainConfig config = layout_run(variants()[0]);
    if (comm.rank() == 1) config.optimizer.lr = 2e-2;
    Trainer(config, layout_model(0), bordered_rows(13), {.comm = &comm});
  };
  try {
    run_ranks(2, body);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("the configuration of rank 1 is not that of rank 0: got lr = 0.02"),
              std::string::npos)
        << e.what();
  }
}

TEST(RankLayouts, TheRanksMomentsAreEqualSharesOfOneSet) {
  const ModelConfig config = layout_model(1);
  Transformer model(config, random_weights(config, 1));
  int64_t whole = 0, sum = 0, largest = 0;
  AdamW all(model, {});
  for (const AdamW::Moments& each : all.moments()) whole += each.m.numel();
  for (int64_t r = 0; r < 4; ++r) {
    int64_t mine = 0;
    AdamW share(model, {}, {r, 4});
    for (const AdamW::Moments& each : share.moments()) mine += each.m.numel();
    sum += mine, largest = std::max(largest, mine);
  }
  EXPECT_EQ(sum, whole);
  EXPECT_LE(largest, whole / 4 + kShardBlock);
}

}  // namespace
}  // namespace hadal
