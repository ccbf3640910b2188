#include "hadal/planner/rank_split.h"

#include <algorithm>

#include "hadal/planner/stage_split.h"

namespace hadal {
namespace {

// Any number of slots that every schedule can have: who holds what does not depend on it.
int64_t some_slots(const MeshShape& mesh) {
  return 2 * mesh.pipeline;
}

}  // namespace

RankSplit::RankSplit(const ParallelSection& parallel, const ModelConfig& model, int64_t length, int64_t ranks,
                     int64_t rank)
    : mesh(mesh_shape(ranks, parallel.pipeline, parallel.experts, parallel.tensor)),
      place(place_of(mesh, rank)) {
  if (mesh.pipeline == 1) {
    stages = {whole_model(model)}, held = {0};
    return;
  }
  kind = schedule_kind(parallel.schedule), chunks = static_cast<int>(parallel.chunks);
  const int n = num_stages(kind, static_cast<int>(mesh.pipeline), chunks);
  held = schedule(some_slots(mesh)).stages_of(static_cast<int>(place.pipeline));
  std::sort(held.begin(), held.end());
  stages =
      parallel.layers.empty() ? balanced_stages(model, n, length) : listed_stages(model, n, parallel.layers);
}

WeightShare RankSplit::share() const {
  return {.expert_rank = place.data % mesh.experts,
          .expert_ranks = mesh.experts,
          .tensor_rank = place.tensor,
          .tensor_ranks = mesh.tensor};
}

Schedule RankSplit::schedule(int64_t slots) const {
  return make_schedule(
      kind,
      {.ranks = static_cast<int>(mesh.pipeline), .microbatches = static_cast<int>(slots), .chunks = chunks});
}

std::vector<int64_t> RankSplit::places(int stage) const {
  if (mesh.pipeline == 1) return {0};
  const int64_t slots = some_slots(mesh);
  const Schedule some = schedule(slots);
  const int first = some.rank_of(stage, 0), last = some.rank_of(stage, static_cast<int>(slots) - 1);
  return first == last ? std::vector<int64_t>{first} : std::vector<int64_t>{first, last};
}

int64_t RankSplit::replicas(int stage, bool experts) const {
  return std::ssize(places(stage)) * mesh.data / (experts ? mesh.experts : 1);
}

int64_t default_workers(const RankSplit& split, int64_t threads) {
  if (split.mesh.pipeline > 1) return split.mesh.data * 2 * split.mesh.pipeline;
  return split.mesh.data * (split.spread() ? 1 : threads);
}

int64_t first_slot(int64_t num_slots, int64_t rank, int64_t ranks) {
  return num_slots * rank / ranks;
}

}  // namespace hadal
