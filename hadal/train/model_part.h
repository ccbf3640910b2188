// The weights of a stage on a rank that trains them, and the optimizer's step over all ranks' stages.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "hadal/train/adamw.h"
#include "hadal/train/gradient_workers.h"
#include "hadal/train/rank_layout.h"

namespace hadal {

struct ModelPart {
  int stage;          // of the network
  Transformer model;  // the rank's own tensors
  AdamW optimizer;
  std::unique_ptr<Comm> replicas;     // with whom the gradients are summed; null: nobody
  std::optional<ShardLayout> layout;  // who sums which; none: the optimizer's, who updates them (ZeRO-1)
};

// Of each stage that the rank holds. The model lives longer.
std::vector<ModelPart> model_parts(const RankLayout& ranks, const Transformer& model,
                                   const AdamWConfig& config, bool shard_optimizer);

// One update of every part from the sums of its gradients, by all ranks together; returns the norm over all
// weights of the network, each once, in their order.
double update(const RankLayout& ranks, std::vector<ModelPart>& parts, std::vector<TreeSum<Gradients>>& sums,
              double learning_rate);

}  // namespace hadal
