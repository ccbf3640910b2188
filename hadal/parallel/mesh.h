// Where a rank stands among all ranks of a job, and the groups of ranks it works with. Torch-free.
//
// rank = (pipeline_rank * data + data_rank) * tensor + tensor_rank. Experts are spread over blocks of
// `experts` consecutive data ranks: ranks of a block hold different experts, those at the same place of other
// blocks the same ones.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "hadal/parallel/comm.h"

namespace hadal {

struct MeshShape {
  int64_t pipeline = 1, data = 1, experts = 1, tensor = 1;
  int64_t ranks() const { return pipeline * data * tensor; }
  bool operator==(const MeshShape&) const = default;
};

// Of `ranks` ranks, as many data ranks as the others leave. Throws invalid_argument, naming the numbers that
// do not fit.
MeshShape mesh_shape(int64_t ranks, int64_t pipeline, int64_t experts, int64_t tensor);

struct MeshPlace {
  int64_t pipeline = 0, data = 0, tensor = 0;
  bool operator==(const MeshPlace&) const = default;
};
int64_t rank_at(const MeshShape& shape, const MeshPlace& place);
MeshPlace place_of(const MeshShape& shape, int64_t rank);

// Some ranks of another Comm as a Comm of their own, numbered as they stand in the list. Groups of one parent
// may be used in turn, in the same order on all their common members. Errors name ranks of the job.
class GroupComm : public Comm {
 public:
  // REQUIRES: the parent's own rank is in `members`; the parent lives longer.
  GroupComm(Comm& parent, std::vector<int64_t> members);
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return static_cast<int64_t>(members_.size()); }
  void exchange(std::span<const Outgoing> out, std::span<const Incoming> in) override;
  std::unique_ptr<Sending> begin_send(std::span<const Outgoing> out) override;
  const std::vector<int64_t>& members() const { return members_; }

 private:
  std::vector<Outgoing> renumbered(std::span<const Outgoing> out) const;

  Comm& parent_;
  std::vector<int64_t> members_;
  int64_t rank_ = -1;
};

// The groups of one rank.
class Mesh {
 public:
  // Throws invalid_argument if `all` has not as many ranks as the shape, or experts do not divide data.
  Mesh(Comm& all, const MeshShape& shape);

  const MeshShape& shape() const { return shape_; }
  const MeshPlace& place() const { return place_; }

  Comm& all() const { return all_; }
  Comm& pipeline() { return *pipeline_; }        // the stages of one model
  Comm& data() { return *data_; }                // the same weights, experts aside; other rows
  Comm& experts() { return *experts_; }          // a block: together all experts of a layer
  Comm& expert_data() { return *expert_data_; }  // the same experts, other rows
  Comm& tensor() { return *tensor_; }            // parts of the same matrices, the same rows

 private:
  std::unique_ptr<Comm> group(auto&& belongs) const;

  Comm& all_;
  MeshShape shape_;
  MeshPlace place_;
  std::unique_ptr<Comm> pipeline_, data_, experts_, expert_data_, tensor_;
};

}  // namespace hadal
