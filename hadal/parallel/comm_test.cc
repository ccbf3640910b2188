#include "hadal/parallel/comm.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <numeric>
#include <thread>

#include "hadal/parallel/peer_lost.h"
#include "hadal/parallel/tree_sum.h"

namespace hadal {
namespace {

float term(int64_t rank, int64_t i) {
  return std::sin(static_cast<float>(7 * i + 3 * rank)) * std::pow(10.0f, static_cast<float>(i % 5));
}

TEST(Comm, GatherHandsEveryRankEachRanksBytesInRankOrder) {
  run_ranks(3, [](Comm& comm) {
    const auto mine = static_cast<int32_t>(10 + comm.rank());
    int32_t all[3] = {};
    all_gather(comm, &mine, sizeof mine, all);
    EXPECT_EQ((std::vector<int32_t>(all, all + 3)), (std::vector<int32_t>{10, 11, 12}));
    const auto texts = all_gather_bytes(comm, std::string(static_cast<size_t>(comm.rank()), 'x'));
    EXPECT_EQ(texts, (std::vector<std::string>{"", "x", "xx"}));
  });
}

TEST(Comm, BroadcastGivesAllWhatTheRootHas) {
  run_ranks(3, [](Comm& comm) {
    EXPECT_EQ(broadcast_bytes(comm, comm.rank() == 1 ? "from one" : "another text", 1), "from one");
  });
}

TEST(Comm, SendArrivesInOrder) {
  run_ranks(2, [](Comm& comm) {
    for (int32_t i = 0; i < 5; ++i) {
      int32_t value = comm.rank() == 0 ? i : -1;
      comm.rank() == 0 ? send(comm, 1, &value, sizeof value) : receive(comm, 0, &value, sizeof value);
      EXPECT_EQ(value, i);
    }
  });
}

TEST(Comm, AllReduceIsTheSameTreeOfRanksOnEveryRank) {
  for (const int64_t ranks : {1, 2, 3, 4, 5}) {
    constexpr int64_t kValues = 37;
    std::vector<float> want;
    for (int64_t i = 0; i < kValues; ++i) {
      TreeSum<float> sum(ranks, [](float& a, float&& b) { a += b; });
      for (int64_t r = 0; r < ranks; ++r) sum.push(r, r + 1, term(r, i));
      want.push_back(sum.pieces().front().value);
    }
    run_ranks(ranks, [&](Comm& comm) {
      std::vector<float> values;
      for (int64_t i = 0; i < kValues; ++i) values.push_back(term(comm.rank(), i));
      all_reduce(comm, values);
      EXPECT_EQ(values, want) << ranks;
    });
  }
}

TEST(Comm, BarrierHoldsUntilTheLastRankComes) {
  std::atomic<int> arrived{0};
  run_ranks(3, [&](Comm& comm) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10 * comm.rank()));
    ++arrived;
    barrier(comm);
    EXPECT_EQ(arrived, 3);
  });
}

TEST(Comm, AFailedRankEndsTheOthersWaitAndItsErrorIsTheJobs) {
  std::atomic<int> lost{0};
  const auto body = [&](Comm& comm) {
    if (comm.rank() == 1) throw std::runtime_error("the cause");
    try {
      barrier(comm);
    } catch (const PeerLost& e) {
      EXPECT_EQ(e.peer(), 1);
      ++lost;
      throw;
    }
  };
  EXPECT_THROW(
      {
        try {
          run_ranks(3, body);
        } catch (const std::runtime_error& e) {
          EXPECT_STREQ(e.what(), "the cause");
          throw;
        }
      },
      std::runtime_error);
  EXPECT_EQ(lost, 2);
}

TEST(Comm, ASilentRankIsNamedAfterTheTimeout) {
  std::atomic<bool> done{false};
  const auto body = [&](Comm& comm) {
    if (comm.rank() == 1) {
      while (!done) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      return;
    }
    try {
      barrier(comm);
    } catch (...) {
      done = true;
      throw;
    }
  };
  try {
    run_ranks(2, body, /*timeout_seconds=*/0.05);
    FAIL() << "no error";
  } catch (const PeerLost& e) {
    EXPECT_NE(std::string(e.what()).find("rank 1 has not answered"), std::string::npos) << e.what();
  }
}

TEST(Comm, RanksThatDifferAreNamed) {
  const auto body = [](Comm& comm) { require_same(comm, "the seed", comm.rank() == 2 ? "8" : "7"); };
  try {
    run_ranks(3, body);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("the seed of rank 2"), std::string::npos) << e.what();
  }
}

TEST(TreeSum, IsTheSameBitsHoweverTheTermsAreDealtOut) {
  for (int64_t n = 1; n <= 20; ++n) {
    const auto add = [](float& a, float&& b) { a += b; };
    TreeSum<float> whole(n, add);
    for (int64_t i = 0; i < n; ++i) whole.push(i, i + 1, term(0, i));
    ASSERT_EQ(whole.pieces().size(), 1u) << n;
    for (int64_t ranks = 1; ranks <= 7; ++ranks) {
      TreeSum<float> joined(n, add);
      for (int64_t r = 0; r < ranks; ++r) {
        TreeSum<float> part(n, add);
        for (int64_t i = n * r / ranks; i < n * (r + 1) / ranks; ++i) part.push(i, i + 1, term(0, i));
        for (auto& piece : part.pieces()) joined.push(piece.first, piece.last, piece.value);
      }
      ASSERT_EQ(joined.pieces().size(), 1u) << n << " " << ranks;
      EXPECT_EQ(joined.pieces().front().value, whole.pieces().front().value) << n << " " << ranks;
    }
  }
}

TEST(TreeSum, OfFourIsPairsAndOfThreeIsAPairAndOne) {
  const auto text = [](int64_t n) {
    TreeSum<std::string> sum(n, [](std::string& a, std::string&& b) { a = "(" + a + b + ")"; });
    for (int64_t i = 0; i < n; ++i) sum.push(i, i + 1, std::to_string(i));
    return sum.pieces().front().value;
  };
  EXPECT_EQ(text(4), "((01)(23))");
  EXPECT_EQ(text(3), "((01)2)");
  EXPECT_EQ(text(7), "(((01)(23))((45)6))");
}

}  // namespace
}  // namespace hadal
