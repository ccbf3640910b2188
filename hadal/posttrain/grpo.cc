#include "hadal/posttrain/grpo.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "hadal/base/clock.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/config/weight_specs.h"
#include "hadal/error.h"
#include "hadal/model/network_view.h"
#include "hadal/posttrain/alarms.h"
#include "hadal/tensor/make.h"
#include "hadal/train/schedule.h"

namespace hadal {
namespace {

// into = (1 - share) into + share from, all tensors.
void mix_in(const ModelConfig& config, ModelWeights& into, const ModelWeights& from, double share) {
  NoGrad no_grad;
  ModelWeights source = from;
  std::vector<Tensor> tensors;
  for_each_weight(config, source, [&](const WeightSpec&, Tensor& tensor) { tensors.push_back(tensor); });
  size_t next = 0;
  for_each_weight(config, into, [&](const WeightSpec&, Tensor& tensor) {
    share == 1 ? tensor.copy_(tensors[next++]) : tensor.lerp_(tensors[next++], share);
  });
}

// The engine's word and the scorer's on every token it wrote must be the same bits: one policy.
void require_same_logps(const Sample& sample, const ScoredSample& scored) {
  for (size_t t = 0; t < sample.ids.size(); ++t)
    if (sample.is_written(t) && sample.logp[t] != scored.logp[t])
      throw Error(ErrorCode::kInternal,
                  cat("[posttrain.grpo] token ", t, " of an answer has log probability ", sample.logp[t],
                      " when sampled and ", scored.logp[t], " when computed again: they must be equal. The ",
                      "engine and the trainer do not see the same weights."));
}

}  // namespace

GrpoTrainer::GrpoTrainer(const GrpoConfig& config, const ModelConfig& model, ModelWeights start,
                         Tokenizer tokenizer, const PromptTasks& tasks, const PromptTasks* held_out,
                         ScoreAnswers score, GrpoHooks hooks)
    : config_(config),
      tokenizer_(std::move(tokenizer)),
      tasks_(tasks),
      held_out_(held_out),
      score_(std::move(score)),
      hooks_(std::move(hooks)),
      model_(model, std::move(start)),
      optimizer_(model_, adamw_config(config.optimizer)),
      scorer_(network_view(model, model_.weights()), static_cast<int>(config.run.threads)) {
  if (config_.run.threads == 0) config_.run.threads = num_threads();
  counters_.workers = config.batch.workers > 0 ? config.batch.workers : num_threads();
  counters_.planned_steps = config.run.steps;
  counters_.data = tasks.fingerprint();
  workers_.emplace(model_, counters_.workers);
  if (config.loss.beta > 0) {
    reference_ = copy_of(model, model_.weights());
    reference_scorer_.emplace(network_view(model, *reference_), static_cast<int>(config.run.threads));
  }
}

bool GrpoTrainer::resume() {
  const auto found = hooks_.checkpoints ? hooks_.checkpoints->newest() : std::nullopt;
  if (!found) return false;
  const int64_t workers = counters_.workers;
  const std::string data = counters_.data;
  counters_ = restore(*found, model_, {&optimizer_}, nullptr);
  if (counters_.data != data)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[posttrain.resume] ", found->string(),
                    ": trained on other tasks. Give the same tasks, or another run folder."));
  if (config_.batch.workers == 0 && counters_.workers != workers) workers_.emplace(model_, counters_.workers);
  counters_.planned_steps = config_.run.steps;
  counters_.finished = is_over();
  if (reference_) {
    mix_in(model_.config(), *reference_, restore_reference(*found, model_.config()), 1);
    reference_step_ = parse_json(counters_.more, "state.json more").at("reference_step");
  }
  saved_step_ = counters_.step;
  if (hooks_.metrics) hooks_.metrics->truncate_after(counters_.step);
  if (hooks_.completions) hooks_.completions->truncate_after(counters_.step);
  return true;
}

// A new one for every state of the weights: what it has cached is of the old ones.
Engine GrpoTrainer::make_engine() const {
  const ModelConfig& model = model_.config();
  const int64_t longest = model.max_positions, sequences = 64;
  EngineConfig config{.threads = static_cast<int>(config_.run.threads), .cache_dtype = "f32"};
  config.max_sequences = sequences;
  config.cache_tokens = std::min(sequences * longest, int64_t{1} << 18);
  config.cache_tokens = std::max(config.cache_tokens, longest);
  const std::string& word = config_.rollout.speculation;
  config.speculation = word == "on"    ? Speculation::kOn
                       : word == "off" ? Speculation::kOff
                                       : Speculation::kAuto;
  return Engine(network_view(model, model_.weights()), tokenizer_, config);
}

// Without KL, answers of advantage 0 train nothing.
bool GrpoTrainer::trains(const ScoredAnswer& answer) const {
  return !is_masked(answer) && (answer.advantage != 0 || config_.loss.beta > 0 || config_.loss.entropy > 0);
}

bool GrpoTrainer::is_masked(const ScoredAnswer& answer) const {
  return config_.loss.mask_truncated && !answer.sample.stopped();
}

// What the policy that sampled says of the trained answers, in order: what the engine noted. Some of each
// group's are computed again and must be the same bits.
std::vector<ScoredSample> GrpoTrainer::sampling_scores(const TrainedSamples& groups) {
  const double T = config_.rollout.temperature;
  const bool all = !checked_ || config_.rollout.check == "all" || T != 1;
  std::vector<const Sample*> again;
  for (const std::vector<const Sample*>& group : groups)
    for (size_t i = 0; i < group.size(); ++i)
      if (all || i == static_cast<size_t>(counters_.step) % group.size() || !group[i]->written.empty())
        again.push_back(group[i]);
  if (again.empty()) return {};
  checked_ = true;
  const std::vector<ScoredSample> scored = scorer_.score(again, T);
  for (size_t i = 0; i < again.size(); ++i) require_same_logps(*again[i], scored[i]);
  std::vector<ScoredSample> out;
  size_t next = 0;
  for (const std::vector<const Sample*>& group : groups) {
    const size_t first = next;
    for (const Sample* sample : group) {
      const bool is_scored = next < again.size() && again[next] == sample;
      out.push_back(is_scored ? scored[next++] : as_sampled(*sample, scored[first]));
    }
  }
  return out;
}

GrpoTrainer::FrozenScores GrpoTrainer::frozen_scores(const std::vector<AnswerGroup>& groups,
                                                     TimingRecord& timing) {
  TrainedSamples trained(groups.size());
  std::vector<const Sample*> all;
  for (size_t g = 0; g < groups.size(); ++g)
    for (const ScoredAnswer& answer : groups[g].answers)
      if (trains(answer)) trained[g].push_back(&answer.sample), all.push_back(&answer.sample);
  FrozenScores out;
  const double start = now_seconds();
  out.old = sampling_scores(trained);
  const double scored = now_seconds();
  if (reference_ && !all.empty()) out.reference = reference_scorer_->score(all, config_.rollout.temperature);
  timing.parts.emplace_back("score", scored - start);
  timing.parts.emplace_back("ref", now_seconds() - scored);
  return out;
}

// Groups [first, last) as one update sees them; `next`: of the trained answers before them.
GrpoTrainer::Minibatch GrpoTrainer::minibatch(const std::vector<AnswerGroup>& groups, int64_t first,
                                              int64_t last, const FrozenScores& scores, size_t& next) const {
  Minibatch out;
  for (int64_t g = first; g < last; ++g)
    for (const ScoredAnswer& answer : groups[static_cast<size_t>(g)].answers) {
      ++out.divisor.completions;
      out.divisor.tokens += is_masked(answer) ? 0 : answer.sample.num_written();
      if (!trains(answer)) continue;
      const ScoredSample* reference = reference_ ? &scores.reference[next] : nullptr;
      out.samples.push_back({&answer.sample, &scores.old[next], reference, answer.advantage});
      ++next;
    }
  return out;
}

bool GrpoTrainer::update(const std::vector<AnswerGroup>& groups, ValuesRecord& values, TimingRecord& timing) {
  const FrozenScores scores = frozen_scores(groups, timing);
  const double start = now_seconds();
  const PolicyStepConfig step_config{.loss = policy_loss_config(config_),
                                     .temperature = config_.rollout.temperature,
                                     .entropy = config_.loss.entropy,
                                     .row_tokens = config_.batch.row_tokens,
                                     .micro = config_.batch.micro,
                                     .workers = counters_.workers,
                                     .replay_routes = config_.loss.replay_routes};
  const int64_t M = config_.loss.minibatches, N = std::ssize(groups);
  const double done = static_cast<double>(counters_.step + 1) / static_cast<double>(config_.run.steps);
  const double rate =
      learning_rate(config_.schedule, config_.optimizer.lr, counters_.step, config_.run.steps, done);
  PolicyStepResult sum, first;
  double norm = 0;
  for (int64_t pass = 0; pass < config_.loss.iterations; ++pass) {
    size_t next = 0;
    for (int64_t m = 0; m < M; ++m) {
      const Minibatch batch = minibatch(groups, N * m / M, N * (m + 1) / M, scores, next);
      PolicyStepResult result =
          policy_step(*workers_, model_.config(), step_config, batch.samples, batch.divisor);
      if (pass == 0 && m == 0) require_near_sampling(result, first);
      if (!batch.samples.empty()) {
        norm = global_norm(optimizer_.tensor_squares(optimizer_.block_squares(result.gradients)));
        if (!std::isfinite(norm)) return false;
        optimizer_.update(rate, norm, result.gradients);
      }
      add(sum, result);
    }
  }
  const auto updates = static_cast<double>(M * config_.loss.iterations);
  values.values = {{"loss", sum.loss / updates}, {"grad_norm", norm}, {"learning_rate", rate}};
  add_update_values(sum, first, values);
  timing.parts.emplace_back("update", now_seconds() - start);
  return true;
}

// Before the first update training and sampling are the same policy, up to rounding.
void GrpoTrainer::require_near_sampling(const PolicyStepResult& result, PolicyStepResult& first) const {
  first.tokens = result.tokens;
  first.logp_difference_sum = result.logp_difference_sum;
  first.logp_difference_max = result.logp_difference_max;
  if (result.logp_difference_max > config_.rollout.max_logp_difference)
    throw Error(ErrorCode::kInternal,
                cat("[posttrain.grpo] step ", counters_.step + 1,
                    ": log probabilities of training and sampling differ by ", result.logp_difference_max,
                    ", rollout.max_logp_difference is ", config_.rollout.max_logp_difference,
                    ". Raise it if the model's numbers are that large, else report this."));
}

void GrpoTrainer::add_update_values(const PolicyStepResult& sum, const PolicyStepResult& first,
                                    ValuesRecord& values) const {
  const auto share = [](double x, int64_t n) { return x / static_cast<double>(std::max<int64_t>(1, n)); };
  const auto add = [&](const char* name, double value) { values.values.emplace_back(name, value); };
  const auto low = static_cast<double>(sum.clipped_low), high = static_cast<double>(sum.clipped_high);
  add("entropy", share(sum.entropy, sum.tokens));
  if (reference_) {
    add("kl", share(sum.kl, sum.tokens));
    add("ref/age", static_cast<double>(counters_.step - reference_step_));
  }
  add("clip_ratio/low_mean", share(low, sum.tokens)), add("clip_ratio/high_mean", share(high, sum.tokens));
  add("clip_ratio/region_mean", share(low + high, sum.tokens));
  add("sampling/logp_difference/mean", share(first.logp_difference_sum, first.tokens));
  add("sampling/logp_difference/max", first.logp_difference_max);
  if (sum.routes > 0) add("moe/route_change", share(static_cast<double>(sum.routes_changed), sum.routes));
  add("trained_tokens", static_cast<double>(sum.tokens));
}

void GrpoTrainer::refresh_reference() {
  if (!reference_ || config_.reference.refresh == "never") return;
  if (counters_.step % config_.reference.every != 0) return;
  mix_in(model_.config(), *reference_, model_.weights(),
         config_.reference.refresh == "copy" ? 1 : config_.reference.mix);
  reference_step_ = counters_.step;
}

void GrpoTrainer::log_completions(const std::vector<AnswerGroup>& groups) {
  const int64_t every = config_.run.log_completions;
  if (!hooks_.completions || every == 0 || (counters_.step != 1 && counters_.step % every != 0)) return;
  for (const AnswerGroup& group : groups)
    for (const ScoredAnswer& answer : group.answers)
      hooks_.completions->append(completion_line(counters_.step, tasks_.task(group.task), answer),
                                 counters_.step);
}

void GrpoTrainer::warn(const ValuesRecord& values) {
  if (!hooks_.note) return;
  for (const std::string& alarm : alarms(values, first_ ? *first_ : values)) hooks_.note(alarm);
  if (!first_) first_ = values;
}

bool GrpoTrainer::step() {
  const double start = now_seconds();
  Engine engine = make_engine();
  GroupBatch batch = collect_groups(engine, tasks_, config_, score_, counters_.next_row, hooks_.episode);
  const EngineStats stats = engine.stats();
  ValuesRecord values{.kind = "rl", .step = counters_.step + 1};
  TimingRecord timing{.step = counters_.step + 1};
  timing.parts = {{"rollout", batch.rollout_seconds}, {"reward", batch.reward_seconds}};
  if (!update(batch.groups, values, timing)) return false;
  add_group_values(batch.groups, values);
  ++counters_.step;
  counters_.next_row = batch.next_draw;
  counters_.tokens += stats.generated_tokens;
  values.values.emplace_back("groups/replaced", static_cast<double>(batch.replaced));
  values.values.emplace_back("num_tokens", static_cast<double>(counters_.tokens));
  values.values.emplace_back("epoch",
                             static_cast<double>(counters_.next_row) / static_cast<double>(tasks_.size()));
  refresh_reference();
  timing.seconds = now_seconds() - start;
  timing.tokens_per_second = static_cast<double>(stats.generated_tokens) / timing.seconds;
  if (stats.drafted_tokens > 0)
    timing.parts.emplace_back("mtp/accept_rate", static_cast<double>(stats.accepted_tokens) /
                                                     static_cast<double>(stats.drafted_tokens));
  counters_.seconds += timing.seconds;
  if (hooks_.metrics) hooks_.metrics->add(values), hooks_.metrics->add(timing);
  if (hooks_.tensorboard) hooks_.tensorboard->add(values), hooks_.tensorboard->add(timing);
  log_completions(batch.groups);
  if (hooks_.report) hooks_.report(values, timing);
  warn(values);
  return true;
}

void GrpoTrainer::measure() {
  if (!held_out_) return;
  Engine engine = make_engine();
  ValuesRecord values = measure_tasks(engine, *held_out_, config_, score_, hooks_.episode);
  values.step = counters_.step;
  if (hooks_.metrics) hooks_.metrics->add(values);
  if (hooks_.tensorboard) hooks_.tensorboard->add(values);
  if (hooks_.measured) hooks_.measured(values);
}

void GrpoTrainer::save() {
  if (hooks_.save) hooks_.save->store(false);
  if (!hooks_.checkpoints || (saved_step_ == counters_.step && !counters_.finished)) return;
  if (hooks_.metrics) hooks_.metrics->sync();
  if (hooks_.completions) hooks_.completions->sync();
  counters_.more = dump_json({{"reference_step", reference_step_}});
  const bool copies = hooks_.checkpoints->copies();
  TrainSnapshot snapshot = take_snapshot(counters_, model_, optimizer_, nullptr, copies);
  if (reference_) snapshot.reference = copies ? copy_of(model_.config(), *reference_) : *reference_;
  hooks_.checkpoints->save(std::move(snapshot));
  saved_step_ = counters_.step;
}

bool GrpoTrainer::is_over() const {
  const double seconds = config_.run.minutes > 0 ? config_.run.minutes * 60 : INFINITY;
  return counters_.step >= counters_.planned_steps || counters_.seconds >= seconds;
}

TrainEnd GrpoTrainer::run() {
  if (counters_.finished) return TrainEnd::kFinished;
  if (counters_.step == 0 && (!hooks_.metrics || hooks_.metrics->last_step() < 0)) measure();
  while (!counters_.finished) {
    if (hooks_.stop && hooks_.stop->load()) {
      save();
      return TrainEnd::kStopped;
    }
    if (!step()) return TrainEnd::kFailed;
    const bool last = is_over();
    const int64_t every = config_.eval.every, save_every = config_.checkpoint.every;
    if (last || (every > 0 && counters_.step % every == 0)) measure();
    counters_.finished = last;
    const bool asked = hooks_.save && hooks_.save->load();
    if (last || asked || (save_every > 0 && counters_.step % save_every == 0)) save();
  }
  return TrainEnd::kFinished;
}

}  // namespace hadal
