// Checkpoints and models written side by side by ranks that share a model out: each what it owns, under the
// names of the whole (training spec 15).
#pragma once
#include <vector>

#include "hadal/train/model_part.h"
#include "hadal/train/train_state.h"

namespace hadal {

// By all ranks together; published once all files are there. `store`: rank 0's, elsewhere null. An error of
// one rank is told by the store as those of its own writing are.
void save_by_ranks(const RankLayout& ranks, CheckpointStore* store, const TrainCounters& counters,
                   const Transformer& model, std::vector<ModelPart>& parts, WeightAverage* average);

// A model folder from the weights that each rank has of it. An error of one rank is thrown on all.
void save_model_by_ranks(const RankLayout& ranks, const std::filesystem::path& folder,
                         const ModelConfig& config, const ModelWeights& weights);

}  // namespace hadal
