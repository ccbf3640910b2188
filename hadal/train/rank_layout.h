// What a rank of a training job has of the model and of the data, and with whom it shares them (training spec
// 10 to 12).
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "hadal/planner/rank_split.h"

namespace hadal {

class RankLayout {
 public:
  // comm null: alone. `length`: tokens of a row, for the balance of the stages. Throws invalid_argument,
  // invalid_config or unsupported, naming the numbers that do not fit.
  RankLayout(const ParallelSection& parallel, const ModelConfig& model, int64_t length, Comm* comm);

  // Throws unsupported for what only ranks with the whole model can do, or with all experts, heads and
  // columns.
  void check(const TrainConfig& config, bool next_token) const;

  const RankSplit& split() const { return split_; }
  // Null: this rank is all of it.
  Comm* all() const { return all_; }
  Comm* data() const { return data_; }
  Comm* pipeline() const { return pipeline_; }
  int64_t data_rank() const { return data_ ? data_->rank() : 0; }
  int64_t data_ranks() const { return data_ ? data_->size() : 1; }
  int64_t pipeline_ranks() const { return pipeline_ ? pipeline_->size() : 1; }
  // The data ranks that share out each layer's experts; null: each has all.
  Comm* block() const { return block_; }
  int64_t block_ranks() const { return block_ ? block_->size() : 1; }
  // The ranks that share out heads and the columns of MLPs, and have the same rows; null: each has all.
  Comm* tensor() const { return tensor_; }
  // Of each such group one rank: together they have every slot and stage once. REQUIRES: all().
  Comm& numbers() const { return *numbers_; }
  // The ranks of the model's chain of stages, this one alone without a pipeline. REQUIRES: all().
  Comm& chain() const { return *chain_; }
  WeightShare share() const { return split_.share(); }
  // Has no rank the whole model?
  bool spread() const { return split_.spread(); }
  // Is this rank one of those that measure on held-out data? They do it together, each with rank 0's rows or
  // none.
  bool measures() const { return data_rank() < block_ranks(); }
  // Slots of a step that this rank and the others of its block have: rank i [first[i], first[i + 1]).
  std::vector<int64_t> block_slots(int64_t num_slots) const;

  // Of the network; one without a pipeline.
  const std::vector<Stage>& stages() const { return split_.stages; }
  const std::vector<int>& held() const { return split_.held; }
  std::vector<Stage> held_stages() const;
  // Ranks that hold a stage, its experts or what else is in it (without a block: all of it); null: this one
  // alone. DualPipe's second copy has the second half of each data rank's slots.
  std::unique_ptr<Comm> replicas(int stage, bool experts) const;
  // Is this rank, with those of tensor(), the one that writes it down? The first of these does.
  bool owns(int stage, bool experts) const;
  // The same of a weight of the stages that are held.
  bool owns(const ModelConfig& model, const WeightSpec& weight) const;
  // Of the network, balance bias aside.
  int64_t num_trained_weights() const { return num_trained_weights_; }
  // Throws invalid_argument if the schedule cannot have so many slots.
  Schedule schedule(int64_t slots) const { return split_.schedule(slots); }
  // The pipeline's rank that holds the head for a forward pass alone.
  int64_t head_rank() const;

 private:
  std::vector<int64_t> members(int stage, bool experts) const;

  Comm* all_ = nullptr;
  RankSplit split_;
  std::optional<Mesh> mesh_;
  Comm *data_ = nullptr, *pipeline_ = nullptr, *block_ = nullptr, *chain_ = nullptr, *tensor_ = nullptr;
  std::unique_ptr<Comm> numbers_;
  int64_t num_trained_weights_ = 0;
};

}  // namespace hadal
