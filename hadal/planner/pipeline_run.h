// A step's pipeline with stages of different cost, played by the simulator. Torch-free.
#pragma once
#include <vector>

#include "hadal/parallel/simulate.h"
#include "hadal/planner/cluster_layout.h"

namespace hadal {

// Seconds of one micro-batch through one stage on one rank.
struct StageTimes {
  double forward = 0, input_grad = 0, weight_grad = 0;  // computing
  double forward_exchange = 0,
         backward_exchange = 0;  // all-to-all, tensor-parallel sums, the pipeline's sends
};

// Exchange hides behind computing in pairs and nowhere else.
double seconds_of(const Action& action, const std::vector<StageTimes>& stages);

struct PipelineRun {
  double seconds = 0;        // from the first forward to the last gradient
  std::vector<double> idle;  // of a rank, in it
  std::vector<double>
      peak_kept;  // of a rank: most of what forwards hold for their backwards, in units of `kept`
  std::vector<double> peak_held;  // the same in micro-batch stages
};

// `kept[stage]`: what a micro-batch's forward through it holds. A step of many micro-batches is played with
// fewer: once the pipe is full, everything grows by the same for every further 2 x ranks of them.
PipelineRun run_pipeline(ScheduleKind kind, const ScheduleShape& shape, const std::vector<StageTimes>& stages,
                         const std::vector<double>& kept);

}  // namespace hadal
