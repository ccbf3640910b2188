#include "hadal/parallel/mesh.h"

#include <gtest/gtest.h>

#include "hadal/error.h"
#include "hadal/parallel/peer_lost.h"

namespace hadal {
namespace {

std::string problem(auto&& act) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "no error";
}

std::vector<int64_t> ranks_in(Comm& group, int64_t me) {
  std::vector<int64_t> all(static_cast<size_t>(group.size()));
  all_gather(group, &me, sizeof me, all.data());
  EXPECT_EQ(all[static_cast<size_t>(group.rank())], me);
  return all;
}

using Ranks = std::vector<int64_t>;

TEST(Mesh, RankAndPlaceAreEachOthersInverse) {
  const MeshShape shape{.pipeline = 2, .data = 3, .tensor = 2};
  for (int64_t r = 0; r < shape.ranks(); ++r) EXPECT_EQ(rank_at(shape, place_of(shape, r)), r);
  EXPECT_EQ(place_of(shape, 9), (MeshPlace{.pipeline = 1, .data = 1, .tensor = 1}));
}

TEST(Mesh, GroupsAreTheRanksThatDifferInOneCoordinate) {
  const MeshShape shape{.pipeline = 2, .data = 2, .tensor = 2};
  run_ranks(8, [&](Comm& comm) {
    Mesh mesh(comm, shape);
    const int64_t r = comm.rank(), first = r / 4 * 4;
    EXPECT_EQ(ranks_in(mesh.pipeline(), r), (Ranks{r % 4, r % 4 + 4}));
    EXPECT_EQ(ranks_in(mesh.data(), r), (Ranks{first + r % 2, first + r % 2 + 2}));
    EXPECT_EQ(ranks_in(mesh.tensor(), r), (Ranks{r / 2 * 2, r / 2 * 2 + 1}));
  });
}

TEST(Mesh, ExpertsAreSpreadOverBlocksOfNeighboursAndRepeatedInEachBlock) {
  const MeshShape shape{.pipeline = 2, .data = 4, .experts = 2};
  run_ranks(8, [&](Comm& comm) {
    Mesh mesh(comm, shape);
    const int64_t r = comm.rank(), first = r / 4 * 4;
    EXPECT_EQ(ranks_in(mesh.experts(), r), (Ranks{r / 2 * 2, r / 2 * 2 + 1}));
    EXPECT_EQ(ranks_in(mesh.expert_data(), r), (Ranks{first + r % 2, first + r % 2 + 2}));
  });
}

TEST(Mesh, DataRanksAreWhatTheOthersLeave) {
  EXPECT_EQ(mesh_shape(12, 2, 3, 1), (MeshShape{.pipeline = 2, .data = 6, .experts = 3, .tensor = 1}));
  EXPECT_EQ(problem([] { mesh_shape(6, 2, 1, 2); }),
            "[parallel.mesh] 6 ranks are no multiple of pipeline 2 x tensor 2 = 4. Start a multiple, or "
            "change parallel.pipeline or parallel.tensor.");
  EXPECT_NE(problem([] { mesh_shape(2, 4, 1, 1); }).find("2 ranks are no multiple of pipeline 4"),
            std::string::npos);
  EXPECT_NE(problem([] { mesh_shape(8, 2, 3, 1); }).find("spread over 3 of 4 data ranks"), std::string::npos);
  EXPECT_NE(problem([] { mesh_shape(2, 1, 0, 1); }).find("experts 0"), std::string::npos);
}

TEST(Mesh, AnotherNumberOfRanksIsRefused) {
  const auto body = [](Comm& comm) { Mesh(comm, {.pipeline = 2, .data = 2}); };
  EXPECT_EQ(problem([&] { run_ranks(2, body); }),
            "[parallel.mesh] pipeline 2 x data 2 x tensor 1 = 4 ranks, but there are 2.");
}

TEST(GroupComm, MayListItsMembersInAnyOrder) {
  run_ranks(3, [](Comm& comm) {
    if (comm.rank() == 1) return;
    GroupComm group(comm, {2, 0});
    EXPECT_EQ(group.rank(), comm.rank() == 2 ? 0 : 1);
    EXPECT_EQ(ranks_in(group, comm.rank()), (Ranks{2, 0}));
  });
}

TEST(GroupComm, ALostMemberIsNamedByItsRankInTheJob) {
  const auto body = [](Comm& comm) {
    if (comm.rank() == 0) return;
    if (comm.rank() == 2) throw std::runtime_error("the cause");
    GroupComm group(comm, {1, 2});
    try {
      barrier(group);
      ADD_FAILURE() << "no error";
    } catch (const PeerLost& e) {
      EXPECT_EQ(e.peer(), 2);
    }
  };
  EXPECT_THROW(run_ranks(3, body), std::runtime_error);
}

}  // namespace
}  // namespace hadal
