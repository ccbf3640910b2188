// Weights on a rank that trains them, by whom it shares them with, and the optimizer's step over all ranks'
// weights.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "hadal/train/adamw.h"
#include "hadal/train/gradient_workers.h"
#include "hadal/train/rank_layout.h"

namespace hadal {

// Of a stage: all weights; or, where ranks share out experts, all but these, or the rank's experts.
struct ModelPart {
  AdamW optimizer;
  std::vector<int64_t> places;        // of its weights among all of the network that are trained
  bool of_experts;                    // that ranks share out
  bool owned;                         // is it this rank that writes it down?
  std::unique_ptr<Comm> replicas;     // with whom the gradients are summed; null: nobody
  std::optional<ShardLayout> layout;  // who sums which; none: the optimizer's, who updates them (ZeRO-1)
};

// Of each stage that the rank holds: in the order of PipelineStages::take_sums().
std::vector<ModelPart> model_parts(const RankLayout& ranks, const Transformer& model,
                                   const AdamWConfig& config, bool shard_optimizer);

// A stage that the rank holds: the model's tensors.
Transformer stage_of(const RankLayout& ranks, const Transformer& model, int stage);

// One update of every part from the sums of its gradients, by all ranks together; returns the norm over all
// weights of the network, each once, in their order.
double update(const RankLayout& ranks, std::vector<ModelPart>& parts, std::vector<TreeSum<Gradients>>& sums,
              double learning_rate);

}  // namespace hadal
