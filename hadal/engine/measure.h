// Speed of the network and the engine on this machine, against what the machine can do. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "hadal/engine.h"

namespace hadal {

struct EngineBenchOptions {
  std::string work = "decode";  // prefill, decode, batch, spec
  int threads = 0;              // 0: one per core
  std::string cache_dtype = "auto";
  int64_t prompt_tokens = 512;  // prefill: of the prompt; decode, batch: already in the cache
  int64_t new_tokens = 64;      // decode, batch, spec: of each sequence
  int64_t sequences = 1;        // batch
  int64_t repeats = 5;          // the best one counts
};

struct EngineBenchResult {
  std::string work;
  int64_t prompt_tokens = 0, new_tokens = 0, sequences = 1;
  double tokens_per_second = 0, median_tokens_per_second = 0;  // of the best repeat, and of the median one
  double bytes_per_token = 0;                                  // weights and cache read, divided by tokens
  double bandwidth_share = 0;                                  // of read_bandwidth
  double flops_per_token = 0;          // 2 a multiply-add of the products that were done
  double peak_share = 0;               // of fma_peak
  double acceptance = 0, speedup = 0;  // spec: drafts that stood; against the same without drafts
  uint64_t hash = 0;                   // of the last logits: equal on every repeat, batch and thread count
};

// bytes/s and FLOP/s of all threads together, measured before the work.
struct MachineSpeed {
  double read_bandwidth = 0, fma_peak = 0;
  int threads = 1;
};
MachineSpeed measure_machine(int threads);

// Throws what Engine::open throws; invalid_argument for unknown work, or what does not fit the context.
EngineBenchResult bench_engine(const std::filesystem::path& model, const EngineBenchOptions& options,
                               const MachineSpeed& machine);

}  // namespace hadal
