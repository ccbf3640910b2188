#include "hadal/train/loop.h"

#include <algorithm>
#include <cmath>

#include "hadal/base/clock.h"
#include "hadal/parallel/expert_all_to_all.h"
#include "hadal/parallel/rank_tensor_sum.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"
#include "hadal/train/balance.h"
#include "hadal/train/pipeline_evaluate.h"
#include "hadal/train/rank_sum.h"
#include "hadal/train/schedule.h"

namespace hadal {
namespace {

Fp8Group fp8_group(const std::string& name) {
  return name == "tensor" ? Fp8Group::kTensor : name == "block" ? Fp8Group::kBlock : Fp8Group::kTile;
}

std::optional<Fp8Recipe> fp8_recipe(const TrainConfig& c) {
  if (c.compute.precision != "fp8") return std::nullopt;
  const Fp8Section& f = c.fp8;
  return Fp8Recipe{.sums = f.sums == "hopper"              ? Fp8Sums::kHopper
                           : f.sums == "hopper-unpromoted" ? Fp8Sums::kHopperUnpromoted
                                                           : Fp8Sums::kFp32,
                   .activations = fp8_group(f.activations),
                   .gradients = fp8_group(f.gradients),
                   .weights = fp8_group(f.weights),
                   .gradient_format = f.gradient_format == "e5m2" ? Fp8Format::kE5M2 : Fp8Format::kE4M3};
}

constexpr int64_t kProbeSteps = 8;  // after which a run bounded by time fixes its number of steps

LossConfig loss_config(const TrainConfig& c, double done) {
  return {.mtp_weight = mtp_weight(c.loss, done),
          .balance_alpha = c.loss.balance_alpha,
          .expert_alpha = c.loss.expert_alpha,
          .device_alpha = c.loss.device_alpha,
          .communication_alpha = c.loss.communication_alpha,
          .capacity_factor = c.loss.capacity_factor,
          .products = products_named(c.compute.precision),
          .fp8 = fp8_recipe(c),
          .recompute = *recompute_named(c.compute.recompute)};
}

// What all ranks must agree on: all but how many threads each has and where its files are.
std::string shared_config(TrainConfig config) {
  config.run.threads = 0, config.run.out = config.data.tokenizer = "";
  return train_config_toml(config, /*with_help=*/false);
}

}  // namespace

Trainer::Trainer(const TrainConfig& config, const ModelConfig& model, TrainRows rows, TrainHooks hooks)
    : config_(config),
      rows_(std::move(rows)),
      hooks_(std::move(hooks)),
      comm_(hooks_.comm && hooks_.comm->size() > 1 ? hooks_.comm : nullptr),
      device_(open_device(config.compute.device)),
      ranks_(config.parallel, model, config.batch.length, comm_),
      model_(model, start_weights(model), ranks_.share()),
      parts_(model_parts(ranks_, model_, adamw_config(config.optimizer), config.parallel.shard_optimizer)) {
  ranks_.check(config_, /*next_token=*/!rows_.objective.run);
  if (ranks_.spread())
    for (const int stage : ranks_.held())
      replicas_.push_back(replica_of(stage_of(ranks_, model_, stage), ranks_.block_ranks()));
  begin_workers(config.batch.workers > 0 ? config.batch.workers
                : device_.is_cpu()       ? default_workers(ranks_.split(), num_threads())
                                         : 1);
  saves_ = hooks_.checkpoints != nullptr;
  if (comm_) {
    require_same(*comm_, "the configuration", shared_config(config_));
    require_same(*comm_, "the data", rows_.fingerprint);
    require_same(*comm_, "the number of workers", std::to_string(num_workers_));
    saves_ = any_rank(*comm_, saves_);
  }
  if (config.optimizer.ema > 0) average_.emplace(model_, config.optimizer.ema);
  counters_.planned_steps = config.run.steps;
  counters_.data = rows_.fingerprint;
  counters_.workers = num_workers_;
}

ModelWeights Trainer::start_weights(const ModelConfig& model) const {
  const std::vector<Stage> stages = ranks_.pipeline() ? ranks_.held_stages() : std::vector<Stage>();
  const WeightShare share = ranks_.share();
  return on_device(model,
                   hooks_.start ? cut_to(model, hooks_.start(), share)
                                : random_weights(model, config_.run.seed, share, stages),
                   device_);
}

// Each data rank has its share of the workers; all have one at least, which may find no slots.
void Trainer::begin_workers(int64_t all) {
  const int64_t ranks = ranks_.data_ranks();
  num_workers_ = all;
  if (!ranks_.spread()) workers_.emplace(model_, (all + ranks - 1) / ranks);
}

// Until the length is known the run is in its warm-up: any large number gives the same start.
int64_t Trainer::planned() const {
  return counters_.planned_steps > 0 ? counters_.planned_steps : 1000;
}

HeldOut Trainer::measure() const {
  return evaluate(ranks_, model_,
                  {rows_.held_out_NX, rows_.held_out_start_NX, Tensor(), Tensor(), rows_.held_out_trained_NX},
                  rows_.token_bytes);
}

// Forward and backward of this rank's part of the next B rows.
Trainer::StepResults Trainer::run_slots(int64_t B, const LossConfig& loss) {
  const std::vector<RowSlot> slots = row_slots(B, config_.batch.micro, num_workers_);
  const auto n = static_cast<int64_t>(slots.size()), d = ranks_.data_rank();
  const int64_t begin = first_slot(n, d, ranks_.data_ranks()),
                end = first_slot(n, d + 1, ranks_.data_ranks());
  const auto of_slots = [begin](SlotResults results) {
    StepResults out{.first = begin, .losses = std::move(results.losses)};
    out.gradients.push_back(std::move(results.gradients));
    return out;
  };
  if (rows_.objective.run)
    return of_slots(workers_->run(slots, begin, end, [&](const Transformer& replica, const RowSlot& slot) {
      return rows_.objective.run(replica, counters_.next_row + slot.first, slot.rows, B);
    }));
  const auto first_row = [&](int64_t slot) { return slot < n ? slots[static_cast<size_t>(slot)].first : B; };
  const int64_t row = counters_.next_row + first_row(begin), rows = first_row(end) - first_row(begin);
  TrainBatch batch(zeros({0, config_.batch.length + 1 + model_.config().mtp_depth}, at::kLong));
  if (rows > 0) batch = rows_.read(row, rows);
  if (rows > 0 && config_.loss.capacity_factor > 0)
    batch.protected_B = never_dropped(config_.run.seed, row, rows, config_.loss.never_dropped_share);
  // Sums are divided by the counts of the whole step, so the slots' add up to it.
  int64_t targets = rows > 0 ? count_targets(model_.config(), batch) : 0;
  if (ranks_.data()) targets = sum_over_ranks(*ranks_.data(), targets);
  const LossDivisor divisor{.targets = std::max<int64_t>(1, targets), .rows = B};
  if (ranks_.spread())
    return run_stages({batch, slots, ranks_.block_slots(n), d % ranks_.block_ranks()}, loss, divisor);
  return of_slots(workers_->run(batch.on(device_), slots, begin, end, loss, divisor));
}

Trainer::StepResults Trainer::run_stages(const RankSlots& slots, const LossConfig& given,
                                         const LossDivisor& divisor) {
  LossConfig loss = given;
  std::optional<ExpertAllToAll> exchange;
  if (ranks_.block()) loss.exchange = &exchange.emplace(*ranks_.block());
  std::optional<RankTensorSum> sum;
  if (ranks_.tensor()) loss.tensor_sum = &sum.emplace(*ranks_.tensor());
  PipelineStages work(ranks_.stages(), ranks_.held(), replicas_, slots, loss, divisor);
  const int threads = num_threads();
  if (const int64_t rounds = slots.rounds(); rounds > 0)
    run_pipeline(ranks_.chain(), ranks_.schedule(rounds),
                 stage_links(model_.config(), static_cast<int>(ranks_.stages().size())), work);
  set_num_threads(threads);
  return {.gradients = work.take_sums(), .first = slots.begin(slots.rank), .losses = work.losses()};
}

bool Trainer::step() {
  const int64_t J = model_.config().mtp_depth, T = config_.batch.length;
  const int64_t B = batch_size(config_.batch, counters_.tokens);
  const int64_t total_tokens = planned_tokens(config_.batch, planned());
  const double done = static_cast<double>(counters_.tokens + B * T) / static_cast<double>(total_tokens);
  StepResults slots = run_slots(B, loss_config(config_, done));
  StepLoss loss;
  if (comm_) {
    loss = sum_losses(ranks_.numbers(), slots.first, slots.losses);
  } else {
    for (const StepLoss& part : slots.losses) add(loss, part);
  }
  const std::vector<ExpertLoad>& loads = loss.loads;
  progress_.loss = loss.main, progress_.balance_loss = loss.balance;
  progress_.mtp_loss = J > 0 ? loss.mtp[0] : 0;
  mtp_losses_ = loss.mtp;
  progress_.rate = learning_rate(config_.schedule, config_.optimizer.lr, counters_.step, planned(), done);
  progress_.grad_norm = update(ranks_, parts_, slots.gradients, progress_.rate);
  const bool finite = std::isfinite(progress_.grad_norm);
  progress_.max_violation = max_violation(loads);
  has_experts_ = !loads.empty();
  if (finite) {
    const double gamma = bias_step(config_.loss, done);
    if (gamma > 0) update_balance_bias(model_, loads, gamma);
    if (average_) average_->update(model_);
    counters_.skips_in_a_row = 0;
  } else {
    ++counters_.skipped, ++counters_.skips_in_a_row;
  }
  for (const ExpertLoad& load : loads) {
    const std::vector<int64_t> counts = to_ints(load.count_E);
    std::vector<int64_t>& sum = counters_.load_since[load.layer];
    sum.resize(counts.size());
    for (size_t i = 0; i < counts.size(); ++i) sum[i] += counts[i];
  }
  ++counters_.step;
  counters_.tokens += B * T, counters_.next_row += B;
  step_tokens_ = B * T, process_tokens_ += step_tokens_;
  return finite;
}

void Trainer::record_step() {
  StepRecord record{.step = counters_.step,
                    .tokens = counters_.tokens,
                    .loss = progress_.loss,
                    .mtp_loss = mtp_losses_,
                    .balance_loss = progress_.balance_loss,
                    .lr = progress_.rate,
                    .grad_norm = progress_.grad_norm,
                    .skipped = counters_.skipped};
  if (has_experts_) record.max_vio = progress_.max_violation;
  TimingRecord timing{.step = counters_.step,
                      .seconds = step_seconds_,
                      .tokens_per_second = static_cast<double>(step_tokens_) / step_seconds_};
  if (hooks_.peak_flops > 0)
    timing.mfu = timing.tokens_per_second * hooks_.flops_per_token / hooks_.peak_flops;
  if (hooks_.metrics) hooks_.metrics->add(record), hooks_.metrics->add(timing);
  if (hooks_.tensorboard) hooks_.tensorboard->add(record), hooks_.tensorboard->add(timing);
}

void Trainer::record_loads() {
  LoadRecord record{.step = counters_.step};
  for (const auto& [layer, load] : counters_.load_since) record.layers.push_back({layer, load});
  counters_.load_since.clear();
  if (record.layers.empty()) return;
  if (hooks_.metrics) hooks_.metrics->add(record);
  if (hooks_.tensorboard) hooks_.tensorboard->add(record);
}

void Trainer::record_eval() {
  if (!ranks_.measures()) return;  // waits for the others in the next step
  EvalRecord record;
  if (rows_.objective.measure) {
    record = rows_.objective.measure(model_);
    record.step = counters_.step;
  } else {
    if (!rows_.held_out_NX.defined() || rows_.held_out_NX.size(0) == 0) return;
    const HeldOut found = measure();
    record = {.step = counters_.step,
              .loss = found.loss,
              .bits_per_byte = found.bits_per_byte,
              .mtp_acceptance = found.mtp_acceptance,
              .max_vio = found.max_vio,
              .accuracy = found.accuracy};
  }
  if (hooks_.metrics) hooks_.metrics->add(record);
  if (hooks_.tensorboard) hooks_.tensorboard->add(record);
  if (hooks_.measured) hooks_.measured(record);
}

// Fixes the number of steps of a run bounded by time: always after the same step, since the rates of the
// steps before do not know the number yet.
bool Trainer::calibrate() {
  TrainCounters& c = counters_;
  if (c.planned_steps > 0) return false;
  if (process_steps_ > 2) ++c.probe_steps, c.probe_seconds += step_seconds_;  // the first ones warm caches
  if (c.step < kProbeSteps) return false;
  const double one = c.probe_steps > 0 ? c.probe_seconds / static_cast<double>(c.probe_steps) : step_seconds_;
  const double left = 0.98 * config_.run.minutes * 60 - c.seconds;
  c.planned_steps = c.step + std::max<int64_t>(1, static_cast<int64_t>(left / one));
  return true;
}

void Trainer::after_step(bool last, bool save_now) {
  record_step();
  const EvalSection& e = config_.eval;
  if (e.loads_every > 0 && counters_.step % e.loads_every == 0) record_loads();
  if (last || (e.every > 0 && counters_.step % e.every == 0)) record_eval();
  counters_.finished = last;
  if (last || (save_now && counters_.skips_in_a_row == 0) || save_is_due()) save();
}

void Trainer::agree() {
  now_ = hooks_.clock ? hooks_.clock() : now_seconds();
  stop_ = hooks_.stop && hooks_.stop->load();
  save_ = hooks_.save && hooks_.save->load();
  if (!comm_) return;
  struct Wish {
    double now;
    int64_t stop, save;
  };
  const Wish mine{now_, stop_, save_};
  std::vector<Wish> all(static_cast<size_t>(comm_->size()));
  all_gather(*comm_, &mine, sizeof mine, all.data());
  now_ = all[0].now;
  for (const Wish& wish : all) stop_ = stop_ || wish.stop, save_ = save_ || wish.save;
}

TrainEnd Trainer::run() {
  const double budget = config_.run.minutes > 0 ? config_.run.minutes * 60 : INFINITY;
  const auto stopping = [&] { return comm_ ? stop_ : hooks_.stop && hooks_.stop->load(); };
  if (counters_.finished) return TrainEnd::kFinished;
  if (counters_.step == 0 && (!hooks_.metrics || hooks_.metrics->last_step() < 0)) record_eval();
  agree();
  double last_time = now_;
  while (!counters_.finished) {
    if (stopping()) {
      counters_.skips_in_a_row > 0 ? (saved_step_ = -1, save()) : save();
      return TrainEnd::kStopped;
    }
    step();
    agree();
    step_seconds_ = now_ - last_time, last_time = now_;
    counters_.seconds += step_seconds_, process_seconds_ += step_seconds_, ++process_steps_;
    const bool fixed = calibrate();
    progress_.step = counters_.step, progress_.steps = counters_.planned_steps;
    progress_.seconds = counters_.seconds, progress_.skipped = counters_.skipped;
    progress_.tokens_per_second = static_cast<double>(process_tokens_) / process_seconds_;
    if (hooks_.peak_flops > 0)
      progress_.mfu = progress_.tokens_per_second * hooks_.flops_per_token / hooks_.peak_flops;
    if (counters_.skips_in_a_row > config_.checkpoint.max_skips_in_a_row) {
      if (!roll_back()) return TrainEnd::kFailed;
      continue;
    }
    const bool last = (counters_.planned_steps > 0 && counters_.step >= counters_.planned_steps) ||
                      counters_.seconds >= budget;
    after_step(last, fixed);
    if (hooks_.report) hooks_.report(progress_);
  }
  return TrainEnd::kFinished;
}

}  // namespace hadal
