// A model's tensors as the network's weights: the trainer's weights, computed by inference's kernels where
// they lie. So a forward pass without gradients gives the same bits in training, rollouts and serving.
#pragma once
#include "hadal/model/weights.h"
#include "hadal/network/weights.h"

namespace hadal {

// Views of fp32 or bf16 CPU tensors; matrices are read in place, so what the optimiser writes is seen.
// Vectors too, if fp32; bf16 ones are copied, so views of a bf16 model are of one moment. Contiguous tensors
// only.
NetworkWeights network_view(const ModelConfig& config, const ModelWeights& weights);

}  // namespace hadal
