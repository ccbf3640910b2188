#include "hadal/train/rank_layout.h"

#include <algorithm>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/ops/linear.h"

namespace hadal {
namespace {

bool is_expert(const WeightSpec& spec) {
  return spec.split == WeightSplit::kExperts;
}

void check_known(const MeshShape& shape, const ModelConfig& model) {
  const std::vector<WeightSpec> specs = weight_specs(model);
  if (shape.experts > 1 && std::none_of(specs.begin(), specs.end(), is_expert))
    throw Error(ErrorCode::kInvalidConfig,
                cat("[train.layout] experts ", shape.experts,
                    ": the model has no layer with experts. Set parallel.experts to 1."));
  if (shape.pipeline > 1 && model.tied_head)
    throw Error(ErrorCode::kUnsupported,
                cat("[train.layout] pipeline ", shape.pipeline,
                    ": the head is the embedding's table, which would be on two ranks. Set "
                    "parallel.pipeline to 1 or tie_word_embeddings to false."));
}

}  // namespace

RankLayout::RankLayout(const ParallelSection& parallel, const ModelConfig& model, int64_t length, Comm* comm)
    : all_(comm && comm->size() > 1 ? comm : nullptr),
      split_(parallel, model, length, all_ ? all_->size() : 1, all_ ? all_->rank() : 0) {
  const MeshShape& shape = split_.mesh;
  check_known(shape, model);
  if (all_) mesh_.emplace(*all_, shape), chain_ = &mesh_->pipeline();
  if (shape.pipeline > 1) pipeline_ = &mesh_->pipeline();
  if (shape.data > 1) data_ = &mesh_->data();
  if (shape.experts > 1) block_ = &mesh_->experts();
  if (shape.tensor > 1) tensor_ = &mesh_->tensor();
  if (all_) {
    std::vector<int64_t> ranks;
    for (int64_t r = mesh_->place().tensor; r < all_->size(); r += shape.tensor) ranks.push_back(r);
    numbers_ = std::make_unique<GroupComm>(*all_, std::move(ranks));
  }
  check_share(model, share());
  for (const WeightSpec& spec : weight_specs(model))
    if (spec.role != WeightRole::kBalanceBias) ++num_trained_weights_;
}

void RankLayout::check(const TrainConfig& config, bool next_token) const {
  const ParallelSection& p = config.parallel;
  const std::string& precision = config.compute.precision;
  const bool f32 = products_named(precision) == Products::kF32;
  if (tensor_ && !f32)
    throw Error(ErrorCode::kUnsupported,
                cat("[train.layout] tensor ", p.tensor, " with compute.precision ", precision,
                    ": parts of matrices are added up in f32. Set parallel.tensor to 1 or "
                    "compute.precision to f32."));
  if (block_ && !f32)
    throw Error(ErrorCode::kUnsupported,
                cat("[train.layout] experts ", p.experts, " with compute.precision ", precision,
                    ": rows go to other ranks' experts in f32. Set parallel.experts to 1 or "
                    "compute.precision to f32."));
  if (spread() && !next_token)
    throw Error(ErrorCode::kUnsupported,
                cat("[train.layout] pipeline ", p.pipeline, ", experts ", p.experts, ", tensor ", p.tensor,
                    ": only the next token is trained on by ranks that share a model out. Set all to 1."));
}

std::vector<int64_t> RankLayout::block_slots(int64_t num_slots) const {
  const int64_t begin = data_rank() / block_ranks() * block_ranks();
  std::vector<int64_t> first;
  for (int64_t r = begin; r <= begin + block_ranks(); ++r)
    first.push_back(first_slot(num_slots, r, data_ranks()));
  return first;
}

std::vector<Stage> RankLayout::held_stages() const {
  std::vector<Stage> out;
  for (const int stage : held()) out.push_back(stages()[static_cast<size_t>(stage)]);
  return out;
}

// Of all ranks, those that hold the stage or its experts.
std::vector<int64_t> RankLayout::members(int stage, bool experts) const {
  std::vector<int64_t> members;
  for (int64_t d = 0; d < mesh_->shape().data; ++d) {
    if (experts && d % block_ranks() != data_rank() % block_ranks()) continue;
    for (const int64_t place : split_.places(stage))
      members.push_back(
          rank_at(mesh_->shape(), {.pipeline = place, .data = d, .tensor = mesh_->place().tensor}));
  }
  return members;
}

std::unique_ptr<Comm> RankLayout::replicas(int stage, bool experts) const {
  if (!all_) return nullptr;
  std::vector<int64_t> ranks = members(stage, experts);
  if (ranks.size() == 1) return nullptr;
  return std::make_unique<GroupComm>(*all_, std::move(ranks));
}

bool RankLayout::owns(int stage, bool experts) const {
  if (!all_) return true;
  const std::vector<int64_t> ranks = members(stage, experts);
  return *std::min_element(ranks.begin(), ranks.end()) == all_->rank();
}

bool RankLayout::owns(const ModelConfig& model, const WeightSpec& weight) const {
  for (const int stage : held())
    if (holds(model, stages()[static_cast<size_t>(stage)], weight))
      return owns(stage, block_ && is_expert(weight));
  return false;
}

int64_t RankLayout::head_rank() const {
  return split_.places(static_cast<int>(stages().size()) - 1)[0];
}

}  // namespace hadal
