#include "hadal/train/exchanged_slots.h"

#include <algorithm>

#include "hadal/parallel/expert_all_to_all.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

// The model's memory; each sender's gradient of an expert has a place of its own.
ModelWeights weights_by_sender(Transformer& model, int64_t senders) {
  ModelWeights shared = model.weights();
  for_each_weight(model.config(), shared, [&](const WeightSpec& spec, Tensor& w) {
    w = w.detach();
    if (spec.split == WeightSplit::kExperts) w = w.expand({senders, w.size(0), w.size(1), w.size(2)});
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
  });
  return shared;
}

// Rows enough to take part: none.
TrainBatch no_rows(int64_t row_tokens) {
  return TrainBatch(zeros({0, row_tokens}, at::kLong), {}, zeros({0}, at::kBool));
}

// The gradients of one slot, as a rank has them: of its own weights, and of its experts by sender.
struct SlotGradients {
  Gradients own;
  std::vector<Gradients> by_sender;
};
SlotGradients take_by_sender(Transformer& replica, int64_t senders) {
  SlotGradients all;
  all.by_sender.resize(static_cast<size_t>(senders));
  for_each_weight(replica.config(), replica.weights(), [&](const WeightSpec& spec, Tensor& w) {
    if (spec.role == WeightRole::kBalanceBias) return;
    const bool expert = spec.split == WeightSplit::kExperts;
    const Tensor gradient = w.grad();
    w.mutable_grad().reset();
    all.own.push_back(expert ? Tensor() : gradient);
    for (int64_t s = 0; s < senders; ++s)
      all.by_sender[static_cast<size_t>(s)].push_back(expert ? gradient.select(0, s) : Tensor());
  });
  return all;
}

TreeSum<Gradients> empty_sum(size_t slots) {
  return {static_cast<int64_t>(slots), [](Gradients& a, Gradients&& b) { add(a, std::move(b)); }};
}

}  // namespace

ExchangedSlots::ExchangedSlots(Transformer& model, Comm& block)
    : block_(block),
      replica_(std::make_unique<Transformer>(model.config(), weights_by_sender(model, block.size()),
                                             model.share())) {}

ExchangedSlots::~ExchangedSlots() = default;

ExchangedResults ExchangedSlots::run(const TrainBatch& batch, int64_t row_tokens, const BlockSlots& slots,
                                     const LossConfig& given, const LossDivisor& divisor) {
  const auto first = [&](int64_t rank) { return slots.first[static_cast<size_t>(rank)]; };
  const int64_t me = block_.rank(), senders = block_.size(), mine = first(me + 1) - first(me);
  ExpertAllToAll exchange(block_);
  LossConfig config = given;
  config.exchange = &exchange;
  int64_t rounds = 0;
  for (int64_t r = 0; r < senders; ++r) rounds = std::max(rounds, first(r + 1) - first(r));
  ExchangedResults results{.own = empty_sum(slots.step.size()), .experts = empty_sum(slots.step.size())};
  std::vector<TreeSum<Gradients>> of_sender(static_cast<size_t>(senders), empty_sum(slots.step.size()));
  const int threads = num_threads();
  for (int64_t k = 0; k < rounds; ++k) {
    const int64_t at = first(me) + k;
    TrainBatch rows = no_rows(row_tokens);
    if (k < mine) {
      const RowSlot& slot = slots.step[static_cast<size_t>(at)];
      rows = batch.rows(slot.first - slots.step[static_cast<size_t>(first(me))].first, slot.rows);
      if (!slot.alone) set_num_threads(1);  // as a worker of one process has
    }
    const StepLoss loss = forward_backward(*replica_, rows, config, divisor);
    set_num_threads(threads);
    SlotGradients gradients = take_by_sender(*replica_, senders);
    if (k < mine) results.losses.push_back(loss), results.own.push(at, at + 1, std::move(gradients.own));
    for (int64_t s = 0; s < senders; ++s)
      if (const int64_t theirs = first(s) + k; theirs < first(s + 1))
        of_sender[static_cast<size_t>(s)].push(theirs, theirs + 1,
                                               std::move(gradients.by_sender[static_cast<size_t>(s)]));
  }
  for (TreeSum<Gradients>& sum : of_sender)
    for (auto& piece : sum.pieces()) results.experts.push(piece.first, piece.last, std::move(piece.value));
  return results;
}

}  // namespace hadal
