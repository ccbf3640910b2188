// How a run is kept: checkpoints, going on from one, rolling back to one.
#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/load.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "hadal/train/loop.h"
#include "hadal/train/rank_checkpoint.h"
#include "hadal/train/rank_sum.h"

namespace hadal {

std::vector<AdamW*> Trainer::optimizers() {
  std::vector<AdamW*> all;
  for (ModelPart& part : parts_) all.push_back(&part.optimizer);
  return all;
}

std::optional<std::filesystem::path> Trainer::newest_checkpoint(bool good) const {
  const auto found = hooks_.checkpoints ? hooks_.checkpoints->newest(good) : std::nullopt;
  if (!comm_) return found;
  const std::string path = broadcast_bytes(*comm_, found ? found->string() : "", 0);
  return path.empty() ? std::nullopt : std::optional<std::filesystem::path>(path);
}

bool Trainer::resume() {
  const auto found = newest_checkpoint(/*good=*/false);
  if (found) resume(*found);
  return found.has_value();
}

void Trainer::resume(const std::filesystem::path& checkpoint) {
  counters_ = restore(checkpoint, model_, optimizers(), average());
  if (!rows_.fingerprint.empty() && counters_.data != rows_.fingerprint)
    throw Error(
        ErrorCode::kInvalidArgument,
        cat("[train.resume] ", checkpoint.string(),
            ": trained on other data or in another order. Give the same data, or another run folder."));
  if (config_.run.steps > 0 && config_.run.steps != counters_.planned_steps) {  // forced
    counters_.planned_steps = config_.run.steps;
    counters_.finished = counters_.step >= counters_.planned_steps;
  }
  if (config_.batch.workers == 0 && device_.is_cpu() && counters_.workers > 0 &&
      counters_.workers != num_workers_) {
    if (hooks_.note)
      hooks_.note(cat("this run began with ", counters_.workers,
                      " workers a step and keeps them, or its sums would ", "change; here would be ",
                      num_workers_, ". batch.workers says otherwise."));
    begin_workers(counters_.workers);
  }
  counters_.workers = num_workers_;
  saved_step_ = counters_.step;
  saved_at_ = counters_.seconds;
  if (hooks_.metrics) hooks_.metrics->truncate_after(counters_.step);
  progress_.step = counters_.step, progress_.steps = counters_.planned_steps;
  progress_.seconds = counters_.seconds, progress_.skipped = counters_.skipped;
}

bool Trainer::save_is_due() const {
  const CheckpointSection& c = config_.checkpoint;
  if (save_) return true;
  if (counters_.skips_in_a_row > 0) return false;  // not on the way to a rollback
  return (c.every > 0 && counters_.step % c.every == 0) ||
         (c.minutes > 0 && counters_.seconds - saved_at_ >= c.minutes * 60);
}

std::vector<AdamW::Moments> Trainer::gather_state() {
  HADAL_CHECK(!ranks_.spread()) << "no rank has all moments";
  ModelPart& all = parts_.front();
  return all.replicas && !all.layout ? gather_moments(*all.replicas, all.optimizer) : all.optimizer.moments();
}

void Trainer::save() {
  if (hooks_.save) hooks_.save->store(false);
  save_ = false;
  if (!saves_ || (saved_step_ == counters_.step && !counters_.finished)) return;
  if (hooks_.metrics) hooks_.metrics->sync();
  const int64_t optimizer_steps = parts_.front().optimizer.num_steps();
  if (ranks_.spread()) {
    save_by_ranks(ranks_, hooks_.checkpoints, counters_, model_, parts_, average());
  } else {
    const std::vector<AdamW::Moments> moments = gather_state();
    if (hooks_.checkpoints)
      hooks_.checkpoints->save(take_snapshot(counters_, model_, optimizer_steps, moments, average(),
                                             hooks_.checkpoints->copies()));
  }
  saved_step_ = counters_.step;
  saved_at_ = counters_.seconds;
}

void Trainer::save_model_to(const std::filesystem::path& folder, bool of_average) {
  const ModelWeights& weights = of_average && average_ ? average_->weights() : model_.weights();
  if (ranks_.spread()) return save_model_by_ranks(ranks_, folder, model_.config(), weights);
  if (!comm_ || comm_->rank() == 0) save_model(folder, model_.config(), weights);
}

// Back to the last good checkpoint, or to the start, with the data that follow the bad ones.
bool Trainer::roll_back() {
  const int64_t row = counters_.next_row, skipped = counters_.skipped, failed_step = counters_.step;
  const int64_t rollbacks = counters_.rollbacks + 1, planned_steps = counters_.planned_steps;
  const double seconds = counters_.seconds;
  const std::string trouble =
      cat(counters_.skips_in_a_row, " steps in a row had a non-finite gradient, the last is ", failed_step);
  if (rollbacks > config_.checkpoint.max_rollbacks) {
    if (hooks_.note) hooks_.note(cat(trouble, "; rolling back has not helped ", rollbacks - 1, " times."));
    return false;
  }
  const auto found = newest_checkpoint(/*good=*/true);
  if (found) {
    counters_ = restore(*found, model_, optimizers(), average());
  } else {
    NoGrad no_grad;
    ModelWeights start = start_weights(model_.config());
    std::vector<Tensor> tensors;
    for_each_weight(model_.config(), start,
                    [&](const WeightSpec&, Tensor& tensor) { tensors.push_back(tensor); });
    size_t next = 0;
    for_each_weight(model_.config(), model_.weights(),
                    [&](const WeightSpec&, Tensor& tensor) { tensor.copy_(tensors[next++]); });
    for (AdamW* optimizer : optimizers()) {
      for (AdamW::Moments& part : optimizer->moments()) part.m.zero_(), part.v.zero_();
      optimizer->set_num_steps(0);
    }
    if (average_) average_.emplace(model_, config_.optimizer.ema);
    counters_ = {.workers = num_workers_, .data = rows_.fingerprint};
  }
  counters_.next_row = row, counters_.skipped = skipped, counters_.rollbacks = rollbacks;
  counters_.planned_steps = planned_steps, counters_.seconds = seconds, counters_.skips_in_a_row = 0;
  if (hooks_.checkpoints) hooks_.checkpoints->drop_after(counters_.step);
  if (hooks_.metrics) hooks_.metrics->truncate_after(counters_.step);
  saved_step_ = counters_.step;
  if (hooks_.note)
    hooks_.note(cat(trouble, ": back to step ", counters_.step, ", on with the data from row ", row, "."));
  return true;
}

}  // namespace hadal
