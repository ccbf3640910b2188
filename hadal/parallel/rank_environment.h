// Which rank a process is, from what its launcher put into the environment. Torch-free.
#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace hadal {

using Environment = std::map<std::string, std::string>;

struct RankInfo {
  int64_t rank = 0, size = 1;
  int64_t local_rank = 0, local_size = 1;  // on this machine
  std::string host = "127.0.0.1";          // where the ranks find each other: rank 0's machine
  int64_t port = 29500;
  bool store_is_served = false;  // by the launcher (torchrun); else rank 0 serves it
  std::string attempt = "0";     // differs between restarts that share a store
  std::string launcher;          // "torchrun", "Open MPI", "PMI", "Slurm"; "": a process alone
};

// The first of these that is there: RANK and WORLD_SIZE (torchrun, hadal launch), OMPI_COMM_WORLD_*, PMI_*,
// SLURM_PROCID with SLURM_STEP_NUM_TASKS (srun; not the script of sbatch itself). MASTER_ADDR and MASTER_PORT
// go before what is found otherwise. Throws invalid_argument naming the variable.
RankInfo rank_info(const Environment& environment);

Environment process_environment();

// The first host of Slurm's notation: "n[07-09,12],m1" -> "n07".
std::string first_host(const std::string& list);

}  // namespace hadal
