// The flags of hadal train: each short one stands for a key of the configuration.
#include <algorithm>
#include <filesystem>

#include "hadal/base/file.h"
#include "hadal/cli/options.h"
#include "hadal/cli/run_flags.h"
#include "hadal/config.h"
#include "hadal/config/presets.h"
#include "hadal/tokenizer.h"

namespace hadal {
namespace {

bool is_toml(const std::string& path) {
  return std::filesystem::path(path).extension() == ".toml";
}

void add_step_flags(CLI::App& app, TrainOptions& o, const char* batch_help, const char* length_help) {
  auto& f = o.flags;
  sets(o.given, count_flag(app, "--batch", f.batch.sequences, batch_help), "batch.sequences");
  sets(o.given,
       number_flag(
           app, "--length", f.batch.length, length_help, [](int64_t x) { return x >= 2; },
           "an integer of at least 2"),
       "batch.length");
  sets(o.given, positive_flag(app, "--lr", f.optimizer.lr, "peak learning rate"), "optimizer.lr");
}

}  // namespace

bool is_token_data(const std::string& path) {
  const std::filesystem::path file = path;
  return std::filesystem::is_directory(file) || file.extension() == ".bin" || file.extension() == ".idx" ||
         file.filename() == "manifest.json";
}

void add_train(CLI::App& app, TrainOptions& o) {
  const auto sets = [&o](CLI::Option* flag, const char* key) { return hadal::sets(o.given, flag, key); };
  auto& f = o.flags;
  sets(choice_flag(app, "--preset", f.model.preset, "built-in model; default tiny", preset_names()),
       "model.preset");
  file_flag(app, "--config", o.config, "run.toml with any keys, or config.json of the model");
  file_flag(app, "--data", o.data, "UTF-8 text to learn from, or token shards");
  sets(file_flag(app, "--tokenizer", f.data.tokenizer,
                 "tokenizer.json or its folder; default: learned from the data"),
       "data.tokenizer");
  add_out(app, o);
  sets(not_negative_flag(app, "--minutes", f.run.minutes, "stop after this time; 0: no limit"),
       "run.minutes");
  sets(count_or_zero_flag(app, "--steps", f.run.steps, "stop after this many steps; 0: no limit"),
       "run.steps");
  add_step_flags(app, o, "sequences per step", "tokens per sequence");
  sets(count_or_zero_flag(app, "--warmup", f.schedule.warmup_steps, "steps of linear warm-up"),
       "schedule.warmup_steps");
  sets(not_negative_flag(app, "--weight-decay", f.optimizer.weight_decay, "of matrices"),
       "optimizer.weight_decay");
  sets(positive_flag(app, "--clip", f.optimizer.clip, "global gradient norm at most"), "optimizer.clip");
  sets(sets(not_negative_flag(app, "--mtp-weight", f.loss.mtp_weight,
                              "of the multi-token prediction loss, all the way"),
            "loss.mtp_weight"),
       "loss.mtp_weight_late");
  add_run_flags(app, o, "of initial weights and data order");
  app.add_flag("--dry-run", o.dry_run, "print the memory it will need, by part, and exit");
  app.add_flag("--print-config-reference", o.print_reference, "print every key with its meaning and exit");
  add_every_key<TrainConfig>(app, o.given);
}

namespace {

struct FineTuningHelp {
  const char *data, *batch, *length, *epochs;
};

// `data`: the default that --data sets.
void add_fine_tuning(CLI::App& app, FineTuningOptions& o, std::string& data, const FineTuningHelp& help) {
  TrainOptions& t = o.train;
  const auto sets = [&t](CLI::Option* flag, const std::string& key) {
    return hadal::sets(t.given, flag, key);
  };
  auto& f = t.flags;
  add_start(app, o.model, t);
  sets(file_flag(app, "--data", data, help.data), o.data_key);
  sets(
      file_flag(app, "--held-out", f.data.held_out, "JSONL to measure on; default: the last tenth of --data"),
      "data.held_out");
  add_out(app, t);
  sets(choice_flag(app, "--template", f.data.chat_template, "chat format instead of the tokenizer's own",
                   template_names_or_none()),
       "data.chat_template");
  sets(not_negative_flag(app, "--epochs", f.run.epochs, help.epochs), "run.epochs");
  sets(count_flag(app, "--steps", f.run.steps, "stop after this many steps instead"), "run.steps");
  sets(not_negative_flag(app, "--minutes", f.run.minutes, "as many steps as fit in this time instead"),
       "run.minutes");
  add_step_flags(app, t, help.batch, help.length);
  add_run_flags(app, t, "of the data's order");
  add_every_key<TrainConfig>(app, t.given);
}

TrainConfig sft_defaults() {
  TrainConfig c;
  c.run.epochs = 2;
  c.batch.length = 1024;
  c.optimizer.lr = 2e-5, c.optimizer.weight_decay = 0;
  c.schedule.kind = "cosine", c.schedule.warmup_steps = 10;
  c.loss.mtp_weight = c.loss.mtp_weight_late = 0.1, c.loss.bias_step = 0;
  return c;
}

TrainConfig reward_train_defaults() {
  TrainConfig c;
  c.run.epochs = 1;
  c.batch.sequences = 16, c.batch.length = 1024;
  c.optimizer.lr = 1e-5, c.optimizer.weight_decay = 0;
  c.schedule.kind = "cosine", c.schedule.warmup_steps = 10;
  c.loss.balance_alpha = 0, c.loss.bias_step = 0;
  return c;
}

}  // namespace

// SFT as a run of training with other defaults.
void add_sft(CLI::App& app, FineTuningOptions& o) {
  o.defaults = o.train.flags = sft_defaults(), o.data_key = "data.chat";
  add_fine_tuning(app, o, o.train.flags.data.chat,
                  {.data = "JSONL of chats, prompts and completions, or texts",
                   .batch = "rows per step, each filled with whole samples",
                   .length = "tokens a row; longer samples are cut. Default 1024, or the model's context",
                   .epochs = "passes over the data; default 2"});
}

// A reward model in the same way.
void add_reward_train(CLI::App& app, FineTuningOptions& o) {
  o.defaults = o.train.flags = reward_train_defaults(), o.data_key = "data.preferences";
  add_fine_tuning(app, o, o.train.flags.data.preferences,
                  {.data = "JSONL of prompts with a chosen and a rejected answer",
                   .batch = "pairs per step",
                   .length = "tokens of prompt and answer; pairs with more are left out. Default 1024, or "
                             "the model's context",
                   .epochs = "passes over the data; default 1"});
}

// Steps or minutes take the place of the default's epochs.
TrainConfig fine_tuning_config_of(const FineTuningOptions& o) {
  TrainConfig base = o.defaults;
  base.model.start = o.model;
  base.batch.length = std::min<int64_t>(base.batch.length, load_config(o.model).max_positions);
  if (has(o.train.given, "run.steps") || has(o.train.given, "run.minutes")) base.run.epochs = 0;
  return train_config_of(o.train, base);
}

void finish_train(TrainOptions& o) {
  const auto has = [&o](const char* key) { return hadal::has(o.given, key); };
  if (!o.config.empty() && !is_toml(o.config)) {
    if (has("model.preset")) throw CLI::ValidationError("--config", "excludes --preset");
    o.given.emplace_back("model.config", o.config);
    o.config.clear();
  }
  if (!o.data.empty()) o.given.emplace_back(is_token_data(o.data) ? "data.sources" : "data.text", o.data);
  if (!o.config.empty() || o.print_config || o.print_reference) return;  // the file may say it
  if (!has("data.text") && !has("data.sources") && !has("data.chat") && !has("data.preferences"))
    throw CLI::RequiredError("--data");
  if (!has("run.out")) throw CLI::RequiredError("--out");
  if (o.flags.run.minutes == 0 && o.flags.run.steps == 0 && !has("run.steps") && !has("run.minutes") &&
      !has("run.epochs"))
    throw CLI::ValidationError("--minutes, --steps", "when does it end? Give one or both");
}

void finish_fine_tuning(const FineTuningOptions& o) {
  require_data_and_out(o.train, o.data_key, "--data");
}

TrainConfig train_config_of(const TrainOptions& o, const TrainConfig& base) {
  TrainConfig config = base;
  if (!o.config.empty()) read_train_config(read_file(o.config, 1 << 20), o.config, config);
  for (const auto& [key, text] : o.given) {
    if (key == "model.preset" || key == "model.config" || key == "model.start")
      config.model.preset.clear(), config.model.config.clear(), config.model.start.clear();
    if (key == "data.text" || key == "data.sources" || key == "data.chat" || key == "data.preferences")
      config.data.text.clear(), config.data.sources.clear(), config.data.chat.clear(),
          config.data.preferences.clear();
    set_train_key(config, key, text, "the command line");
  }
  if (config.model.preset.empty() && config.model.config.empty() && config.model.start.empty())
    config.model.preset = "tiny";
  return config;
}

}  // namespace hadal
