// What a rank of a training job has of the model and of the data, and with whom it shares them (training spec
// 10 to 12).
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "hadal/config/stage.h"
#include "hadal/config/train_config.h"
#include "hadal/parallel/mesh.h"
#include "hadal/parallel/schedule.h"

namespace hadal {

class RankLayout {
 public:
  // comm null: alone. `length`: tokens of a row, for the balance of the stages. Throws invalid_argument,
  // invalid_config or unsupported, naming the numbers that do not fit.
  RankLayout(const ParallelSection& parallel, const ModelConfig& model, int64_t length, Comm* comm);

  // Null: this rank is all of it.
  Comm* all() const { return all_; }
  Comm* data() const { return data_; }
  Comm* pipeline() const { return pipeline_; }
  int64_t data_rank() const { return data_ ? data_->rank() : 0; }
  int64_t data_ranks() const { return data_ ? data_->size() : 1; }
  int64_t pipeline_ranks() const { return pipeline_ ? pipeline_->size() : 1; }

  // Of the network; one without a pipeline.
  const std::vector<Stage>& stages() const { return stages_; }
  const std::vector<int>& held() const { return held_; }
  std::vector<Stage> held_stages() const;
  // Ranks that hold a stage, in the order of their slots; null: this one alone. DualPipe's second copy has
  // the second half of each data rank's.
  std::unique_ptr<Comm> replicas(int stage) const;
  // Is this rank the one that writes the stage down?
  bool owns(int stage) const;
  // Throws invalid_argument if the schedule cannot have so many slots.
  Schedule schedule(int64_t slots) const;
  // The pipeline's rank that holds the head for a forward pass alone.
  int64_t head_rank() const;

 private:
  std::vector<int64_t> members(int stage) const;

  Comm* all_ = nullptr;
  std::optional<Mesh> mesh_;
  Comm *data_ = nullptr, *pipeline_ = nullptr;
  ScheduleKind kind_ = ScheduleKind::kOneFOneB;
  int chunks_ = 1;
  std::vector<Stage> stages_;
  std::vector<int> held_;
};

}  // namespace hadal
