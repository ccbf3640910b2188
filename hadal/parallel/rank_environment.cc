#include "hadal/parallel/rank_environment.h"

#include <unistd.h>

#include <charconv>
#include <cstring>

#include "hadal/base/text.h"
#include "hadal/error.h"

extern char** environ;

namespace hadal {
namespace {

class Reader {
 public:
  explicit Reader(const Environment& environment) : environment_(environment) {}

  bool has(const std::string& name) const { return !text(name).empty(); }
  std::string text(const std::string& name, const std::string& otherwise = "") const {
    const auto found = environment_.find(name);
    return found == environment_.end() || found->second.empty() ? otherwise : found->second;
  }
  int64_t number(const std::string& name, int64_t least, int64_t most) const {
    const std::string value = text(name);
    int64_t out = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), out);
    if (error != std::errc() || end != value.data() + value.size() || out < least || out > most)
      throw Error(
          ErrorCode::kInvalidArgument,
          cat("[parallel.ranks] the environment's ", name, " is wrong: got \"", value,
              "\", need an integer from ", least, " to ", most, ". Is the launcher's environment complete?"));
    return out;
  }
  int64_t number_or(const std::string& name, int64_t least, int64_t most, int64_t otherwise) const {
    return has(name) ? number(name, least, most) : otherwise;
  }

 private:
  const Environment& environment_;
};

constexpr int64_t kMost = int64_t{1} << 20;

// A port that differs between jobs on the same machine, from what names the job.
int64_t port_of(const std::string& job) {
  uint32_t hash = 2166136261u;  // FNV-1a
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return job.empty() ? 29500 : 20000 + hash % 10000;
}

// Names of the variables of one launcher.
struct Names {
  const char *launcher, *rank, *size, *local_rank, *local_size, *job;
};
constexpr Names kLaunchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", ""},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_NAMESPACE"},
    {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "PMI_ID"},
    {"Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "", "SLURM_JOB_ID"},
};

// Tasks on node `node` of "2(x3),1": the number on each.
int64_t slurm_tasks_on(const std::string& list, int64_t node, int64_t otherwise) {
  for (size_t at = 0; at < list.size();) {
    size_t end = list.find(',', at);
    if (end == std::string::npos) end = list.size();
    int64_t tasks = 0, times = 1;
    const std::string part = list.substr(at, end - at);
    std::from_chars(part.data(), part.data() + part.size(), tasks);
    if (const size_t x = part.find("(x"); x != std::string::npos)
      std::from_chars(part.data() + x + 2, part.data() + part.size(), times);
    if (node < times) return tasks > 0 ? tasks : otherwise;
    node -= times;
    at = end + 1;
  }
  return otherwise;
}

void find_meeting_place(const Names& names, const Reader& e, RankInfo& info) {
  const bool torchrun = info.launcher == "torchrun", slurm = info.launcher == "Slurm";
  if (e.has("MASTER_ADDR")) {
    info.host = e.text("MASTER_ADDR");
  } else if (slurm) {
    info.host = first_host(e.text("SLURM_STEP_NODELIST", e.text("SLURM_JOB_NODELIST", "127.0.0.1")));
  } else if (info.size > 1 && (torchrun || info.local_size < info.size)) {
    throw Error(ErrorCode::kInvalidArgument,
                cat("[parallel.ranks] ", info.launcher, " started ", info.size,
                    " ranks, but MASTER_ADDR is not set. Set it to the address of rank 0's machine on every "
                    "rank (mpirun -x MASTER_ADDR=...)."));
  }
  info.port = e.number_or("MASTER_PORT", 1, 65535, port_of(*names.job ? e.text(names.job) : ""));
}

}  // namespace

std::string first_host(const std::string& list) {
  const size_t comma = list.find(','), bracket = list.find('[');
  if (bracket == std::string::npos || comma < bracket) return list.substr(0, comma);
  const std::string inside = list.substr(bracket + 1);
  return list.substr(0, bracket) + inside.substr(0, inside.find_first_of(",-]"));
}

RankInfo rank_info(const Environment& environment) {
  const Reader e(environment);
  for (const Names& names : kLaunchers) {
    if (!e.has(names.rank) || !e.has(names.size)) continue;
    RankInfo info{.launcher = names.launcher};
    info.size = e.number(names.size, 1, kMost);
    info.rank = e.number(names.rank, 0, info.size - 1);
    info.local_rank = e.number_or(names.local_rank, 0, info.size - 1, info.rank);
    info.local_size = *names.local_size ? e.number_or(names.local_size, 1, info.size, info.size)
                                        : slurm_tasks_on(e.text("SLURM_STEP_TASKS_PER_NODE"),
                                                         e.number_or("SLURM_NODEID", 0, kMost, 0), info.size);
    find_meeting_place(names, e, info);
    info.store_is_served = e.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
    info.attempt = e.text("TORCHELASTIC_RESTART_COUNT", "0");
    return info;
  }
  return {};
}

Environment process_environment() {
  Environment out;
  for (char** at = environ; *at; ++at)
    if (const char* equals = std::strchr(*at, '='))
      out[std::string(static_cast<const char*>(*at), equals)] = equals + 1;
  return out;
}

}  // namespace hadal
