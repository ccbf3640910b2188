// A rank's part of a step where the experts of each layer are spread over a block of ranks: a slot at a time,
// in step with the others, for every one sends tokens to the experts of all.
//
// What an expert learns from each rank's slot is kept apart and goes into the sum under that slot's position,
// so the sums are those of one process, bit for bit.
#pragma once
#include <span>

#include "hadal/parallel/comm.h"
#include "hadal/train/gradient_workers.h"

namespace hadal {

// Slots of the ranks of a block: rank i has [first[i], first[i + 1]) of a step's.
struct BlockSlots {
  std::span<const RowSlot> step;
  std::vector<int64_t> first;
};

struct ExchangedResults {
  TreeSum<Gradients> own;        // of this rank's slots: all weights but experts
  TreeSum<Gradients> experts;    // of the block's slots: the experts here, nothing else
  std::vector<StepLoss> losses;  // of this rank's slots
};

class ExchangedSlots {
 public:
  // `block`: the ranks that share out the experts of the model, which holds its part of them and must outlive
  // this and keep its weight tensors.
  ExchangedSlots(Transformer& model, Comm& block);
  ~ExchangedSlots();

  // The batch holds the rows of this rank's slots, each of `row_tokens` tokens; perhaps none. config.exchange
  // is set here. All ranks of the block call it together.
  ExchangedResults run(const TrainBatch& batch, int64_t row_tokens, const BlockSlots& slots,
                       const LossConfig& config, const LossDivisor& divisor);

 private:
  Comm& block_;
  std::unique_ptr<Transformer> replica_;  // with gradients of experts by sender
};

}  // namespace hadal
