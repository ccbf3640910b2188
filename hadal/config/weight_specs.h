// Every weight of a model: name, shape, role; listed once. The tensors themselves, the parameter counts of
// `hadal info`, the Hugging Face names and the checks of a checkpoint all follow this list. Torch-free.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "hadal/config.h"

namespace hadal {

enum class WeightRole {
  kEmbedding,     // [W, D]
  kHead,          // [W, D]; of a reward model [1, D]
  kMatrix,        // [out, in], block-FP8 in an official FP8 checkpoint
  kRouter,        // [E, D], never quantised
  kIndexWeights,  // weights_proj of an indexer [X, D], never quantised
  kMtpProject,    // eh_proj [D, 2D], never quantised
  kNorm,          // gain, and the bias of an indexer's norm; one dimension
  kBalanceBias,   // [E], F32 always; no gradient, no decay, not a parameter
};

// How ranks that train one model together share a weight out (weight_share.h).
enum class WeightSplit {
  kNone,     // each has all of it
  kExperts,  // over the ranks that share out experts, by its first dimension
  kOutputs,  // over the ranks of tensor parallelism, by its first dimension: heads, columns of an MLP
  kInputs,   // over them too, by its last dimension: what takes those in
};

struct WeightSpec {
  std::string name;            // ours, e.g. "layers.3.mla.kv_up"; MTP module j is layer num_layers + j
  std::vector<int64_t> shape;  // experts are stacked: [E, out, in]
  WeightRole role = WeightRole::kMatrix;
  WeightSplit split = WeightSplit::kNone;
  int64_t layer = -1;  // of it; -1: embedding, final norm, head
  int64_t num_values() const;
  bool cut() const {  // may ranks of tensor parallelism have parts of it?
    return split == WeightSplit::kOutputs || split == WeightSplit::kInputs;
  }
  bool stacked() const { return shape.size() == 3; }  // one checkpoint tensor per leading index
};

// In checkpoint order: embedding, layers (MTP last), final norm, head (absent if tied;
// a reward model's is "score").
std::vector<WeightSpec> weight_specs(const ModelConfig& config);

}  // namespace hadal
