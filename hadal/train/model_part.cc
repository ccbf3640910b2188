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
  const std::vector<Tensor> pieces = sum_gradients(*part.replicas, *part.layout, sum);
  std::vector<Tensor> gradients(part.optimizer.weights().size());
  gather_parts(*part.replicas, *part.layout, pieces, gradients);
  return gradients;
}

std::vector<double> tensor_squares(ModelPart& part, const std::vector<Tensor>& gradients) {
  std::vector<double> blocks = part.optimizer.block_squares(gradients);
  if (part.replicas && !part.layout) blocks = gather_numbers(*part.replicas, blocks);
  return part.optimizer.tensor_squares(blocks);
}

// Stages are in the order of their weights, so the sum is that of one process.
double norm_over_stages(const RankLayout& ranks, const std::map<int, std::vector<double>>& mine) {
  std::map<int, std::vector<double>> all = mine;
  if (Comm* pipeline = ranks.pipeline()) {
    std::vector<double> numbers;
    for (const auto& [stage, squares] : mine) {
      numbers.push_back(stage), numbers.push_back(static_cast<double>(squares.size()));
      numbers.insert(numbers.end(), squares.begin(), squares.end());
    }
    const std::vector<double> theirs = gather_numbers(*pipeline, numbers);
    for (size_t at = 0; at < theirs.size();) {
      const auto begin = theirs.begin() + static_cast<int64_t>(at) + 2;
      const auto n = static_cast<int64_t>(theirs[at + 1]);
      all[static_cast<int>(theirs[at])] = {begin, begin + n};  // of a second copy: the same
      at += 2 + static_cast<size_t>(n);
    }
  }
  HADAL_CHECK(all.size() == ranks.stages().size()) << "the norm of a stage is missing";
  std::vector<double> squares;
  for (const auto& [stage, of_stage] : all) squares.insert(squares.end(), of_stage.begin(), of_stage.end());
  return global_norm(squares);
}

}  // namespace

std::vector<ModelPart> model_parts(const RankLayout& ranks, const Transformer& model,
                                   const AdamWConfig& config, bool shard_optimizer) {
  std::vector<ModelPart> parts;
  for (const int stage : ranks.held()) {
    Transformer own(model.config(),
                    part_of(model.config(), model.weights(), {ranks.stages()[static_cast<size_t>(stage)]}));
    std::unique_ptr<Comm> replicas = ranks.replicas(stage);
    const bool shard = shard_optimizer && replicas;
    AdamW optimizer(own, config,
                    shard ? OptimizerShare{replicas->rank(), replicas->size()} : OptimizerShare{});
    std::optional<ShardLayout> layout;
    if (replicas && !shard) {
      std::vector<int64_t> sizes;
      for (const Tensor& weight : optimizer.weights()) sizes.push_back(weight.numel());
      layout.emplace(sizes, replicas->size());
    }
    parts.push_back({stage, std::move(own), std::move(optimizer), std::move(replicas), std::move(layout)});
  }
  return parts;
}

double update(const RankLayout& ranks, std::vector<ModelPart>& parts, std::vector<TreeSum<Gradients>>& sums,
              double learning_rate) {
  std::vector<std::vector<Tensor>> gradients;
  std::map<int, std::vector<double>> squares;
  for (size_t i = 0; i < parts.size(); ++i) {
    gradients.push_back(summed(parts[i], sums[i]));
    squares[parts[i].stage] = tensor_squares(parts[i], gradients[i]);
  }
  const double norm = norm_over_stages(ranks, squares);
  for (size_t i = 0; i < parts.size(); ++i) {
    parts[i].optimizer.update(learning_rate, norm, gradients[i]);
    if (parts[i].replicas && !parts[i].layout) share_weights(*parts[i].replicas, parts[i].optimizer);
  }
  return norm;
}

}  // namespace hadal
