// The flags of hadal train: each short one stands for a key of the configuration.
#include <algorithm>
#include <filesystem>

#include "hadal/base/file.h"
#include "hadal/cli/flags.h"
#include "hadal/cli/options.h"
#include "hadal/config.h"
#include "hadal/config/presets.h"
#include "hadal/tokenizer.h"

namespace hadal {
namespace {

bool is_toml(const std::string& path) {
  return std::filesystem::path(path).extension() == ".toml";
}

// Every key is a flag. Declared last, so over the short ones.
void add_every_key(CLI::App& app, TrainOptions& o, const std::vector<TrainKey>& keys) {
  for (const TrainKey& key : keys)
    app.add_option_function<std::string>(
           "--" + key.name,
           [&o, name = key.name](const std::string& text) { o.given.emplace_back(name, text); }, key.help)
        ->type_name(key.need == "true or false" ? "true|false" : "VALUE")
        ->default_str(key.value)
        ->group("Every key of the configuration");
}

}  // namespace

bool is_token_data(const std::string& path) {
  const std::filesystem::path file = path;
  return std::filesystem::is_directory(file) || file.extension() == ".bin" || file.extension() == ".idx" ||
         file.filename() == "manifest.json";
}

void add_train(CLI::App& app, TrainOptions& o) {
  // The flag's text sets `key` over what a file says, in the order of the command line.
  const auto sets = [&o](CLI::Option* option, const std::string& key) {
    return option->each([&o, key](const std::string& text) { o.given.emplace_back(key, text); });
  };
  auto& f = o.flags;
  sets(choice_flag(app, "--preset", f.model.preset, "built-in model; default tiny", preset_names()),
       "model.preset");
  file_flag(app, "--config", o.config, "run.toml with any keys, or config.json of the model");
  file_flag(app, "--data", o.data, "UTF-8 text to learn from, or token shards");
  sets(file_flag(app, "--tokenizer", f.data.tokenizer,
                 "tokenizer.json or its folder; default: learned from the data"),
       "data.tokenizer");
  sets(file_flag(app, "--out", f.run.out, "run folder; the model ends up in it. A run goes on where it was",
                 "DIR"),
       "run.out");
  sets(not_negative_flag(app, "--minutes", f.run.minutes, "stop after this time; 0: no limit"),
       "run.minutes");
  sets(count_or_zero_flag(app, "--steps", f.run.steps, "stop after this many steps; 0: no limit"),
       "run.steps");
  sets(count_flag(app, "--batch", f.batch.sequences, "sequences per step"), "batch.sequences");
  sets(number_flag(
           app, "--length", f.batch.length, "tokens per sequence", [](int64_t x) { return x >= 2; },
           "an integer of at least 2"),
       "batch.length");
  sets(positive_flag(app, "--lr", f.optimizer.lr, "peak learning rate"), "optimizer.lr");
  sets(count_or_zero_flag(app, "--warmup", f.schedule.warmup_steps, "steps of linear warm-up"),
       "schedule.warmup_steps");
  sets(not_negative_flag(app, "--weight-decay", f.optimizer.weight_decay, "of matrices"),
       "optimizer.weight_decay");
  sets(positive_flag(app, "--clip", f.optimizer.clip, "global gradient norm at most"), "optimizer.clip");
  sets(sets(not_negative_flag(app, "--mtp-weight", f.loss.mtp_weight,
                              "of the multi-token prediction loss, all the way"),
            "loss.mtp_weight"),
       "loss.mtp_weight_late");
  sets(count_or_zero_flag(app, "--save-every", f.checkpoint.every,
                          "steps between checkpoints; 0: at the end and when stopped"),
       "checkpoint.every");
  sets(number_flag(
           app, "--seed", f.run.seed, "of initial weights and data order", [](uint64_t) { return true; },
           "an integer of at least 0"),
       "run.seed");
  sets(count_or_zero_flag(app, "--threads", f.run.threads, "0: all cores"), "run.threads");
  app.add_flag("--dry-run", o.dry_run, "print the memory it will need, by part, and exit");
  app.add_flag("--print-config", o.print_config, "print the whole configuration as TOML and exit");
  app.add_flag("--print-config-reference", o.print_reference, "print every key with its meaning and exit");
  app.add_flag("--force-config", o.force_config, "go on although the configuration has changed");
  app.add_flag("--restart", o.restart, "discard what an earlier run left in the folder");
  add_every_key(app, o, train_keys());
}

// SFT as a run of training with other defaults.
void add_sft(CLI::App& app, SftOptions& o) {
  TrainOptions& t = o.train;
  const auto sets = [&t](CLI::Option* option, const std::string& key) {
    option->each([&t, key](const std::string& text) { t.given.emplace_back(key, text); });
  };
  auto& f = t.flags = sft_defaults();
  file_flag(app, "MODEL", o.model, "folder of the model to begin with", "DIR")->required();
  file_flag(app, "--config", t.config, "run.toml with any keys");
  sets(file_flag(app, "--data", f.data.chat, "JSONL of chats, prompts and completions, or texts"),
       "data.chat");
  sets(
      file_flag(app, "--held-out", f.data.held_out, "JSONL to measure on; default: the last tenth of --data"),
      "data.held_out");
  sets(file_flag(app, "--out", f.run.out, "run folder; the model ends up in it. A run goes on where it was",
                 "DIR"),
       "run.out");
  sets(choice_flag(app, "--template", f.data.chat_template, "chat format instead of the tokenizer's own",
                   ChatTemplate::names()),
       "data.chat_template");
  sets(not_negative_flag(app, "--epochs", f.run.epochs, "passes over the data; default 2"), "run.epochs");
  sets(count_flag(app, "--steps", f.run.steps, "stop after this many steps instead"), "run.steps");
  sets(count_flag(app, "--batch", f.batch.sequences, "rows per step, each filled with whole samples"),
       "batch.sequences");
  sets(number_flag(
           app, "--length", f.batch.length,
           "tokens a row; longer samples are cut. Default 1024, or the model's context",
           [](int64_t x) { return x >= 2; }, "an integer of at least 2"),
       "batch.length");
  sets(positive_flag(app, "--lr", f.optimizer.lr, "peak learning rate"), "optimizer.lr");
  sets(count_or_zero_flag(app, "--save-every", f.checkpoint.every,
                          "steps between checkpoints; 0: at the end and when stopped"),
       "checkpoint.every");
  sets(number_flag(
           app, "--seed", f.run.seed, "of the data's order", [](uint64_t) { return true; },
           "an integer of at least 0"),
       "run.seed");
  sets(count_or_zero_flag(app, "--threads", f.run.threads, "0: all cores"), "run.threads");
  app.add_flag("--print-config", t.print_config, "print the whole configuration as TOML and exit");
  app.add_flag("--force-config", t.force_config, "go on although the configuration has changed");
  app.add_flag("--restart", t.restart, "discard what an earlier run left in the folder");
  add_every_key(app, t, train_keys());
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

TrainConfig sft_config_of(const SftOptions& o) {
  TrainConfig base = sft_defaults();
  base.model.start = o.model;
  base.batch.length = std::min<int64_t>(base.batch.length, load_config(o.model).max_positions);
  TrainOptions train = o.train;
  for (const auto& [key, text] : train.given)
    if (key == "run.steps") base.run.epochs = 0;
  return train_config_of(train, base);
}

void finish_train(TrainOptions& o) {
  const auto has = [&](const std::string& key) {
    for (const auto& [each, text] : o.given)
      if (each == key) return true;
    return false;
  };
  if (!o.config.empty() && !is_toml(o.config)) {
    if (has("model.preset")) throw CLI::ValidationError("--config", "excludes --preset");
    o.given.emplace_back("model.config", o.config);
    o.config.clear();
  }
  if (!o.data.empty()) o.given.emplace_back(is_token_data(o.data) ? "data.sources" : "data.text", o.data);
  if (!o.config.empty() || o.print_config || o.print_reference) return;  // the file may say it
  if (!has("data.text") && !has("data.sources") && !has("data.chat")) throw CLI::RequiredError("--data");
  if (!has("run.out")) throw CLI::RequiredError("--out");
  if (o.flags.run.minutes == 0 && o.flags.run.steps == 0 && !has("run.steps") && !has("run.minutes") &&
      !has("run.epochs"))
    throw CLI::ValidationError("--minutes, --steps", "when does it end? Give one or both");
}

void finish_sft(SftOptions& o) {
  if (!o.train.config.empty() || o.train.print_config) return;
  const auto has = [&](const std::string& key) {
    return std::any_of(o.train.given.begin(), o.train.given.end(),
                       [&](const auto& g) { return g.first == key; });
  };
  if (!has("data.chat")) throw CLI::RequiredError("--data");
  if (!has("run.out")) throw CLI::RequiredError("--out");
}

TrainConfig train_config_of(const TrainOptions& o, const TrainConfig& base) {
  TrainConfig config = base;
  if (!o.config.empty()) read_train_config(read_file(o.config, 1 << 20), o.config, config);
  for (const auto& [key, text] : o.given) {
    if (key.starts_with("model.")) config.model = {};
    if (key == "data.text" || key == "data.sources" || key == "data.chat")
      config.data.text.clear(), config.data.sources.clear(), config.data.chat.clear();
    set_train_key(config, key, text, "the command line");
  }
  if (config.model.preset.empty() && config.model.config.empty() && config.model.start.empty())
    config.model.preset = "tiny";
  return config;
}

}  // namespace hadal
