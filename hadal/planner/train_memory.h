// Memory of a training step by part, before anything is allocated: of one process, or of one of the ranks
// that train together. Torch-free.
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
  int64_t sums = 0;         // of gradients that wait in the tree of a step while the next slots are computed
  int64_t activations = 0;  // of all slots in flight, when they are most
  int64_t others = 0;       // of these, of slots whose backward pass is not the one that runs then
  int64_t logits = 0;       // of the rows that the head takes at a time, and the head's gradients
  int64_t workspace = 0;    // of the largest operation
  int64_t gradients = 0;    // of the slots that run at once, at the end of their backward pass
  int64_t exchange = 0;     // at the end of a step, of all ranks: gradients, those sent and received, sums
  int64_t gathered = 0;     // after a step that is saved: the moments that ranks share out, whole
  int64_t allocator = 0;    // freed blocks that nothing of their size needed yet
  int64_t checkpoint = 0;   // copy that is written beside training

  // Activations go as gradients come, and all are gone when ranks exchange or save: the largest counts.
  int64_t start() const { return sums + activations + logits + workspace; }
  int64_t end() const { return sums + others + gradients; }
  int64_t passing() const;
  int64_t step() const { return weights + moments + average + passing() + allocator; }
  int64_t total() const { return step() + checkpoint; }
};

// Of rank `rank` of `ranks`, that share out `workers` slots of each micro-batch. Sizes are those of the
// operations in hadal/ops/fused.h. Throws what RankSplit does.
TrainMemory train_memory(const ModelConfig& model, const TrainConfig& config, int64_t workers,
                         int64_t rank = 0, int64_t ranks = 1);

}  // namespace hadal
