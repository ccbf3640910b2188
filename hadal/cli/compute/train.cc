// hadal train: a model from text or tokens.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "hadal/base/text.h"
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"
#include "hadal/parallel/gloo.h"
#include "hadal/parallel/peer_lost.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

// Of this rank, where several share a machine and nobody said otherwise.
int64_t threads_of(const TrainConfig& config, const RankInfo& info) {
  if (config.run.threads > 0 || info.local_size == 1) return config.run.threads;
  return std::max<int64_t>(1, std::thread::hardware_concurrency() / info.local_size);
}

// "4 ranks (hadal launch), pipeline of 2 (zb-v), experts over 2, the optimizer's state is shared out"
std::string layout_text(const TrainConfig& config, const RankInfo& info) {
  const ParallelSection& p = config.parallel;
  std::string text = cat(info.size, " ranks (", info.launcher, ")");
  if (p.pipeline > 1) text += cat(", pipeline of ", p.pipeline, " (", p.schedule, ")");
  if (p.experts > 1) text += cat(", experts over ", p.experts);
  if (p.tensor > 1) text += cat(", heads and columns over ", p.tensor);
  return text + (p.shard_optimizer ? ", the optimizer's state is shared out" : "");
}

int train_as_rank(const TrainConfig& config, const TrainFlags& flags, const RankInfo& info) {
  // Not destroyed after a loss: closing connections may wait for the peer that is silent.
  std::unique_ptr<Comm> comm;
  try {
    comm = connect_gloo(info, config.parallel.timeout_seconds);
    if (info.rank == 0) std::fprintf(stderr, "%s\n", layout_text(config, info).c_str());
    return train_in_folder(config, flags, comm.get()).exit_code();
  } catch (const PeerLost& e) {
    std::fprintf(stderr, "hadal: %s\n", e.what());
    std::fflush(nullptr);
    std::_Exit(kPeerLostExit);
  }
}

}  // namespace

int run_train(const TrainOptions& o) {
  const TrainConfig config = train_config_of(o);
  if (o.print_reference) {
    print(train_config_reference());
    return 0;
  }
  if (o.print_config) {
    print(train_config_toml(config));
    return 0;
  }
  check(config, o.config.empty() ? "the command line" : o.config);
  const RankInfo info = rank_info(process_environment());
  use_threads(threads_of(config, info));
  // Who recomputes wants memory back.
  if (config.compute.recompute != "none") return_freed_memory();
  if (o.dry_run) {
    print_dry_run(config, info);
    return 0;
  }
  const TrainFlags flags{.force_config = o.force_config, .restart = o.restart};
  if (info.size > 1 && config.compute.device != "cpu")
    throw Error(ErrorCode::kUnsupported,
                cat("[cli.train] compute.device is ", config.compute.device, " and there are ", info.size,
                    " ranks: NCCL is not here yet, a GPU trains in one process. Run without a launcher, or ",
                    "with compute.device cpu."));
  if (info.size > 1) return train_as_rank(config, flags, info);
  return train_in_folder(config, flags).exit_code();
}

}  // namespace hadal
