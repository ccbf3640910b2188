// A schedule run by the executor (pipeline.h) against the clock on the wall: ranks are threads, and a pass
// sleeps. What simulate() says, measured. Torch-free.
#pragma once
#include <vector>

#include "hadal/parallel/schedule.h"
#include "hadal/parallel/simulate.h"

namespace hadal {

struct MeasuredRun {
  double makespan = 0;         // seconds, from the first rank's begin to the last one's end
  std::vector<double> idle;    // of a rank, until the makespan: what its passes did not take
  std::vector<int> peak_held;  // as in Simulation
};

// `times` in seconds. A pair runs as pairs_in_turn() says; times.pair is not used.
MeasuredRun measure_schedule(const Schedule& schedule, const PassTimes& times);

}  // namespace hadal
