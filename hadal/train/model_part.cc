#include "hadal/train/model_part.h"

#include <cstring>
#include <map>

#include "hadal/base/check.h"
#include "hadal/tensor/make.h"
#include "hadal/train/rank_sum.h"

namespace hadal {
namespace {

// Of the parts that this rank updates.
std::vector<Tensor> summed(ModelPart& part, TreeSum<Gradients>& sum) {
  if (!part.replicas) {
    HADAL_CHECK(sum.pieces().size() == 1) << "gradients of a slot are missing";
    std::vector<Tensor> gradients = std::move(sum.pieces().front().value);
    for (Tensor& g : gradients)
      if (g.defined()) g = g.contiguous();
    return gradients;
  }
  if (!part.layout) return sum_gradients(*part.replicas, part.optimizer.layout(), sum);
  return whole_sum_of_gradients(*part.replicas, *part.layout, sum);
}

// By their places; nothing comes twice.
using Squares = std::map<int64_t, double>;

// Of cut weights the sum over their parts, of others one rank's: the same bits on all.
std::vector<double> joined(Comm& tensor, const std::vector<TrainedWeight>& weights,
                           const std::vector<double>& squares) {
  const std::vector<double> all = gather_numbers(tensor, squares);
  std::vector<double> sums(all.begin(), all.begin() + std::ssize(squares));
  for (size_t t = 0; t < sums.size(); ++t)
    for (size_t at = t + sums.size(); weights[t].cut && at < all.size(); at += sums.size())
      sums[t] += all[at];
  return sums;
}

void add_squares(const RankLayout& ranks, ModelPart& part, const std::vector<Tensor>& gradients,
                 Squares& squares) {
  std::vector<double> blocks = part.optimizer.block_squares(gradients);
  if (part.replicas && !part.layout) blocks = gather_numbers(*part.replicas, blocks);
  if (part.of_experts) blocks = gather_numbers(*ranks.block(), blocks);
  std::vector<double> of_tensors =
      part.optimizer.tensor_squares(blocks, part.of_experts ? ranks.block_ranks() : 1);
  if (ranks.tensor()) of_tensors = joined(*ranks.tensor(), part.optimizer.weights(), of_tensors);
  for (size_t t = 0; t < of_tensors.size(); ++t)
    HADAL_CHECK(squares.emplace(part.places[t], of_tensors[t]).second) << "a weight's norm comes twice";
}

// In the order of one process.
double norm_over_stages(const RankLayout& ranks, Squares squares) {
  if (Comm* pipeline = ranks.pipeline()) {
    std::vector<double> numbers;
    for (const auto& [place, square] : squares)
      numbers.push_back(static_cast<double>(place)), numbers.push_back(square);
    const std::vector<double> all = gather_numbers(*pipeline, numbers);
    for (size_t i = 0; i < all.size(); i += 2)
      squares[static_cast<int64_t>(all[i])] = all[i + 1];  // of a second copy: the same
  }
  HADAL_CHECK(std::ssize(squares) == ranks.num_trained_weights()) << "the norm of a weight is missing";
  std::vector<double> in_order;
  for (const auto& [place, square] : squares) in_order.push_back(square);
  return global_norm(in_order);
}

// Of a stage, all or one of the two kinds.
ModelPart part_of_stage(const RankLayout& ranks, Transformer& stage_model, int stage, bool of_experts,
                        const AdamWConfig& config, bool shard_optimizer,
                        const std::map<std::string, int64_t>& places) {
  std::vector<TrainedWeight> weights;
  std::vector<int64_t> mine;
  for (TrainedWeight& weight : trained_weights(stage_model)) {
    if (ranks.block() && weight.stacked() != of_experts) continue;
    mine.push_back(places.at(weight.name));
    weights.push_back(std::move(weight));
  }
  std::unique_ptr<Comm> replicas = ranks.replicas(stage, of_experts);
  const bool shard = shard_optimizer && replicas;
  AdamW optimizer(std::move(weights), config,
                  shard ? OptimizerShare{replicas->rank(), replicas->size()} : OptimizerShare{});
  std::optional<ShardLayout> layout;
  if (replicas && !shard) {
    std::vector<int64_t> sizes;
    for (const TrainedWeight& weight : optimizer.weights()) sizes.push_back(weight.values.numel());
    layout.emplace(sizes, replicas->size());
  }
  return {std::move(optimizer),          std::move(mine),     of_experts,
          ranks.owns(stage, of_experts), std::move(replicas), std::move(layout)};
}

}  // namespace

std::vector<ModelPart> model_parts(const RankLayout& ranks, const Transformer& model,
                                   const AdamWConfig& config, bool shard_optimizer) {
  std::map<std::string, int64_t> places;
  for (const WeightSpec& spec : weight_specs(model.config()))
    if (spec.role != WeightRole::kBalanceBias) places.emplace(spec.name, std::ssize(places));
  std::vector<ModelPart> parts;
  for (const int stage : ranks.held()) {
    Transformer own = stage_of(ranks, model, stage);
    parts.push_back(part_of_stage(ranks, own, stage, false, config, shard_optimizer, places));
    if (ranks.block())
      parts.push_back(part_of_stage(ranks, own, stage, true, config, shard_optimizer, places));
  }
  return parts;
}

Transformer stage_of(const RankLayout& ranks, const Transformer& model, int stage) {
  const std::vector<Stage> part{ranks.stages()[static_cast<size_t>(stage)]};
  return {model.config(), part_of(model.config(), model.weights(), part), model.share()};
}

double update(const RankLayout& ranks, std::vector<ModelPart>& parts, std::vector<TreeSum<Gradients>>& sums,
              double learning_rate) {
  HADAL_CHECK(sums.size() == parts.size());
  std::vector<std::vector<Tensor>> gradients;
  Squares squares;
  for (size_t i = 0; i < parts.size(); ++i) {
    gradients.push_back(summed(parts[i], sums[i]));
    add_squares(ranks, parts[i], gradients[i], squares);
  }
  const double norm = norm_over_stages(ranks, std::move(squares));
  for (size_t i = 0; i < parts.size(); ++i) {
    parts[i].optimizer.update(learning_rate, norm, gradients[i]);
    if (parts[i].replicas && !parts[i].layout) share_weights(*parts[i].replicas, parts[i].optimizer);
  }
  return norm;
}

}  // namespace hadal
