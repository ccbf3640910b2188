// N processes of one command on this machine, as ranks of a job. Torch-free.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace hadal {

struct LaunchConfig {
  int64_t ranks = 1;
  std::vector<std::string> command;  // program and its arguments
  int64_t max_restarts = 0;          // of all ranks, after a failure
  double grace_seconds = 1;          // between the first failure and the end of all: SIGTERM, then SIGKILL
};

// Runs them with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, and hands
// on what they write, each line after its rank: "[2] text". SIGINT, SIGTERM, SIGHUP and SIGUSR1 are passed
// on. The first rank that fails ends all, and is named on stderr; a rank that only lost its peers is not the
// cause. With max_restarts all are started again then, so often at most and each time said; not if a signal
// was to stop them, or a rank ends with 75, which says the same. None outlives this process, whatever ends
// it. Returns 0, the cause's exit code, or 128 + its signal; with restarts those of the last start.
int launch(const LaunchConfig& config);

}  // namespace hadal
