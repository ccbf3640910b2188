#include "hadal/train/rank_slots.h"

#include <algorithm>

#include "hadal/tensor/make.h"

namespace hadal {

int64_t RankSlots::rounds() const {
  int64_t rounds = 0;
  for (int64_t r = 0; r < ranks(); ++r) rounds = std::max(rounds, size(r));
  return rounds;
}

const RowSlot* RankSlots::at(int64_t round) const {
  return round < size(rank) ? &step[static_cast<size_t>(begin(rank) + round)] : nullptr;
}

TrainBatch RankSlots::rows(int64_t round) const {
  const RowSlot* slot = at(round);
  return slot ? batch.rows(slot->first - at(0)->first, slot->rows) : batch.rows(0, 0);
}

Transformer replica_of(const Transformer& model, int64_t senders) {
  ModelWeights shared = model.weights();
  const bool by_sender = model.share().expert_ranks > 1;
  for_each_weight(model.config(), shared, [&](const WeightSpec& spec, Tensor& w) {
    w = w.detach();
    if (by_sender && spec.split == WeightSplit::kExperts)
      w = w.expand({senders, w.size(0), w.size(1), w.size(2)});
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
  });
  return {model.config(), std::move(shared), model.share()};
}

SlotSums::SlotSums(const Transformer& replica, const RankSlots& slots)
    : num_slots_(static_cast<int64_t>(slots.step.size())),
      rank_(slots.rank),
      first_(slots.first),
      own_(gradient_sum(num_slots_)) {
  ModelWeights weights = replica.weights();
  const bool share_out = replica.share().expert_ranks > 1;
  for_each_weight(replica.config(), weights, [&](const WeightSpec& spec, Tensor&) {
    if (spec.role != WeightRole::kBalanceBias)
      shared_out_.push_back(share_out && spec.split == WeightSplit::kExperts);
  });
  if (share_out) of_sender_.assign(static_cast<size_t>(slots.ranks()), gradient_sum(num_slots_));
}

void SlotSums::push(int64_t round, Gradients gradients) {
  const auto slot_of = [&](size_t rank) {  // -1: it has none in this round
    const int64_t slot = first_[rank] + round;
    return slot < first_[rank + 1] ? slot : -1;
  };
  Gradients own;
  std::vector<Gradients> from(of_sender_.size());
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (!shared_out_[i]) own.push_back(std::move(gradients[i]));
    for (size_t s = 0; s < from.size() && shared_out_[i]; ++s)
      from[s].push_back(gradients[i].defined() ? gradients[i].select(0, static_cast<int64_t>(s)) : Tensor());
  }
  if (const int64_t slot = slot_of(static_cast<size_t>(rank_)); slot >= 0)
    own_.push(slot, slot + 1, std::move(own));
  for (size_t s = 0; s < from.size(); ++s)
    if (const int64_t slot = slot_of(s); slot >= 0) of_sender_[s].push(slot, slot + 1, std::move(from[s]));
}

std::vector<TreeSum<Gradients>> SlotSums::take() {
  std::vector<TreeSum<Gradients>> sums;
  sums.push_back(std::move(own_));
  if (of_sender_.empty()) return sums;
  TreeSum<Gradients>& experts = sums.emplace_back(gradient_sum(num_slots_));
  for (TreeSum<Gradients>& sum : of_sender_)
    for (auto& piece : sum.pieces()) experts.push(piece.first, piece.last, std::move(piece.value));
  return sums;
}

}  // namespace hadal
