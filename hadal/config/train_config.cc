#include "hadal/config/train_config.h"

#include <sstream>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/config/recompute.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr ConfigDialect kDialect{"[config.train]", "hadal train"};

// Keys that decide when and where, not what is learned.
bool alters_results(const std::string& key) {
  for (const char* free : {"run.out", "run.minutes", "run.threads", "run.also_export", "optimizer.export_ema",
                           "compute.recompute", "eval.every", "eval.windows", "eval.loads_every"})
    if (key == free) return false;
  return !key.starts_with("checkpoint.") && !key.starts_with("parallel.");
}

}  // namespace

void read_train_config(std::string_view text, const std::string& source, TrainConfig& config) {
  read_toml(text, source, fields_of(config), kDialect);
}

TrainConfig load_train_config(const std::filesystem::path& path) {
  TrainConfig config;
  read_train_config(read_file(path, 1 << 20), path.string(), config);
  return config;
}

void set_train_key(TrainConfig& config, const std::string& key, const std::string& value,
                   const std::string& source) {
  set_field(fields_of(config), key, value, source, kDialect);
}

std::string train_config_reference() {
  TrainConfig config;
  return "# Configuration of a training run\n\n"
         "Made by `hadal train --print-config-reference`. A run reads `--config RUN.toml`, over it the "
         "flags; "
         "every "
         "key is\na flag too: `--optimizer.lr 3e-4`. `hadal train --print-config` prints what a command line "
         "comes to.\n" +
         reference_tables(fields_of(config));
}

std::string train_config_toml(const TrainConfig& config, bool with_help) {
  TrainConfig copy = config;
  return toml_text(fields_of(copy), with_help);
}

namespace {

bool is_share(double x) {
  return x >= 0 && x <= 1;
}

void check_data(const DataSection& d, const ConfigRules& need) {
  need(d.text.empty() + d.sources.empty() + d.chat.empty() + d.preferences.empty() == 3, "data.text", d.text,
       "it or data.sources, data.chat or data.preferences, one of them");
  need(d.held_out.empty() || (d.chat != d.held_out && d.preferences != d.held_out), "data.held_out",
       d.held_out, "another file than is learned from");
  need(!d.chat.empty() || !d.preferences.empty() || d.held_out.empty(), "data.held_out", d.held_out,
       "empty without data.chat or data.preferences");
  need(d.held_out_share >= 0 && d.held_out_share < 1, "data.held_out_share", d.held_out_share,
       "a share from 0 to below 1");
  need(is_share(d.fim_rate), "data.fim_rate", d.fim_rate, "a share from 0 to 1");
  need(is_share(d.split_merged), "data.split_merged", d.split_merged, "a share from 0 to 1");
  need(d.sources.empty() || d.split_merged == 0, "data.split_merged", d.split_merged,
       "0 with data.sources: hadal data build --split-merged does it");
  need(d.text.empty() || d.fim_rate == 0, "data.fim_rate", d.fim_rate,
       "0 with data.text: a text is one document; hadal data build makes sources of many");
  need(d.text.empty() || !d.mask_documents, "data.mask_documents", d.mask_documents,
       "false with data.text: a text is one document; hadal data build makes sources of many");
  need(d.packing == "stream" || d.packing == "best_fit", "data.packing", d.packing, "stream or best_fit");
  need(d.text.empty() || d.packing == "stream", "data.packing", d.packing,
       "stream with data.text: a text is one document; hadal data build makes sources of many");
}

bool is_layer_list(const std::string& text) {
  if (text.empty()) return true;
  std::istringstream parts(text + ",");  // or getline would not see that nothing follows the last comma
  for (std::string part; std::getline(parts, part, ',');) {
    if (part.empty() || part.find_first_not_of("0123456789") != part.npos) return false;
  }
  return true;
}

bool is_device(const std::string& name) {
  if (name == "cpu" || name == "cuda") return true;
  return name.starts_with("cuda:") && name.size() > 5 && name.size() <= 8 &&
         name.find_first_not_of("0123456789", 5) == std::string::npos;
}

void check_fp8(const Fp8Section& f, const ConfigRules& need) {
  need(is_one_of(f.sums, {"fp32", "hopper", "hopper-unpromoted"}), "fp8.sums", f.sums,
       "fp32, hopper or hopper-unpromoted");
  for (const auto& [key, group] :
       {std::pair{"fp8.activations", f.activations}, {"fp8.gradients", f.gradients}})
    need(is_one_of(group, {"tile", "block", "tensor"}), key, group, "tile, block or tensor");
  need(is_one_of(f.weights, {"block", "tensor"}), "fp8.weights", f.weights, "block or tensor");
  need(is_one_of(f.gradient_format, {"e4m3", "e5m2"}), "fp8.gradient_format", f.gradient_format,
       "e4m3 or e5m2");
}

void check_compute(const TrainConfig& c, const ConfigRules& need) {
  need(is_device(c.compute.device), "compute.device", c.compute.device, "cpu, cuda or cuda:N");
  const bool cpu = c.compute.device == "cpu";
  need(is_one_of(c.compute.precision, {"f32", "bf16", "f16", "fp8"}), "compute.precision",
       c.compute.precision, "f32, bf16, f16 or fp8");
  need(cpu || is_one_of(c.compute.precision, {"f32", "bf16"}), "compute.precision", c.compute.precision,
       "f32 or bf16 with compute.device cuda");
  need(c.compute.precision != "fp8" || c.data.preferences.empty(), "compute.precision", c.compute.precision,
       "f32, bf16 or f16 with data.preferences");
  check_fp8(c.fp8, need);
  need(recompute_named(c.compute.recompute).has_value(), "compute.recompute", c.compute.recompute,
       "none, selective or full");
  need(cpu || c.batch.workers <= 1, "batch.workers", c.batch.workers, "0 or 1 with compute.device cuda");
  need(cpu || c.data.preferences.empty(), "compute.device", c.compute.device, "cpu with data.preferences");
  need(cpu || c.parallel.pipeline == 1, "parallel.pipeline", c.parallel.pipeline,
       "1 with compute.device cuda, which is of one process");
}

void check_parallel(const ParallelSection& p, const ConfigRules& need) {
  need(p.pipeline >= 1, "parallel.pipeline", p.pipeline, "1 (none) or more");
  need(is_one_of(p.schedule, {"gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe", "dualpipe-v"}),
       "parallel.schedule", p.schedule, "gpipe, 1f1b, interleaved, zb-h1, zb-v, dualpipe or dualpipe-v");
  need(p.chunks >= 1, "parallel.chunks", p.chunks, "at least 1");
  need(is_layer_list(p.layers), "parallel.layers", p.layers,
       "numbers with commas between them, e.g. 3,4,4,3");
  need(p.experts >= 1, "parallel.experts", p.experts, "1 (each rank has all) or more");
  need(p.tensor >= 1, "parallel.tensor", p.tensor, "1 (none) or more");
  need(p.timeout_seconds > 0, "parallel.timeout_seconds", p.timeout_seconds, "more than 0");
}

}  // namespace

void check(const OptimizerSection& o, const ConfigRules& need) {
  need(o.lr > 0, "optimizer.lr", o.lr, "more than 0");
  const auto decay = [](double x) { return x >= 0 && x < 1; };
  need(decay(o.beta1), "optimizer.beta1", o.beta1, "0 to below 1");
  need(decay(o.beta2), "optimizer.beta2", o.beta2, "0 to below 1");
  need(decay(o.ema), "optimizer.ema", o.ema, "0 (none) to below 1");
  need(!o.export_ema || o.ema > 0, "optimizer.export_ema", o.export_ema, "optimizer.ema above 0 with it");
  need(o.eps > 0, "optimizer.eps", o.eps, "more than 0");
  need(o.weight_decay >= 0, "optimizer.weight_decay", o.weight_decay, "0 or more");
  need(o.clip > 0, "optimizer.clip", o.clip, "more than 0");
}

void check(const ScheduleSection& s, const ConfigRules& need) {
  need(is_one_of(s.kind, {"v3", "v2", "cosine", "wsd", "constant"}), "schedule.kind", s.kind,
       "v3, v2, cosine, wsd or constant");
  need(s.warmup_steps >= 0, "schedule.warmup_steps", s.warmup_steps, "0 or more");
  need(is_share(s.floor), "schedule.floor", s.floor, "a share from 0 to 1");
  need(is_share(s.decay_share), "schedule.decay_share", s.decay_share, "a share from 0 to 1");
}

void check(const CheckpointSection& c, const ConfigRules& need) {
  need(c.every >= 0, "checkpoint.every", c.every, "0 (at the end) or more");
  need(c.minutes >= 0, "checkpoint.minutes", c.minutes, "0 (not) or more");
  need(c.keep >= 1, "checkpoint.keep", c.keep, "at least 1");
  need(c.max_skips_in_a_row >= 1, "checkpoint.max_skips_in_a_row", c.max_skips_in_a_row, "at least 1");
  need(c.max_rollbacks >= 0, "checkpoint.max_rollbacks", c.max_rollbacks, "0 or more");
}

void check(const TrainConfig& c, const std::string& source) {
  const ConfigRules need(kDialect, source);
  need(c.run.steps >= 0, "run.steps", c.run.steps, "0 (as many as fit in the time) or more");
  need(c.run.minutes >= 0, "run.minutes", c.run.minutes, "0 (no limit) or more");
  need(c.run.epochs >= 0, "run.epochs", c.run.epochs, "0 (not by epochs) or more");
  need(c.run.epochs == 0 || (c.data.text.empty() && c.run.steps == 0), "run.epochs", c.run.epochs,
       "0 with data.text or run.steps");
  need(c.run.steps > 0 || c.run.minutes > 0 || c.run.epochs > 0, "run.steps", c.run.steps,
       "a number of steps, run.minutes or run.epochs, or the run would never end");
  need(is_one_of(c.run.also_export, {"", "bf16", "fp8"}), "run.also_export", c.run.also_export,
       "bf16, fp8 or nothing");
  need(c.model.context >= 0, "model.context", c.model.context, "0 (the model's own) or more");
  need(c.model.yarn_factor == 0 || (c.model.yarn_factor >= 1 && c.model.context > 0), "model.yarn_factor",
       c.model.yarn_factor, "0 (as model.context says), or 1 or more with model.context");
  need(c.run.threads >= 0, "run.threads", c.run.threads, "0 (all cores) or more");
  need(c.model.preset.empty() + c.model.config.empty() + c.model.start.empty() >= 2, "model.config",
       c.model.config, "it or model.preset or model.start, one at most");
  check_data(c.data, need);
  need(c.data.preferences.empty() || !c.model.start.empty(), "model.start", c.model.start,
       "the folder of a model with data.preferences");
  need(c.loss.center >= 0, "loss.center", c.loss.center, "0 (none) or more");
  need(c.batch.sequences >= 1, "batch.sequences", c.batch.sequences, "at least 1");
  need(c.batch.length >= 2, "batch.length", c.batch.length, "at least 2");
  need(c.batch.micro >= 0, "batch.micro", c.batch.micro, "0 (all at once) or more");
  need(c.batch.workers >= 0, "batch.workers", c.batch.workers, "0 (one per thread) or more");
  need(c.batch.start >= 0 && c.batch.start <= c.batch.sequences, "batch.start", c.batch.start,
       "0 (no ramp) to batch.sequences");
  need(c.batch.start == 0 || c.batch.ramp_tokens > 0, "batch.ramp_tokens", c.batch.ramp_tokens,
       "more than 0 with batch.start");
  need(c.batch.quantum >= 1 && c.batch.quantum <= c.batch.sequences, "batch.quantum", c.batch.quantum,
       "1 to batch.sequences");
  check(c.optimizer, need);
  check(c.schedule, need);
  need(c.loss.mtp_weight >= 0, "loss.mtp_weight", c.loss.mtp_weight, "0 or more");
  need(c.loss.mtp_weight_late >= 0, "loss.mtp_weight_late", c.loss.mtp_weight_late, "0 or more");
  need(c.loss.balance_alpha >= 0, "loss.balance_alpha", c.loss.balance_alpha, "0 or more");
  need(c.loss.expert_alpha >= 0, "loss.expert_alpha", c.loss.expert_alpha, "0 (none) or more");
  need(c.loss.device_alpha >= 0, "loss.device_alpha", c.loss.device_alpha, "0 (none) or more");
  need(c.loss.communication_alpha >= 0, "loss.communication_alpha", c.loss.communication_alpha,
       "0 (none) or more");
  need(c.loss.capacity_factor >= 0, "loss.capacity_factor", c.loss.capacity_factor, "0 (all) or more");
  need(is_share(c.loss.never_dropped_share), "loss.never_dropped_share", c.loss.never_dropped_share,
       "a share from 0 to 1");
  check_compute(c, need);
  need(c.loss.bias_step >= 0, "loss.bias_step", c.loss.bias_step, "0 or more");
  check_parallel(c.parallel, need);
  check(c.checkpoint, need);
  need(c.eval.every >= 0, "eval.every", c.eval.every, "0 (before and after) or more");
  need(c.eval.windows >= 1, "eval.windows", c.eval.windows, "at least 1");
  need(c.eval.loads_every >= 0, "eval.loads_every", c.eval.loads_every, "0 (none) or more");
}

std::vector<std::string> result_changes(const TrainConfig& before, const TrainConfig& now) {
  TrainConfig a = before, b = now;
  return changed_fields(fields_of(a), fields_of(b), alters_results);
}

}  // namespace hadal
