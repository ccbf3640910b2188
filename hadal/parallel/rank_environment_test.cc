#include "hadal/parallel/rank_environment.h"

#include <gtest/gtest.h>

#include "hadal/error.h"

namespace hadal {
namespace {

TEST(RankEnvironment, WithoutALauncherAProcessIsAlone) {
  const RankInfo info = rank_info({{"HOME", "/home/x"}, {"SLURM_NTASKS", "8"}});
  EXPECT_EQ(info.size, 1);
  EXPECT_EQ(info.rank, 0);
  EXPECT_EQ(info.launcher, "");
}

TEST(RankEnvironment, OfTorchrun) {
  const RankInfo info = rank_info({{"RANK", "3"},
                                   {"WORLD_SIZE", "4"},
                                   {"LOCAL_RANK", "1"},
                                   {"LOCAL_WORLD_SIZE", "2"},
                                   {"MASTER_ADDR", "node7"},
                                   {"MASTER_PORT", "1234"},
                                   {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                   {"TORCHELASTIC_RESTART_COUNT", "2"}});
  EXPECT_EQ(info.rank, 3);
  EXPECT_EQ(info.size, 4);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.local_size, 2);
  EXPECT_EQ(info.host, "node7");
  EXPECT_EQ(info.port, 1234);
  EXPECT_TRUE(info.store_is_served);
  EXPECT_EQ(info.attempt, "2");
}

TEST(RankEnvironment, OfOpenMpiOnOneMachineNeedsNoAddress) {
  Environment e{{"OMPI_COMM_WORLD_RANK", "1"},
                {"OMPI_COMM_WORLD_SIZE", "2"},
                {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                {"PMIX_NAMESPACE", "prterun-host-77@1"}};
  const RankInfo info = rank_info(e);
  EXPECT_EQ(info.rank, 1);
  EXPECT_EQ(info.host, "127.0.0.1");
  e["PMIX_NAMESPACE"] = "prterun-host-78@1";
  EXPECT_NE(rank_info(e).port, info.port);  // two jobs on one machine do not meet
  e["OMPI_COMM_WORLD_LOCAL_SIZE"] = "1", e["OMPI_COMM_WORLD_LOCAL_RANK"] = "0";
  EXPECT_THROW(rank_info(e), Error);  // two machines: somebody must say where
  e["MASTER_ADDR"] = "10.0.0.1";
  EXPECT_EQ(rank_info(e).host, "10.0.0.1");
}

TEST(RankEnvironment, OfPmi) {
  const RankInfo info =
      rank_info({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "0"}, {"MPI_LOCALNRANKS", "2"}});
  EXPECT_EQ(info.size, 2);
  EXPECT_EQ(info.local_size, 2);
  EXPECT_EQ(info.launcher, "PMI");
}

TEST(RankEnvironment, OfSrunTakesTheFirstHostAndTheTasksOfItsNode) {
  const RankInfo info = rank_info({{"SLURM_PROCID", "4"},
                                   {"SLURM_STEP_NUM_TASKS", "5"},
                                   {"SLURM_LOCALID", "0"},
                                   {"SLURM_NODEID", "2"},
                                   {"SLURM_STEP_TASKS_PER_NODE", "2(x2),1"},
                                   {"SLURM_STEP_NODELIST", "gpu[07-09]"},
                                   {"SLURM_JOB_ID", "4711"}});
  EXPECT_EQ(info.rank, 4);
  EXPECT_EQ(info.size, 5);
  EXPECT_EQ(info.local_size, 1);
  EXPECT_EQ(info.host, "gpu07");
  EXPECT_EQ(first_host("a,b[1-2]"), "a");
  EXPECT_EQ(first_host("n[3,5],m1"), "n3");
}

TEST(RankEnvironment, TheScriptOfSbatchIsNoRank) {
  EXPECT_EQ(rank_info({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_ID", "1"}}).size, 1);
}

TEST(RankEnvironment, AWrongVariableIsNamed) {
  const auto error = [](const Environment& e) {
    try {
      rank_info(e);
      return std::string();
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  EXPECT_NE(error({{"RANK", "2"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "x"}}).find("RANK"),
            std::string::npos);
  EXPECT_NE(error({{"RANK", "0"}, {"WORLD_SIZE", "two"}}).find("WORLD_SIZE"), std::string::npos);
  EXPECT_NE(error({{"RANK", "0"}, {"WORLD_SIZE", "2"}}).find("MASTER_ADDR"), std::string::npos);
}

}  // namespace
}  // namespace hadal
