#include "hadal/data/rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <map>
#include <set>

#include "hadal/error.h"
#include "tests/support/data_sets.h"

namespace hadal {
namespace {

RowConfig config_of(const std::filesystem::path& path, int64_t length, int64_t extra = 0) {
  RowConfig config;
  config.sources = {{path.string()}};
  config.length = length, config.extra = extra, config.seed = 5;
  return config;
}

std::vector<int32_t> row(const RowSource& rows, int64_t number) {
  RowBatch batch;
  rows.read(number, 1, batch);
  return batch.ids;
}

// How often each token is a target of rows [first, last), the extra ones left out.
std::map<int32_t, int64_t> targets(const RowSource& rows, const RowConfig& config, int64_t first,
                                   int64_t last) {
  std::map<int32_t, int64_t> count;
  for (int64_t i = first; i < last; ++i) {
    const auto ids = row(rows, i);
    for (int64_t t = 1; t <= config.length; ++t) ++count[ids[static_cast<size_t>(t)]];
  }
  return count;
}

struct Case {
  int64_t documents, shortest, longest, length, extra;
  bool mask;
};

class EveryTokenOnce : public testing::TestWithParam<Case> {};

// After rows that cover whole epochs exactly, every token of every document was a target once per epoch, and
// EOS once per document; but for the first token of all, and what the last row takes of the next epoch.
TEST_P(EveryTokenOnce, IsATargetInEachEpoch) {
  const Case c = GetParam();
  const TemporaryFolder folder;
  const Documents documents = numbered_documents(c.documents, c.shortest, c.longest);
  write_data_set(folder.path(), documents);
  RowConfig config = config_of(folder.path(), c.length, c.extra);
  config.mask_documents = c.mask;
  const RowSource rows = open_rows(config);
  const int64_t tokens = rows.tokens_per_epoch(), epochs = 3;
  int64_t expected_tokens = c.documents;
  for (const auto& document : documents) expected_tokens += static_cast<int64_t>(document.size());
  ASSERT_EQ(tokens, expected_tokens);

  const int64_t last = (epochs * tokens + c.length - 1) / c.length;
  const int64_t beyond = last * c.length - (epochs * tokens - 1);  // targets of the next epoch
  auto count = targets(rows, config, 0, last);
  int64_t missing = 0, more = 0;
  for (const auto& document : documents)
    for (const int32_t id : document) {
      missing += std::max<int64_t>(0, epochs - count[id]);
      more += std::max<int64_t>(0, count[id] - epochs);
      EXPECT_LE(count[id], epochs + 1) << id;
    }
  EXPECT_LE(missing, 1);  // the first of all
  EXPECT_LE(more, beyond);
  int64_t all = 0;
  for (const auto& [id, n] : count) all += n;
  EXPECT_EQ(all, last * c.length);
  EXPECT_NEAR(static_cast<double>(count[1]), static_cast<double>(epochs * c.documents),
              static_cast<double>(beyond));
}

INSTANTIATE_TEST_SUITE_P(Shapes, EveryTokenOnce,
                         testing::Values(Case{1, 1000, 1000, 16, 0, false},
                                         Case{1, 1000, 1000, 1000, 0, false}, Case{300, 1, 9, 7, 0, true},
                                         Case{300, 1, 9, 64, 2, false}, Case{1000, 1, 3, 5, 1, false},
                                         Case{513, 2, 40, 128, 3, true}, Case{2, 500, 700, 33, 1, true},
                                         Case{17, 1, 5, 3, 0, false}, Case{257, 1, 1, 1, 0, false}));

// A text of one long document in memory: each epoch predicts each token once, in another order, whatever was
// read before, and none of what is held out.
TEST(Rows, OfTokensInMemoryPredictEachTokenOncePerEpochToo) {
  auto ids = std::make_shared<std::vector<int32_t>>(1000);
  for (int32_t i = 0; i < 1000; ++i) (*ids)[static_cast<size_t>(i)] = i;
  RowConfig config = config_of("a text", 16, 1);
  config.sources[0].ids = ids;
  config.held_out_share = 0.1;
  const RowSource rows = open_rows(config);
  EXPECT_EQ(rows.sources()[0].format, "text");
  EXPECT_EQ(rows.tokens_per_epoch(), 900);
  EXPECT_EQ(open_held_out_rows(config).num_tokens(), 99);
  const int64_t last = (2 * 900 + 15) / 16;  // rows of two epochs
  int64_t missing = 0, more = 0, all = 0, in_order = 0;
  auto count = targets(rows, config, 0, last);
  for (int32_t id = 0; id < 900; ++id) {
    missing += std::max<int64_t>(0, 2 - count[id]), more += std::max<int64_t>(0, count[id] - 2);
    all += count[id];
  }
  EXPECT_LE(missing, 1);                     // the first of all
  EXPECT_LE(more, last * 16 - 2 * 900 + 1);  // of the third epoch, in the last row
  EXPECT_EQ(all, last * 16);
  for (int64_t i = 1; i < last; ++i) in_order += row(rows, i)[0] == row(rows, i - 1)[16];
  EXPECT_LT(in_order, 10);

  const RowSource other = open_rows(config);
  EXPECT_EQ(row(other, 77), row(rows, 77));
  const std::string print = rows.fingerprint();
  EXPECT_EQ(other.fingerprint(), print);
  (*ids)[500] = 7;
  EXPECT_NE(open_rows(config).fingerprint(), print);
}

// Consecutive rows of the stream overlap by one token and the extra ones: each row, shuffled or not, is a
// piece of the documents in some order, each followed by EOS.
TEST(Rows, AreDocumentsWithEosBetween) {
  const TemporaryFolder folder;
  const Documents documents = numbered_documents(300, 1, 9);
  write_data_set(folder.path(), documents);
  std::map<int32_t, int32_t> after;  // each token's follower
  for (const auto& document : documents)
    for (size_t i = 0; i < document.size(); ++i)
      after[document[i]] = i + 1 < document.size() ? document[i + 1] : 1;
  const RowSource rows = open_rows(config_of(folder.path(), 40, 2));
  for (int64_t i = 0; i < 2 * rows.rows_per_epoch(); ++i) {
    const auto ids = row(rows, i);
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      if (ids[t] != 1) {
        EXPECT_EQ(ids[t + 1], after[ids[t]]);
        continue;
      }
      bool starts = false;
      for (const auto& document : documents) starts |= document[0] == ids[t + 1];
      EXPECT_TRUE(starts) << ids[t + 1];
    }
  }
}

TEST(Rows, DoNotDependOnWhatWasReadBefore) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(700, 1, 30));
  RowConfig config = config_of(folder.path(), 24, 1);
  config.fim_rate = 0.3;
  const RowSource one = open_rows(config);
  const int64_t n = 3 * one.rows_per_epoch();
  RowBatch all;
  one.read(0, n, all);
  const RowSource other = open_rows(config);
  for (const int64_t i : {n - 1, int64_t{0}, n / 2, n - 2, n / 3, int64_t{1}}) {
    const auto ids = row(other, i);
    EXPECT_TRUE(std::equal(ids.begin(), ids.end(), all.ids.begin() + i * all.length)) << i;
  }
}

TEST(Rows, OrderChangesWithEpochAndSeed) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(400, 10, 10));
  RowConfig config = config_of(folder.path(), 11);
  const RowSource rows = open_rows(config);
  ASSERT_EQ(rows.tokens_per_epoch(), 4400);
  ASSERT_EQ(rows.rows_per_epoch(), 400);
  config.seed = 6;
  const RowSource other = open_rows(config);
  int same_epoch = 0, same_seed = 0, in_order = 0;
  for (int64_t i = 0; i < 400; ++i) {
    same_epoch += row(rows, i) == row(rows, 400 + i);
    same_seed += row(rows, i) == row(other, i);
    in_order += i > 0 && row(rows, i)[0] == row(rows, i - 1)[11];
  }
  EXPECT_LT(same_epoch, 20);
  EXPECT_LT(same_seed, 20);
  EXPECT_LT(in_order, 20);
}

// Neighbours in the files are not neighbours in the stream, and another epoch has other neighbours.
TEST(Rows, DocumentsAreShuffledAnewEachEpoch) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(200, 9, 9));
  const RowSource rows = open_rows(config_of(folder.path(), 2000 - 1, 0));  // nearly an epoch a row
  const auto order = [&](int64_t number) {
    std::vector<int32_t> documents;
    for (const int32_t id : row(rows, number))
      if (id >= 10 && (documents.empty() || documents.back() != (id - 10) / 9))
        documents.push_back((id - 10) / 9);
    return documents;
  };
  const auto first = order(0), second = order(1);
  ASSERT_GE(std::min(first.size(), second.size()), 190u);
  int neighbours = 0, same = 0;
  for (size_t i = 1; i < 190; ++i) {
    neighbours += first[i] == first[i - 1] + 1;
    same += first[i] == second[i] || first[i] == second[i - 1];
  }
  EXPECT_LT(neighbours, 10);
  EXPECT_LT(same, 15);
}

TEST(Rows, FarRowsAreReadLikeNearOnes) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(300, 1, 9));
  const RowSource rows = open_rows(config_of(folder.path(), 16));
  const auto ids = row(rows, int64_t{1} << 50);
  EXPECT_EQ(ids.size(), 17u);
  EXPECT_EQ(ids, row(rows, int64_t{1} << 50));
}

TEST(Rows, SegmentStartIsTheFirstPositionOfTheDocumentInTheRow) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(300, 1, 9));
  RowConfig config = config_of(folder.path(), 30, 1);
  config.mask_documents = true;
  const RowSource rows = open_rows(config);
  RowBatch batch;
  rows.read(0, 40, batch);
  ASSERT_EQ(batch.segment_start.size(), batch.ids.size());
  for (int64_t i = 0; i < 40; ++i) {
    int32_t start = 0;
    for (int32_t t = 0; t < batch.length; ++t) {
      const auto at = static_cast<size_t>(i * batch.length + t);
      if (t > 0 && batch.ids[at - 1] == 1) start = t;
      ASSERT_EQ(batch.segment_start[at], start) << i << " " << t;
    }
  }
  config.mask_documents = false;
  open_rows(config).read(0, 3, batch);
  EXPECT_TRUE(batch.segment_start.empty());
}

// --- fill in the middle

TEST(Rows, FimDocumentsHoldTheirTokensInPsmOrderAndTheRateIsExact) {
  const TemporaryFolder folder;
  const Documents documents = numbered_documents(600, 3, 12);
  write_data_set(folder.path(), documents);
  RowConfig config = config_of(folder.path(), 50);
  config.fim_rate = 0.25;
  const RowSource rows = open_rows(config);
  EXPECT_EQ(rows.sources()[0].tokens_per_epoch,
            open_rows(config_of(folder.path(), 50)).tokens_per_epoch() + 150 * 3);
  // One epoch in stream order: rows by their first token's place are not known, so read one row that is all.
  config.length = rows.tokens_per_epoch() - 1;
  const RowSource whole = open_rows(config);
  const auto stream = row(whole, 0);
  std::map<int32_t, std::vector<int32_t>> by_first_id;
  for (const auto& document : documents) by_first_id[document[0]] = document;
  int64_t fim = 0, plain = 0;
  std::set<std::vector<int32_t>> seen;
  std::vector<int32_t> document;
  for (const int32_t id : stream) {
    if (id != 1) {
      document.push_back(id);
      continue;
    }
    std::vector<int32_t> restored = document;
    if (document[0] == 2) {
      ++fim;
      const auto hole = std::find(document.begin(), document.end(), 3);
      const auto end = std::find(document.begin(), document.end(), 4);
      ASSERT_TRUE(hole < end && end != document.end());
      restored.assign(document.begin() + 1, hole);
      restored.insert(restored.end(), end + 1, document.end());
      restored.insert(restored.end(), hole + 1, end);
    } else {
      ++plain;
    }
    EXPECT_EQ(restored, by_first_id[restored[0]]);
    seen.insert(restored);
    document.clear();
  }
  EXPECT_EQ(fim, 150);
  EXPECT_EQ(plain, 450);
  EXPECT_EQ(seen.size(), 600u);
}

TEST(Rows, FimChoosesOtherDocumentsEachEpoch) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(200, 5, 5));
  RowConfig config = config_of(folder.path(), 8);
  config.fim_rate = 0.5;
  const RowSource rows = open_rows(config);
  const auto chosen = [&](int64_t first) {
    std::set<int32_t> ids;  // a token of each document after FIM begin
    for (int64_t i = first; i < first + rows.rows_per_epoch(); ++i) {
      const auto r = row(rows, i);
      for (size_t t = 0; t + 1 < r.size(); ++t)
        if (r[t] == 2 && r[t + 1] > 4) ids.insert((r[t + 1] - 10) / 5);
    }
    return ids;
  };
  const auto first = chosen(0), second = chosen(rows.rows_per_epoch());
  std::vector<int32_t> both;
  std::set_intersection(first.begin(), first.end(), second.begin(), second.end(), std::back_inserter(both));
  EXPECT_GT(first.size(), 60u);
  EXPECT_LT(both.size(), first.size() * 52 / 100);  // the same choice: 69, an empty prefix hides some
}

TEST(Rows, FimNeedsItsTokens) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(20, 5, 5), {}, 100, {.vocab_size = 1000, .eos_id = 1});
  RowConfig config = config_of(folder.path(), 8);
  config.fim_rate = 0.5;
  EXPECT_NE(error_of([&] { open_rows(config); }).find("no FIM tokens are known"), std::string::npos);
}

// --- several sources

TEST(Rows, SourcesAreBlendedByWeightAndEachIsReadWithoutGaps) {
  const TemporaryFolder a, b, c;
  const Documents in_a = numbered_documents(50, 4, 9), in_b = numbered_documents(500, 4, 9, 10000),
                  in_c = numbered_documents(100, 4, 9, 20000);
  write_data_set(a.path(), in_a), write_data_set(b.path(), in_b), write_data_set(c.path(), in_c);
  RowConfig config = config_of(a.path(), 13);
  config.sources = {{a.path().string(), 0.5}, {b.path().string(), 0.3}, {c.path().string(), 0.2}};
  const RowSource rows = open_rows(config);
  RowConfig alone = config_of(a.path(), 13);
  const RowSource only_a = open_rows(alone);
  int64_t from[3] = {};
  for (int64_t i = 0; i < 1000; ++i) {
    const auto ids = row(rows, i);
    int32_t largest = *std::max_element(ids.begin(), ids.end());
    const int64_t source = largest >= 20000 ? 2 : largest >= 10000 ? 1 : 0;
    if (source == 0) {
      EXPECT_EQ(ids, row(only_a, from[0])) << i;
    }
    ++from[source];
    const double weights[] = {0.5, 0.3, 0.2};
    for (int s = 0; s < 3; ++s)
      ASSERT_LE(std::abs(static_cast<double>(from[s]) - weights[s] * static_cast<double>(i + 1)), 1.0) << i;
  }
  EXPECT_NEAR(rows.epochs(0, 1000),
              static_cast<double>(from[0] * 13) / static_cast<double>(only_a.tokens_per_epoch()), 1e-9);
}

TEST(Rows, WithoutWeightsSourcesAreReadInProportionToTheirTokens) {
  const TemporaryFolder a, b;
  write_data_set(a.path(), numbered_documents(100, 9, 9));
  write_data_set(b.path(), numbered_documents(300, 9, 9, 10000));
  RowConfig config = config_of(a.path(), 13);
  config.sources.push_back({b.path().string()});
  const RowSource rows = open_rows(config);
  EXPECT_DOUBLE_EQ(rows.sources()[0].share, 0.25);
  EXPECT_DOUBLE_EQ(rows.epochs(0, 4000), rows.epochs(1, 4000));
  config.sources[1].weight = 2;
  EXPECT_NE(error_of([&] { open_rows(config); }).find("give one to every source"), std::string::npos);
}

// --- held out

TEST(Rows, HeldOutDocumentsAreNeverTrainedOnAndReadOnceInOrder) {
  const TemporaryFolder folder;
  const Documents train = numbered_documents(100, 4, 9), held_out = numbered_documents(30, 4, 9, 10000);
  write_data_set(folder.path(), train, held_out);
  const RowConfig config = config_of(folder.path(), 16, 1);
  const RowSource rows = open_rows(config);
  for (const auto& [id, n] : targets(rows, config, 0, 3 * rows.rows_per_epoch())) EXPECT_LT(id, 10000);
  const HeldOutRows held = open_held_out_rows(config);
  std::vector<int32_t> stream, expected;
  for (const auto& document : held_out) {
    expected.insert(expected.end(), document.begin(), document.end());
    expected.push_back(1);
  }
  RowBatch batch;
  held.read(0, held.rows(), batch);
  ASSERT_EQ(batch.valid.size(), static_cast<size_t>(held.rows()));
  stream.push_back(batch.ids[0]);
  for (int64_t i = 0; i < held.rows(); ++i)
    for (int64_t t = 1; t <= std::min<int64_t>(16, batch.valid[static_cast<size_t>(i)] - 1); ++t)
      stream.push_back(batch.ids[static_cast<size_t>(i * batch.length + t)]);
  EXPECT_EQ(stream, expected);
  EXPECT_EQ(held.num_tokens(), static_cast<int64_t>(expected.size()) - 1);
  EXPECT_EQ(held.spread(1000000).size(), static_cast<size_t>(held.rows()));
  EXPECT_EQ(held.spread(2), (std::vector<int64_t>{0, held.rows() / 2}));
}

TEST(Rows, ShareOfTheTokensIsHeldOutOfFilesThatHaveNone) {
  const TemporaryFolder folder;
  std::vector<uint16_t> ids;
  for (int i = 0; i < 1000; ++i) ids.push_back(static_cast<uint16_t>(i));
  write_file(folder / "a.bin", packed(ids));
  RowConfig config = config_of(folder / "a.bin", 10);
  config.held_out_share = 0.1;
  const RowSource rows = open_rows(config);
  EXPECT_EQ(rows.tokens_per_epoch(), 900);
  for (const auto& [id, n] : targets(rows, config, 0, 200)) EXPECT_LT(id, 900);
  const HeldOutRows held = open_held_out_rows(config);
  EXPECT_EQ(held.num_tokens(), 99);
  RowBatch batch;
  held.read(0, 1, batch);
  EXPECT_EQ(batch.ids[0], 900);
}

TEST(Rows, ShareMayCutTheDocumentsOfManyShards) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(100, 4, 9));
  RowConfig config = config_of(folder.path(), 10);
  const int64_t documents = 100, tokens = open_rows(config).tokens_per_epoch() - documents;
  for (const double share : {0.01, 0.3, 0.5, 0.77}) {
    config.held_out_share = share;
    const RowSource rows = open_rows(config);
    const auto held_out = static_cast<int64_t>(share * static_cast<double>(tokens));
    std::set<int32_t> trained;
    for (const auto& [id, n] : targets(rows, config, 0, 3 * rows.rows_per_epoch()))
      if (id >= 10) trained.insert(id);
    EXPECT_EQ(static_cast<int64_t>(trained.size()), tokens - held_out);
    EXPECT_EQ(*trained.rbegin(), 10 + tokens - held_out - 1);
    RowBatch batch;
    open_held_out_rows(config).read(0, 1, batch);
    EXPECT_EQ(batch.ids[0], 10 + tokens - held_out);
  }
}

// --- other trainers' files, read directly

TEST(Rows, ForeignFilesAreReadAsTheyAre) {
  const TemporaryFolder folder;
  std::vector<uint16_t> ids;
  for (int i = 0; i < 500; ++i) ids.push_back(static_cast<uint16_t>(i));
  std::filesystem::create_directories(folder / "nano");
  write_file(folder / "nano/train.bin", packed(ids));
  write_file(folder / "nano/val.bin", packed(std::vector<uint16_t>{7, 8, 9}));
  write_file(folder / "llmc.bin", llm_c_shard(ids));
  std::vector<int32_t> wide(ids.begin(), ids.end());
  write_file(folder / "mega.bin", packed(wide));
  write_file(folder / "mega.idx", megatron_index<int32_t>(4, {100, 250, 150}));
  for (const char* name : {"nano", "llmc.bin", "mega.bin", "mega.idx"}) {
    const RowConfig config = config_of(folder / name, 20);
    const RowSource rows = open_rows(config);
    EXPECT_EQ(rows.tokens_per_epoch(), 500) << name;
    const auto count = targets(rows, config, 0, 50);
    EXPECT_GE(count.size(), 499u) << name;
  }
  EXPECT_EQ(open_rows(config_of(folder / "nano", 20)).vocab_size(), 500);
  EXPECT_EQ(open_held_out_rows(config_of(folder / "nano", 20)).num_tokens(), 2);  // val.bin
  EXPECT_EQ(open_rows(config_of(folder / "llmc.bin", 20)).vocab_size(), 50257);
  EXPECT_EQ(open_rows(config_of(folder / "mega.idx", 20)).sources()[0].documents, 3);
}

TEST(Rows, MaskNeedsDocuments) {
  const TemporaryFolder folder;
  write_file(folder / "a.bin", packed(std::vector<uint16_t>(100)));
  RowConfig config = config_of(folder / "a.bin", 10);
  config.mask_documents = true;
  EXPECT_NE(error_of([&] { open_rows(config); }).find("hadal data convert"), std::string::npos);
}

// --- fingerprint and errors

TEST(Rows, FingerprintChangesWithDataAndSettingsAndNotOtherwise) {
  const TemporaryFolder a, b;
  write_data_set(a.path(), numbered_documents(50, 4, 9));
  write_data_set(b.path(), numbered_documents(50, 4, 9));
  const RowConfig base = config_of(a.path(), 10);
  const std::string print = open_rows(base).fingerprint();
  EXPECT_EQ(print.size(), 64u);
  EXPECT_EQ(print, open_rows(config_of(b.path(), 10)).fingerprint());  // the same content elsewhere
  std::set<std::string> seen = {print};
  const auto changed = [&](auto change) {
    RowConfig config = base;
    change(config);
    EXPECT_TRUE(seen.insert(open_rows(config).fingerprint()).second);
  };
  changed([](RowConfig& c) { c.length = 11; });
  changed([](RowConfig& c) { c.extra = 1; });
  changed([](RowConfig& c) { c.seed = 6; });
  changed([](RowConfig& c) { c.fim_rate = 0.5; });
  changed([](RowConfig& c) { c.mask_documents = true; });
  changed([](RowConfig& c) { c.held_out_share = 0.1; });
  changed([](RowConfig& c) { c.sources.push_back(c.sources[0]); });
  Documents other = numbered_documents(50, 4, 9);
  other[20][2] = 3;
  write_data_set(b.path(), other);
  EXPECT_NE(print, open_rows(config_of(b.path(), 10)).fingerprint());
}

TEST(Rows, WrongSettingsAreRefusedByName) {
  const TemporaryFolder folder;
  write_data_set(folder.path(), numbered_documents(5, 4, 4));
  const auto error = [&](auto change) {
    RowConfig config = config_of(folder.path(), 10);
    change(config);
    return error_of([&] { open_rows(config); });
  };
  EXPECT_EQ(error([](RowConfig&) {}), "no error");
  const std::pair<const char*, std::function<void(RowConfig&)>> cases[] = {
      {"no sources", [](RowConfig& c) { c.sources.clear(); }},
      {"length: got 0", [](RowConfig& c) { c.length = 0; }},
      {"extra: got -1", [](RowConfig& c) { c.extra = -1; }},
      {"fim_rate: got 2", [](RowConfig& c) { c.fim_rate = 2; }},
      {"held_out_share: got 1", [](RowConfig& c) { c.held_out_share = 1; }},
      {"held_out_share: got nan", [](RowConfig& c) { c.held_out_share = NAN; }},
      {"weight: got -1", [](RowConfig& c) { c.sources[0].weight = -1; }},
      {"25 tokens to train on, need at least 26", [](RowConfig& c) { c.length = 25; }},
      {"need at most 50", [](RowConfig& c) { c.vocab_size = 50; }},
      {"Check the path", [](RowConfig& c) { c.sources[0].path = "/nowhere"; }},
  };
  for (const auto& [text, change] : cases) EXPECT_NE(error(change).find(text), std::string::npos) << text;
}

TEST(Rows, TokenOutsideTheVocabularyIsNamedWithFileAndByte) {
  const TemporaryFolder folder;
  std::vector<uint16_t> ids(100, 5);
  ids[70] = 300;
  write_file(folder / "a.bin", packed(ids));
  RowConfig config = config_of(folder / "a.bin", 99);
  config.vocab_size = 300;
  const RowSource rows = open_rows(config);
  const std::string error = error_of([&] { row(rows, 0); });
  EXPECT_NE(error.find("a.bin: byte 140: got token 300, need 0 to 299"), std::string::npos) << error;
}

TEST(Rows, SourcesOfDifferentTokenizersAreRefused) {
  const TemporaryFolder a, b;
  DatasetFacts facts{.vocab_size = 1000, .eos_id = 1};
  facts.tokenizer[0] = 1;
  write_data_set(a.path(), numbered_documents(20, 5, 5), {}, 100, facts);
  facts.tokenizer[0] = 2;
  write_data_set(b.path(), numbered_documents(20, 5, 5), {}, 100, facts);
  RowConfig config = config_of(a.path(), 10);
  config.sources.push_back({b.path().string()});
  EXPECT_NE(error_of([&] { open_rows(config); }).find("Build both with the same"), std::string::npos);
}

}  // namespace
}  // namespace hadal
