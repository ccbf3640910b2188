#include "hadal/data/packed_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "hadal/data/rows.h"
#include "tests/support/data_sets.h"

namespace hadal {
namespace {

TEST(BestFit, TakesTheBinWithTheLeastRoomThatIsEnough) {
  using Bins = std::vector<uint32_t>;
  const auto pack = [](std::vector<int64_t> sizes) { return best_fit_decreasing(sizes, 10); };
  EXPECT_EQ(pack({7, 6, 4, 3}), (Bins{0, 1, 1, 0}));
  EXPECT_EQ(pack({10, 6, 5, 5, 4}), (Bins{0, 1, 2, 2, 1}));
  EXPECT_EQ(pack({5, 4, 3, 2, 1}), (Bins{0, 0, 1, 1, 0}));  // 1: not where 5 are free
  EXPECT_EQ(pack({}), Bins{});
}

TEST(BestFit, FillsNoBinBeyondItsCapacityAndLeavesLittleRoom) {
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < 5000; ++i) sizes.push_back(1 + i * 7919 % 60);
  std::sort(sizes.rbegin(), sizes.rend());
  const auto bin_of = best_fit_decreasing(sizes, 64);
  std::map<uint32_t, int64_t> filled;
  int64_t sum = 0;
  for (size_t i = 0; i < sizes.size(); ++i) filled[bin_of[i]] += sizes[i], sum += sizes[i];
  for (const auto& [bin, tokens] : filled) EXPECT_LE(tokens, 64);
  EXPECT_EQ(filled.rbegin()->first + 1, filled.size());
  EXPECT_LE(static_cast<double>(filled.size()), 1.01 * static_cast<double>(sum) / 64 + 1);
}

RowConfig config_of(const std::filesystem::path& path, int64_t length, int64_t extra = 0) {
  RowConfig config;
  config.sources = {{path.string()}};
  config.length = length, config.extra = extra, config.seed = 5;
  config.packing = Packing::kBestFit;
  return config;
}

// The pieces of a row as they stand in it, without filler.
std::vector<std::vector<int32_t>> pieces(const RowBatch& row) {
  std::vector<std::vector<int32_t>> found;
  for (int32_t t = 0; t < row.valid[0]; ++t) {
    const auto at = static_cast<size_t>(t);
    if (row.piece_start[at] == t) found.emplace_back();
    EXPECT_LE(row.piece_start[at], t);
    found.back().push_back(row.ids[at]);
  }
  return found;
}

// A document from what is learned from it, FIM order undone, EOS (1) left out.
std::vector<int32_t> restored(std::vector<int32_t> ids) {
  if (!ids.empty() && ids.back() == 1) ids.pop_back();
  if (ids.empty() || ids[0] != 2) return ids;
  const auto hole = std::find(ids.begin(), ids.end(), 3), end = std::find(ids.begin(), ids.end(), 4);
  std::vector<int32_t> out(ids.begin() + 1, hole);
  out.insert(out.end(), end + 1, ids.end());
  out.insert(out.end(), hole + 1, end);
  return out;
}

struct Case {
  int64_t documents, shortest, longest, length, extra;
  double fim;
};

class PackedRowsOf : public testing::TestWithParam<Case> {};

// In each epoch: every document once, those that fit in one piece; every token but a document's first is a
// target exactly once.
TEST_P(PackedRowsOf, LoseNoTokenAndCutNoDocumentThatFits) {
  const Case c = GetParam();
  const TemporaryFolder folder;
  const Documents documents = numbered_documents(c.documents, c.shortest, c.longest);
  write_data_set(folder.path(), documents);
  RowConfig config = config_of(folder.path(), c.length, c.extra);
  config.fim_rate = c.fim;
  const RowSource rows = open_rows(config);
  RowBatch row;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::map<int32_t, int64_t> target;
    std::set<std::vector<int32_t>> whole;
    for (int64_t i = 0; i < rows.rows_per_epoch(); ++i) {
      rows.read(epoch * rows.rows_per_epoch() + i, 1, row);
      ASSERT_EQ(row.length, c.length + 1 + c.extra);
      for (int64_t t = 1; t <= c.length; ++t) {
        const auto at = static_cast<size_t>(t);
        if (row.piece_start[at] != row.piece_start[at - 1]) continue;
        ASSERT_LT(t, row.valid[0]);  // filler is no target
        ++target[row.ids[at]];
      }
      for (const auto& piece : pieces(row))
        if (piece.back() == 1) whole.insert(restored(piece));
    }
    for (const auto& document : documents) {
      const int64_t tokens = static_cast<int64_t>(document.size()) + 1;
      if (tokens + (c.fim > 0 ? 3 : 0) <= c.length + 1) {
        EXPECT_TRUE(whole.contains(document)) << document[0];
      }
      int64_t missing = 0;  // the first, of a document in FIM order the mark before it
      for (const int32_t id : document) {
        EXPECT_LE(target[id], 1) << id;
        missing += target[id] == 0;
      }
      if (c.fim == 0) {
        EXPECT_EQ(target[document[0]], 0);
      }
      EXPECT_LE(missing, 1) << document[0];
    }
    EXPECT_EQ(target[1], c.documents);
    int64_t all = 0;
    for (const auto& [id, n] : target) all += n;
    EXPECT_EQ(all, rows.tokens_per_epoch() - c.documents);
    EXPECT_EQ(target[3], static_cast<int64_t>(c.fim * static_cast<double>(c.documents)));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PackedRowsOf,
                         testing::Values(Case{300, 1, 40, 64, 1, 0}, Case{300, 1, 200, 64, 2, 0},
                                         Case{513, 1, 9, 8, 0, 0}, Case{40, 63, 66, 64, 1, 0},
                                         Case{40, 127, 130, 64, 3, 0}, Case{3, 1000, 1000, 16, 0, 0},
                                         Case{600, 3, 50, 64, 1, 0.25}, Case{100, 60, 300, 64, 1, 0.5}));

TEST(PackedRows, ExtraPlacesHoldWhatFollowsOfACutDocument) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(1, 100, 100));
  const RowSource rows = open_rows(config_of(folder.path(), 16, 2));
  RowBatch row;
  int64_t full = 0;
  for (int64_t i = 0; i < rows.rows_per_epoch(); ++i) {
    rows.read(i, 1, row);
    if (row.valid[0] < 17) continue;
    ASSERT_EQ(row.valid[0], 19);
    for (size_t t = 1; t < 19; ++t) EXPECT_EQ(row.ids[t], row.ids[t - 1] + 1);
    ++full;
  }
  EXPECT_EQ(full, 6);  // 101 tokens: 6 of 17 that overlap by one, and a rest
  EXPECT_EQ(rows.rows_per_epoch(), 7);
}

TEST(PackedRows, DoNotDependOnWhatWasReadBefore) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(700, 1, 90));
  RowConfig config = config_of(folder.path(), 48, 1);
  config.fim_rate = 0.3;
  const RowSource one = open_rows(config), other = open_rows(config);
  const int64_t n = 3 * one.rows_per_epoch();
  RowBatch all, single;
  one.read(0, n, all);
  for (const int64_t i : {n - 1, int64_t{0}, n / 2, n - 2, n / 3, int64_t{1}}) {
    other.read(i, 1, single);
    EXPECT_TRUE(std::equal(single.ids.begin(), single.ids.end(), all.ids.begin() + i * all.length)) << i;
    EXPECT_EQ(single.valid[0], all.valid[static_cast<size_t>(i)]);
  }
}

TEST(PackedRows, NeighboursAndOrderChangeWithEpochAndSeed) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(1000, 1, 30));
  RowConfig config = config_of(folder.path(), 63);
  const auto epoch_of = [&](uint64_t seed, int64_t epoch) {
    config.seed = seed;
    const RowSource rows = open_rows(config);
    std::vector<std::vector<int32_t>> found;
    RowBatch row;
    for (int64_t i = 0; i < rows.rows_per_epoch(); ++i) {
      rows.read(epoch * rows.rows_per_epoch() + i, 1, row);
      found.push_back(row.ids);
    }
    return found;
  };
  const auto first = epoch_of(5, 0);
  for (const auto& other : {epoch_of(5, 1), epoch_of(6, 0)}) {
    ASSERT_EQ(other.size(), first.size());
    const std::set<std::vector<int32_t>> rows(first.begin(), first.end());
    EXPECT_LT(std::count_if(other.begin(), other.end(), [&](const auto& r) { return rows.contains(r); }), 5);
  }
}

TEST(PackedRows, SegmentStartIsThatOfThePieceAndOnlyWithTheMask) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(300, 1, 90));
  RowConfig config = config_of(folder.path(), 48, 1);
  RowBatch row;
  open_rows(config).read(3, 1, row);
  EXPECT_TRUE(row.segment_start.empty());
  config.mask_documents = true;
  open_rows(config).read(3, 1, row);
  EXPECT_EQ(row.segment_start, row.piece_start);
  EXPECT_GT(pieces(row).size(), 1u);
}

TEST(PackedRows, NeedDocumentsAndCountAsAnotherOrder) {
  const TemporaryFolder folder;
  write_file(folder / "a.bin", packed(std::vector<uint16_t>(100)));
  EXPECT_NE(error_of([&] { open_rows(config_of(folder / "a.bin", 10)); }).find("nothing to pack"),
            std::string::npos);
  write_data_set(folder / "b", numbered_documents(300, 1, 90));
  RowConfig config = config_of(folder / "b", 48);
  const RowSource rows = open_rows(config);
  EXPECT_GT(rows.sources()[0].filler, 0);
  EXPECT_LT(rows.sources()[0].filler, 0.05);
  EXPECT_DOUBLE_EQ(rows.epochs(0, rows.rows_per_epoch()), 1);
  config.packing = Packing::kStream;
  EXPECT_NE(rows.fingerprint(), open_rows(config).fingerprint());
}

}  // namespace
}  // namespace hadal
