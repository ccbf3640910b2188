// Which part of a model and of a step one of the ranks of a training job has, by numbers alone. Torch-free.
#pragma once
#include <optional>
#include <vector>

#include "hadal/config/stage.h"
#include "hadal/config/train_config.h"
#include "hadal/config/weight_share.h"
#include "hadal/parallel/mesh.h"
#include "hadal/parallel/schedule.h"

namespace hadal {

struct RankSplit {
  MeshShape mesh;
  MeshPlace place;
  ScheduleKind kind = ScheduleKind::kOneFOneB;
  int chunks = 1;
  std::vector<Stage> stages;  // of the network; one without a pipeline
  std::vector<int> held;  // of them, ascending: all who share stages sum their gradients in the same order

  // Throws invalid_argument or invalid_config, naming the numbers that do not fit.
  RankSplit(const ParallelSection& parallel, const ModelConfig& model, int64_t length, int64_t ranks,
            int64_t rank);

  WeightShare share() const;
  // Has no rank the whole model?
  bool spread() const { return mesh.pipeline > 1 || mesh.experts > 1 || mesh.tensor > 1; }
  // Throws invalid_argument if the schedule cannot have so many slots.
  Schedule schedule(int64_t slots) const;
  // Ranks of the pipeline that hold a stage: one, or DualPipe's two.
  std::vector<int64_t> places(int stage) const;
  // Ranks that hold a stage, its experts or what else is in it.
  int64_t replicas(int stage, bool experts) const;
};

// Shares of a step's rows where batch.workers does not say: enough to fill the pipeline, or one for each
// thread.
int64_t default_workers(const RankSplit& split, int64_t threads);

// Slots of rank r of `ranks` data ranks: [first_slot(n, r, ranks), first_slot(n, r + 1, ranks)).
int64_t first_slot(int64_t num_slots, int64_t rank, int64_t ranks);

}  // namespace hadal
