// How a model is spread over GPUs, and the rules that a layout keeps. Torch-free.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/config.h"
#include "hadal/config/recompute.h"
#include "hadal/parallel/schedule.h"
#include "hadal/planner/cluster_facts.h"

namespace hadal {

// Ranks are pp x dp x tp. Experts are spread over groups of ep of the dp ranks. tp cuts heads, dense and
// shared FFNs and shares the tokens for the experts.
struct ClusterLayout {
  int64_t pp = 1, ep = 1, dp = 1, tp = 1;
  ScheduleKind schedule = ScheduleKind::kOneFOneB;
  int64_t chunks = 2;  // stages a rank, interleaved only
  int64_t micro = 1;   // sequences of a micro-batch
  Recompute recompute = Recompute::kSelective;
  bool zero1 = true;  // master weights and moments shared out over the copies
  int64_t stages() const;
  int64_t copies() const { return schedule == ScheduleKind::kDualPipe ? 2 : 1; }  // of a stage, in a pipeline
  bool overlaps() const {
    return schedule == ScheduleKind::kDualPipe || schedule == ScheduleKind::kDualPipeV;
  }
};

// What is trained on it.
struct ClusterJob {
  ModelConfig model;
  int64_t gpus = 0;
  int64_t batch = 15360;  // sequences a step
  int64_t length = 4096;  // tokens a sequence
  bool fp8 = true;        // products, cached activations and dispatched rows; else BF16
  bool bf16_moments = true;
};

int64_t num_microbatches(const ClusterJob& job, const ClusterLayout& layout);

// "pp=16,ep=64,dp=128,tp=1,schedule=dualpipe,chunks=2,micro=1,recompute=selective,zero1=1"; what is left out
// has its default, dp is what the GPUs leave. Throws invalid_argument.
ClusterLayout parse_layout(std::string_view text, int64_t gpus);
std::string text_of(const ClusterLayout& layout);

// The first rule that the layout breaks. `name` is short and the same for all that break it.
struct BrokenRule {
  std::string name, text;
};
std::optional<BrokenRule> broken_rule(const ClusterJob& job, const ClusterLayout& layout,
                                      const ClusterFacts& facts);

}  // namespace hadal
