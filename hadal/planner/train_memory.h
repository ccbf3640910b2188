// Memory of a training step by part, before anything is allocated. Torch-free.
#pragma once
#include <cstdint>

#include "hadal/config.h"
#include "hadal/config/train_config.h"

namespace hadal {

// Bytes. The process's own (LibTorch's code and buffers) is not in it.
struct TrainMemory {
  int64_t weights = 0;  // fp32; they are the master weights, products in bf16 round them as they go
  int64_t moments = 0;
  int64_t average = 0;      // moving average of the weights
  int64_t gradients = 0;    // of every worker, at the end of the backward pass
  int64_t activations = 0;  // of all workers, at its start
  int64_t logits = 0;       // of the rows that the head takes at a time, and the head's gradients
  int64_t workspace = 0;    // of the largest operation
  int64_t allocator = 0;    // freed blocks that nothing of their size needed yet
  int64_t checkpoint = 0;   // copy that is written beside training

  // Activations go as gradients come: the larger of both counts.
  int64_t passing() const;
  int64_t step() const { return weights + moments + average + passing() + allocator; }
  int64_t total() const { return step() + checkpoint; }
};

// `workers` share a step's rows (GradientWorkers). Sizes are those of the operations in hadal/ops/fused.h.
TrainMemory train_memory(const ModelConfig& model, const TrainConfig& config, int64_t workers);

}  // namespace hadal
