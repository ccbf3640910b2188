// A rank's slots of a step, one after the other, and the sums of their gradients.
//
// Ranks that share out the experts of each layer, a block, take their slots in step, for every one sends
// tokens to the experts of all. What an expert learns from each rank's slot is kept apart and goes into the
// sum under that slot's position, so the sums are those of one process, bit for bit.
#pragma once
#include <span>
#include <vector>

#include "hadal/train/gradient_workers.h"

namespace hadal {

// A batch as slots of a step. Rank i of a block has [first[i], first[i + 1]); one with fewer than another
// goes on with slots of no rows.
struct RankSlots {
  const TrainBatch& batch;  // the rows of this rank's slots
  std::span<const RowSlot> step;
  std::vector<int64_t> first;
  int64_t rank = 0;  // in the block

  int64_t begin(int64_t r) const { return first[static_cast<size_t>(r)]; }
  int64_t size(int64_t r) const { return begin(r + 1) - begin(r); }
  int64_t ranks() const { return static_cast<int64_t>(first.size()) - 1; }
  int64_t rounds() const;                  // of the rank with the most
  const RowSlot* at(int64_t round) const;  // of this rank; null: none
  TrainBatch rows(int64_t round) const;    // none where it has no slot
};

// The model's memory with gradients of its own. If ranks share out its experts, `senders` in a block, each
// sender's gradient of an expert has a place of its own: exchanged_experts().
Transformer replica_of(const Transformer& model, int64_t senders);

class SlotSums {
 public:
  SlotSums(const Transformer& replica, const RankSlots& slots);
  // take_gradients() of the replica after a round.
  void push(int64_t round, Gradients gradients);
  // Over this rank's slots, of all weights; or, where ranks share experts out, of all but experts, then over
  // the block's slots of the experts here.
  std::vector<TreeSum<Gradients>> take();

 private:
  std::vector<bool> shared_out_;  // of each trained weight
  int64_t num_slots_, rank_;
  std::vector<int64_t> first_;
  TreeSum<Gradients> own_;
  std::vector<TreeSum<Gradients>> of_sender_;
};

}  // namespace hadal
