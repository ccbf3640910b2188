#include "hadal/engine/page_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "hadal/error.h"

namespace hadal {
namespace {

using Tokens = std::vector<int32_t>;

Tokens range(int32_t first, int32_t count) {
  Tokens tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

PageTable table_of(int64_t num_pages, int64_t page_tokens = 4) {
  return PageTable({.num_pages = num_pages, .page_tokens = page_tokens});
}

// Computes and keeps all tokens; returns how many were reused.
int64_t run(PageTable& table, SequenceId id, const Tokens& tokens) {
  const int64_t reused = table.open(id, tokens);
  EXPECT_TRUE(table.reserve(id, std::ssize(tokens)));
  table.commit(id, std::span(tokens).subspan(static_cast<size_t>(reused)));
  table.check();
  return reused;
}

Tokens pages_of(const PageTable& table, SequenceId id) {
  const auto pages = table.pages(id);
  return {pages.begin(), pages.end()};
}

TEST(PageTable, EqualPrefixSharesFullPagesOnly) {
  PageTable table = table_of(16);
  EXPECT_EQ(run(table, 1, range(0, 11)), 0);
  EXPECT_EQ(run(table, 2, range(0, 11)), 8);  // the third page was never full
  const Tokens a = pages_of(table, 1), b = pages_of(table, 2);
  EXPECT_EQ(a[0], b[0]);
  EXPECT_EQ(a[1], b[1]);
  EXPECT_NE(a[2], b[2]);
  EXPECT_FALSE(table.writable(2, 7));
  EXPECT_TRUE(table.writable(2, 11));
  EXPECT_EQ(table.num_used(), 4);
}

TEST(PageTable, SameTokensBehindAnotherPrefixAreAnotherPage) {
  PageTable table = table_of(16);
  Tokens first = range(0, 4), second = range(50, 4);
  for (int32_t t : range(100, 4)) first.push_back(t), second.push_back(t);
  run(table, 1, first);
  EXPECT_EQ(run(table, 2, second), 0);
  EXPECT_EQ(table.stats().joined, 0);
  EXPECT_EQ(table.num_used(), 4);
}

TEST(PageTable, CollidingHashesNeverGiveAWrongPrefix) {
  PageTable table({.num_pages = 256, .page_tokens = 2, .hash_mask = 0});  // every page has the same hash
  std::mt19937 random(7);
  std::map<Tokens, int32_t> page_of;  // by whole prefix
  for (SequenceId id = 0; id < 40; ++id) {
    Tokens tokens(10);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random() % 2);
    run(table, id, tokens);
    for (size_t i = 0; i < 5; ++i) {
      const Tokens prefix(tokens.begin(), tokens.begin() + 2 * (static_cast<int64_t>(i) + 1));
      const auto [known, is_new] = page_of.try_emplace(prefix, table.pages(id)[i]);
      EXPECT_EQ(known->second, table.pages(id)[i]);
    }
  }
  std::vector<int32_t> distinct;
  for (const auto& [prefix, page] : page_of) distinct.push_back(page);
  std::sort(distinct.begin(), distinct.end());
  EXPECT_EQ(std::unique(distinct.begin(), distinct.end()), distinct.end());
}

TEST(PageTable, ClosedSequenceLeavesItsFullPagesToTheNext) {
  PageTable table = table_of(8);
  run(table, 1, range(0, 10));
  const Tokens before = pages_of(table, 1);
  table.close(1);
  EXPECT_EQ(table.stats().cached, 2);
  EXPECT_EQ(table.stats().free, 6);
  const PrefixMatch match = table.match(range(0, 9));
  EXPECT_EQ(match.tokens, 8);
  EXPECT_EQ(match.used_pages, 0);
  EXPECT_EQ(run(table, 2, range(0, 9)), 8);
  EXPECT_EQ(pages_of(table, 2)[0], before[0]);
  EXPECT_EQ(table.stats().hits, 1);
  EXPECT_EQ(table.stats().reused_tokens, 8);
}

TEST(PageTable, FreedPagesAreGivenBeforeUntouchedAndCachedOnes) {
  PageTable table = table_of(4);
  run(table, 1, range(0, 3));  // never full, so free again
  const int32_t touched = table.pages(1)[0];
  table.close(1);
  run(table, 2, range(10, 4));
  EXPECT_EQ(table.pages(2)[0], touched);
  table.close(2);  // cached
  run(table, 3, range(20, 12));
  EXPECT_EQ(table.stats().evictions, 0);
  EXPECT_EQ(table.match(range(10, 4)).tokens, 4);
}

TEST(PageTable, EvictsTheLeastRecentlyUsedAndNeverAnAncestorFirst) {
  PageTable table = table_of(6);
  run(table, 1, range(0, 12));
  run(table, 2, range(100, 12));
  table.close(1);
  table.close(2);
  EXPECT_EQ(run(table, 3, range(0, 4)), 4);  // uses only the first page of 1
  table.close(3);
  // Oldest first: 1's third and second page, 2's third, second, first, 1's first.
  const std::vector<std::pair<int64_t, int64_t>> left = {{8, 12}, {4, 12}, {4, 8}, {4, 4}, {4, 0}, {0, 0}};
  table.open(9, {});
  for (int64_t taken = 1; taken <= 6; ++taken) {
    ASSERT_TRUE(table.reserve(9, 4 * taken));
    table.check();
    EXPECT_EQ(table.stats().evictions, taken);
    EXPECT_EQ(table.match(range(0, 12)).tokens, left[static_cast<size_t>(taken) - 1].first) << taken;
    EXPECT_EQ(table.match(range(100, 12)).tokens, left[static_cast<size_t>(taken) - 1].second) << taken;
  }
}

TEST(PageTable, PageComputedTwiceIsKeptOnce) {
  PageTable table = table_of(8);
  for (const SequenceId id : {1, 2}) {
    table.open(id, range(0, 8));
    ASSERT_TRUE(table.reserve(id, 8));
  }
  table.commit(1, range(0, 8));
  table.commit(2, range(0, 8));
  table.check();
  EXPECT_EQ(pages_of(table, 1), pages_of(table, 2));
  EXPECT_EQ(table.num_used(), 2);
  EXPECT_EQ(table.stats().joined, 2);
}

TEST(PageTable, ReservationIsAllOrNothing) {
  PageTable table = table_of(4);
  run(table, 1, range(0, 9));
  table.open(2, {});
  EXPECT_FALSE(table.reserve(2, 8));
  EXPECT_EQ(std::ssize(table.pages(2)), 0);
  EXPECT_EQ(table.num_available(), 1);
  EXPECT_TRUE(table.reserve(2, 4));
  EXPECT_TRUE(table.reserve(2, 3));  // has it
  EXPECT_THROW(table.commit(2, range(0, 5)), Error);
  EXPECT_THROW(PageTable({.num_pages = 0}), Error);
}

TEST(PageTable, TruncationReopensOwnPagesAndFallsBackBeforeSharedOnes) {
  PageTable table = table_of(8);
  run(table, 1, range(0, 11));
  EXPECT_EQ(table.truncate(1, 10), 10);  // the last page is its own
  EXPECT_TRUE(table.writable(1, 10));
  table.commit(1, range(70, 2));  // fills it: 8, 9, 70, 71
  Tokens changed = range(0, 10);
  changed.push_back(70), changed.push_back(71);
  EXPECT_EQ(table.match(changed).tokens, 12);
  EXPECT_EQ(table.truncate(1, 11), 8);  // published by now
  table.check();
  EXPECT_EQ(table.match(changed).tokens, 12);  // and stays for others
  ASSERT_TRUE(table.reserve(1, 12));
  EXPECT_TRUE(table.writable(1, 8));
  table.commit(1, range(8, 4));
  EXPECT_EQ(table.match(range(0, 12)).tokens, 12);
  EXPECT_EQ(table.match(changed).tokens, 12);
  table.check();
}

TEST(PageTable, ShiftMovesOwnPagesInPlaceAndSharedOnesElsewhere) {
  PageTable table = table_of(10);
  run(table, 1, range(0, 18));  // pages 0..3 published, 4 its own
  const Tokens before = pages_of(table, 1);
  const auto moves = table.shift(1, 4, 8);
  ASSERT_TRUE(moves);
  ASSERT_EQ(moves->size(), 2u);
  EXPECT_EQ((*moves)[0].from, before[3]);
  EXPECT_NE((*moves)[0].to, before[3]);
  EXPECT_EQ((*moves)[1].from, before[4]);
  EXPECT_EQ((*moves)[1].to, before[4]);
  EXPECT_EQ(table.num_tokens(1), 10);
  EXPECT_EQ(pages_of(table, 1), (Tokens{before[0], (*moves)[0].to, before[4]}));
  table.check();
  EXPECT_EQ(table.match(range(0, 18)).tokens, 16);  // untouched
  ASSERT_TRUE(table.reserve(1, 12));
  table.commit(1, range(18, 2));  // full, but its rows saw another prefix
  table.check();
  Tokens shifted = range(0, 4);
  for (int32_t t : range(12, 8)) shifted.push_back(t);
  EXPECT_EQ(table.match(shifted).tokens, 4);
  table.close(1);
  table.check();
  EXPECT_EQ(table.num_available(), 10);
}

TEST(PageTable, ShiftWithoutRoomForCopiesMovesInPlaceAndForgets) {
  PageTable table = table_of(3);
  run(table, 1, range(0, 12));
  const Tokens before = pages_of(table, 1);
  const auto moves = table.shift(1, 4, 4);
  ASSERT_TRUE(moves);
  EXPECT_EQ((*moves)[0].from, before[2]);
  EXPECT_EQ((*moves)[0].to, before[2]);
  EXPECT_EQ(table.match(range(0, 12)).tokens, 8);  // what went is still a prefix
  table.check();
}

TEST(PageTable, ShiftForgetsWhatIsCachedBehindAPageMovedInPlace) {
  PageTable table = table_of(5);
  run(table, 2, range(0, 16));
  table.close(2);
  table.open(1, range(0, 12));  // the fourth page stays cached behind it
  run(table, 3, range(50, 4));
  EXPECT_EQ(table.match(range(0, 16)).tokens, 16);
  ASSERT_EQ(table.num_available(), 1);  // two copies are wanted
  const Tokens before = pages_of(table, 1);
  const auto moves = table.shift(1, 0, 4);
  ASSERT_TRUE(moves);
  EXPECT_EQ((*moves)[0].to, before[1]);
  table.check();
  EXPECT_EQ(table.match(range(0, 16)).tokens, 4);
  EXPECT_EQ(table.num_available(), 2);
}

TEST(PageTable, ShiftOfSharedPagesWithoutRoomChangesNothing) {
  PageTable table = table_of(3);
  run(table, 1, range(0, 12));
  table.open(2, range(0, 12));
  const Tokens before = pages_of(table, 1);
  EXPECT_FALSE(table.shift(1, 4, 4));
  EXPECT_EQ(pages_of(table, 1), before);
  EXPECT_EQ(table.num_tokens(1), 12);
  table.check();
}

TEST(PageTable, ForgottenPagesAreNotFoundAndOpenSequencesGoOn) {
  PageTable table = table_of(8);
  run(table, 1, range(0, 9));
  run(table, 2, range(0, 9));
  run(table, 3, range(50, 8));
  table.close(3);
  table.forget();
  table.check();
  EXPECT_EQ(table.match(range(0, 9)).tokens, 0);
  EXPECT_EQ(table.stats().cached, 0);
  EXPECT_EQ(table.truncate(1, 6), 4);  // its second page is still shared with 2
  ASSERT_TRUE(table.reserve(1, 8));
  EXPECT_TRUE(table.writable(1, 4));
  table.commit(1, range(4, 4));
  EXPECT_EQ(table.match(range(0, 9)).tokens, 0);
  table.close(1);
  table.close(2);
  table.check();
  EXPECT_EQ(table.stats().free, 8);
}

TEST(PageTable, WithoutReuseNothingIsShared) {
  PageTable table({.num_pages = 8, .page_tokens = 4, .reuse_prefixes = false});
  run(table, 1, range(0, 8));
  EXPECT_EQ(run(table, 2, range(0, 8)), 0);
  EXPECT_EQ(table.num_used(), 4);
  table.close(1);
  EXPECT_EQ(table.stats().cached, 0);
}

TEST(PageTable, MisuseIsAnErrorNotACrash) {
  PageTable table = table_of(2);
  EXPECT_THROW(table.close(5), Error);
  EXPECT_THROW(table.pages(5), Error);
  table.open(5, {});
  EXPECT_THROW(table.open(5, {}), Error);
}

// What a page should hold, kept beside the table: the token and the whole prefix of each row.
struct RandomUse {
  PageTable table;
  std::mt19937 random;
  std::map<std::pair<int32_t, int64_t>, uint64_t> rows;  // (page, offset): hash of the tokens up to there
  std::map<SequenceId, Tokens> open;
  SequenceId next_id = 0;

  static uint64_t prefix_hash(const Tokens& tokens, size_t count) {
    uint64_t hash = 1;
    for (size_t i = 0; i < count; ++i)
      hash = hash * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(tokens[i]) + 1;
    return hash;
  }
  void expect_rows(SequenceId id) {
    const Tokens& tokens = open[id];
    const auto pages = table.pages(id);
    ASSERT_EQ(table.num_tokens(id), std::ssize(tokens));
    for (int64_t p = 0; p < std::ssize(tokens); ++p)
      ASSERT_EQ((rows[{pages[static_cast<size_t>(p / table.page_tokens())], p % table.page_tokens()}]),
                prefix_hash(tokens, static_cast<size_t>(p) + 1))
          << "sequence " << id << " row " << p;
  }
  void begin() {
    Tokens tokens(random() % 14);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random() % 2);
    const SequenceId id = next_id++;
    const int64_t reused = table.open(id, tokens);
    tokens.resize(static_cast<size_t>(reused));
    open[id] = tokens;
  }
  void extend(SequenceId id) {
    Tokens& tokens = open[id];
    Tokens fresh(1 + random() % 6);
    for (int32_t& t : fresh) t = static_cast<int32_t>(random() % 2);
    if (!table.reserve(id, std::ssize(tokens) + std::ssize(fresh))) return;
    const Tokens pages = pages_of(table, id);
    const size_t kept = random() % (fresh.size() + 1);  // the rest are drafts that fall
    for (size_t i = 0; i < fresh.size(); ++i) {
      const int64_t position = std::ssize(tokens);
      ASSERT_TRUE(table.writable(id, position));
      tokens.push_back(fresh[i]);
      rows[{pages[static_cast<size_t>(position / table.page_tokens())], position % table.page_tokens()}] =
          prefix_hash(tokens, tokens.size());
    }
    tokens.resize(tokens.size() - fresh.size() + kept);
    table.commit(id, std::span(fresh).first(kept));
  }
  void cut(SequenceId id) {
    const int64_t wanted = static_cast<int64_t>(random() % (open[id].size() + 1));
    const int64_t kept = table.truncate(id, wanted);
    EXPECT_TRUE(kept <= wanted && kept > wanted - table.page_tokens());
    open[id].resize(static_cast<size_t>(kept));
  }
  void end(SequenceId id) {
    table.close(id);
    open.erase(id);
  }
};

TEST(PageTable, RandomUseKeepsEveryRowAndLosesNoPage) {
  for (const uint64_t mask : {~uint64_t{0}, uint64_t{3}}) {
    RandomUse use{.table = PageTable({.num_pages = 24, .page_tokens = 3, .hash_mask = mask}),
                  .random = std::mt19937(static_cast<uint32_t>(mask))};
    for (int step = 0; step < 10'000; ++step) {
      const uint32_t what = use.random() % 10;
      if (use.open.empty() || (what < 2 && use.open.size() < 8)) {
        use.begin();
      } else {
        auto chosen = use.open.begin();
        std::advance(chosen, use.random() % use.open.size());
        const SequenceId id = chosen->first;
        what < 8 ? use.extend(id) : what == 8 ? use.cut(id) : use.end(id);
      }
      ASSERT_NO_THROW(use.table.check()) << "step " << step;
      for (const auto& [id, tokens] : use.open) use.expect_rows(id);
      if (HasFatalFailure()) return;
    }
    EXPECT_GT(use.table.stats().evictions, 100);
    EXPECT_GT(use.table.stats().reused_tokens, 100);
    EXPECT_GT(use.table.stats().joined, 10);
    while (!use.open.empty()) use.end(use.open.begin()->first);
    EXPECT_EQ(use.table.num_available(), 24);
  }
}

TEST(PageTable, GivesTheSamePagesForTheSameCalls) {
  std::vector<Tokens> seen;
  for (int repeat = 0; repeat < 2; ++repeat) {
    RandomUse use{.table = table_of(16, 3), .random = std::mt19937(11)};
    Tokens given;
    for (int step = 0; step < 500; ++step) {
      if (use.open.size() < 4) use.begin();
      for (const SequenceId id : {use.open.begin()->first, use.open.rbegin()->first}) {
        use.extend(id);
        for (const int32_t page : use.table.pages(id)) given.push_back(page);
      }
      if (step % 3 == 0) use.end(use.open.begin()->first);
    }
    seen.push_back(given);
  }
  EXPECT_EQ(seen[0], seen[1]);
}

}  // namespace
}  // namespace hadal
