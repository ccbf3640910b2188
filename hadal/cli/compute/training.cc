#include "hadal/cli/compute/training.h"

#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>

#include "hadal/base/file.h"
#include "hadal/base/machine.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/load.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/compute/train_signals.h"
#include "hadal/cli/compute/training_rows.h"
#include "hadal/cli/version.h"
#include "hadal/config/context_extension.h"
#include "hadal/config/presets.h"
#include "hadal/error.h"
#include "hadal/planner.h"
#include "hadal/posttrain/reward_step.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"
#include "hadal/train/gemm_peak.h"
#include "hadal/train/run_folder.h"
#include "hadal/train/schedule.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

// One line that is rewritten on a terminal, a line every five seconds elsewhere.
class ProgressLine {
 public:
  void operator()(const TrainProgress& p) {
    const double gap = terminal_ ? 0.2 : 5.0;
    const bool last = p.step == p.steps;
    if (p.seconds - shown_ < gap && !last && any_) return;
    any_ = true;
    shown_ = p.seconds;
    const double ahead = static_cast<double>(std::max<int64_t>(0, p.steps - p.step));
    const auto left = static_cast<int64_t>(p.seconds / static_cast<double>(p.step) * ahead);
    char text[256];
    std::snprintf(text, sizeof text,
                  "step %5lld/%lld  loss %.3f  mtp %.3f  lr %.1e  grad %.2f  MaxVio %.2f  %s tok/s  MFU %.0f "
                  "%%  left %lld:%02lld",
                  static_cast<long long>(p.step), static_cast<long long>(p.steps), p.loss, p.mtp_loss, p.rate,
                  p.grad_norm, p.max_violation,
                  with_commas(static_cast<int64_t>(p.tokens_per_second)).c_str(), 100 * p.mfu,
                  static_cast<long long>(left / 60), static_cast<long long>(left % 60));
    std::fprintf(stderr, terminal_ && !last ? "\r%s  " : terminal_ ? "\r%s  \n" : "%s\n", text);
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO), any_ = false;
  double shown_ = 0;
};

std::string eval_text(const EvalRecord& r) {
  char text[160];
  int n = std::snprintf(text, sizeof text, "held-out loss %.3f", r.loss);
  const auto add = [&](const char* format, double value) {
    n += std::snprintf(text + n, sizeof text - static_cast<size_t>(n), format, value);
  };
  if (r.bits_per_byte) add(", %.3f bits per byte", *r.bits_per_byte);
  if (r.accuracy) add(", %.1f %% right", 100 * *r.accuracy);
  if (r.max_vio) add(", MaxVio %.2f", *r.max_vio);
  if (!r.mtp_acceptance.empty()) add("; MTP guesses %.0f %% of the next tokens", 100 * r.mtp_acceptance[0]);
  return text;
}

RunRecord run_record(const TrainConfig& config, const ModelConfig& model) {
  const std::string& name = !config.model.preset.empty()  ? config.model.preset
                            : !config.model.start.empty() ? config.model.start
                                                          : config.model.config;
  RunRecord record = run_record(name, model, config.run.seed, config.run.steps);
  record.dtype = config.compute.precision;
  record.tokens_per_step = config.batch.sequences * config.batch.length;
  return record;
}

// Discards a finished run, or one of another configuration.
void discard_finished(RunFolder& folder, const TrainConfig& config) {
  if (!folder.has_checkpoints()) return;
  bool go_on = fs::exists(folder.path() / "config.toml") &&
               result_changes(load_train_config(folder.path() / "config.toml"), config).empty();
  if (go_on) {
    CheckpointStore store(folder.checkpoints(), 1, false, {}, note);
    const auto newest = store.newest();
    go_on = newest && !read_counters(*newest).finished;
  }
  if (!go_on) folder.discard();
}

void summarise(const Trainer& trainer, TrainEnd end, const fs::path& out) {
  const TrainProgress& p = trainer.progress();
  if (p.skipped > 0)
    std::fprintf(stderr, "%lld steps had a non-finite gradient and were left out\n",
                 static_cast<long long>(p.skipped));
  std::fprintf(stderr, "%s %lld steps (%.0f s, %s tokens/s), saved to %s\n",
               end == TrainEnd::kStopped ? "stopped after" : "trained", static_cast<long long>(p.step),
               p.seconds, with_commas(static_cast<int64_t>(p.tokens_per_second)).c_str(), out.c_str());
  if (end == TrainEnd::kStopped) std::fputs("the same command goes on from here\n", stderr);
}

// That the share of the peak refers to: of f32 on the CPU, of the precision computed in on a GPU.
double peak_flops(const TrainConfig& config, at::Device device) {
  if (device.is_cpu()) return gemm_peak();
  return gemm_peak(kGpuPeakSize, config.compute.precision == "bf16" ? at::kBFloat16 : at::kFloat, device);
}

StartWeights start_of(const TrainConfig& config) {
  if (config.model.start.empty()) return {};
  if (!config.data.preferences.empty())
    return [folder = config.model.start, seed = config.run.seed] {
      if (load_config(folder).scores) return load_model(folder, DType::kF32, Purpose::kReward).weights();
      const Transformer model = load_model(folder, DType::kF32);
      return reward_weights(model.config(), model.weights(), seed);
    };
  return [folder = config.model.start] { return load_model(folder, DType::kF32).weights(); };
}

// With the number of steps that run.epochs comes to.
TrainConfig with_steps(TrainConfig config, const TrainingData& data) {
  if (config.run.epochs <= 0 || data.rows_per_epoch == 0) return config;
  const double rows = config.run.epochs * static_cast<double>(data.rows_per_epoch);
  config.run.steps = std::max<int64_t>(
      1, static_cast<int64_t>(std::ceil(rows / static_cast<double>(config.batch.sequences))));
  return config;
}

void learn_special_ids(ModelConfig& model, const TrainingData& data) {
  if (data.tokenizer) {
    model.bos_id = data.tokenizer->bos_id().value_or(-1);
    model.eos_ids.clear();
    if (data.tokenizer->eos_id()) model.eos_ids.push_back(*data.tokenizer->eos_id());
  }
  model.stored_dtype = DType::kF32;
}

// The model of the run folder once more, as published checkpoints are.
void export_again(const TrainConfig& config, const fs::path& out) {
  const std::string& format = config.run.also_export;
  if (format.empty()) return;
  convert(out, out / format, {.dtype = format == "fp8" ? DType::kF8E4M3 : DType::kBF16, .overwrite = true});
}

// Every rank but the first: computes its part and writes nothing.
TrainedModel follow(const TrainConfig& config, ModelConfig model, Comm& comm) {
  barrier(comm);  // rank 0 has put the tokenizer into the folder
  const fs::path out = config.run.out;
  TrainConfig reading = config;
  if (fs::exists(out / "tokenizer.json")) reading.data.tokenizer = out;
  TrainingData data = open_training_data(reading, model, out, /*keep_tokenizer=*/true);
  learn_special_ids(model, data);
  Trainer trainer(with_steps(config, data), model, std::move(data.rows),
                  {.stop = &stop_asked(), .save = &save_asked(), .start = start_of(config), .comm = &comm});
  trainer.resume();
  const TrainEnd end = trainer.run();
  if (end != TrainEnd::kFailed) trainer.save_model_to(out, config.optimizer.export_ema && trainer.average());
  barrier(comm);  // rank 0 has saved the model
  return {.model = trainer.model(), .tokenizer = data.tokenizer, .end = end};
}

}  // namespace

RunRecord run_record(const std::string& name, const ModelConfig& model, uint64_t seed, int64_t steps) {
  const ModelSize size = model_size(model);
  return {.model = name,
          .parameters = size.main.total() + size.mtp.total(),
          .active_parameters = size.active.total(),
          .machine = this_machine().cpu,
          .threads = num_threads(),
          .dtype = "f32",
          .seed = seed,
          .planned_steps = steps,
          .num_experts = model.moe.num_experts,
          .top_k = model.moe.top_k};
}

int TrainedModel::exit_code() const {
  return end == TrainEnd::kStopped  ? kInterruptedTrainExit
         : end == TrainEnd::kFailed ? kDivergedTrainExit
                                    : 0;
}

ModelConfig model_config_of(const TrainConfig& config) {
  const ModelSection& m = config.model;
  const ModelConfig own = !m.start.empty()    ? start_config(m.start)
                          : !m.config.empty() ? load_config(m.config)
                                              : preset(m.preset.empty() ? "tiny" : m.preset);
  require_dense_attention(own, m.config);  // of `start` it has been asked, and no preset has it
  const ModelConfig model = m.context > 0 ? extended(own, m.context, m.yarn_factor) : own;
  return !m.start.empty() && !config.data.preferences.empty() ? reward_config(model) : model;
}

TrainedModel train_in_folder(const TrainConfig& config, const TrainFlags& flags, Comm* comm) {
  ModelConfig model = model_config_of(config);
  if (config.batch.length > model.max_positions)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.train] --length is ", config.batch.length, ", the model's context is ",
                    model.max_positions, ". Choose a shorter length."));
  const at::Device device = open_device(config.compute.device);
  const TrainSignals signals;
  if (comm && comm->rank() != 0) return follow(config, std::move(model), *comm);
  RunFolder folder(config.run.out);
  const fs::path& out = folder.path();
  if (flags.restart) folder.discard();
  if (flags.restart_finished) discard_finished(folder, config);
  folder.settle_config(config, flags.force_config, note);
  TrainingData data = open_training_data(config, model, out, /*keep_tokenizer=*/folder.has_checkpoints());
  std::fputs(data.summary.c_str(), stderr);
  learn_special_ids(model, data);
  if (comm) barrier(*comm);

  CheckpointStore checkpoints(folder.checkpoints(), config.checkpoint.keep, config.checkpoint.background,
                              files_beside(out), note);
  const auto newest = checkpoints.newest();
  if (!newest)
    for (const char* name : {"metrics.jsonl", "timing.jsonl", "tensorboard"}) fs::remove_all(out / name);
  MetricsWriter metrics(out);
  ProgressLine progress;
  Trainer trainer(
      with_steps(config, data), model, std::move(data.rows),
      {.report = [&](const TrainProgress& p) { progress(p); },
       .note = note,
       .measured =
           [](const EvalRecord& r) {
             std::fprintf(stderr, "%s after %lld steps\n", eval_text(r).c_str(),
                          static_cast<long long>(r.step));
           },
       .stop = &stop_asked(),
       .save = &save_asked(),
       .checkpoints = &checkpoints,
       .metrics = &metrics,
       .start = start_of(config),
       // Forward and twice that backward, of the main model.
       .flops_per_token = 3.0 * static_cast<double>(prefill_flops(model, config.batch.length).total()),
       .peak_flops = peak_flops(config, device) * static_cast<double>(comm ? comm->size() : 1),
       .comm = comm});
  if (trainer.resume()) {
    std::fprintf(stderr, "%s: going on after step %lld%s\n", out.c_str(),
                 static_cast<long long>(trainer.counters().step),
                 trainer.counters().finished ? ", which was the last (--restart trains anew)" : "");
  }
  const TrainEnd end = run_to_end(trainer, run_record(config, model), out, metrics, checkpoints);
  if (end != TrainEnd::kFailed) {
    const bool average = config.optimizer.export_ema && trainer.average();
    trainer.save_model_to(out, average);
    export_again(config, out);
    summarise(trainer, end, out);
    if (data.finish) std::fputs(data.finish(trainer.model(), out).c_str(), stderr);
  }
  if (comm) barrier(*comm);
  return {.model = trainer.model(), .tokenizer = data.tokenizer, .end = end};
}

}  // namespace hadal
