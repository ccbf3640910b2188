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

namespace {

// Of runs of training that begin with a model and learn from JSONL, with the defaults in t.flags.
struct FineTuning {
  const char* data_key;
  std::string* data;
  const char *data_help, *batch_help, *length_help, *epochs_help;
};

void add_fine_tuning(CLI::App& app, std::string& model, TrainOptions& t, const FineTuning& words) {
  const auto sets = [&t](CLI::Option* option, const std::string& key) {
    return option->each([&t, key](const std::string& text) { t.given.emplace_back(key, text); });
  };
  auto& f = t.flags;
  file_flag(app, "MODEL", model, "folder of the model to begin with", "DIR")->required();
  file_flag(app, "--config", t.config, "run.toml with any keys");
  sets(file_flag(app, "--data", *words.data, words.data_help), words.data_key);
  sets(
      file_flag(app, "--held-out", f.data.held_out, "JSONL to measure on; default: the last tenth of --data"),
      "data.held_out");
  sets(file_flag(app, "--out", f.run.out, "run folder; the model ends up in it. A run goes on where it was",
                 "DIR"),
       "run.out");
  sets(choice_flag(app, "--template", f.data.chat_template, "chat format instead of the tokenizer's own",
                   template_names_or_none()),
       "data.chat_template");
  sets(not_negative_flag(app, "--epochs", f.run.epochs, words.epochs_help), "run.epochs");
  sets(count_flag(app, "--steps", f.run.steps, "stop after this many steps instead"), "run.steps");
  sets(not_negative_flag(app, "--minutes", f.run.minutes, "as many steps as fit in this time instead"),
       "run.minutes");
  sets(count_flag(app, "--batch", f.batch.sequences, words.batch_help), "batch.sequences");
  sets(number_flag(
           app, "--length", f.batch.length, words.length_help, [](int64_t x) { return x >= 2; },
           "an integer of at least 2"),
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
}

// The defaults of a run that begins with `model`; steps or minutes take the place of the default's epochs.
TrainConfig fine_tuning_base(TrainConfig base, const std::string& model, const TrainOptions& train) {
  base.model.start = model;
  base.batch.length = std::min<int64_t>(base.batch.length, load_config(model).max_positions);
  for (const auto& [key, text] : train.given)
    if (key == "run.steps" || key == "run.minutes") base.run.epochs = 0;
  return base;
}

void require_data_and_out(const TrainOptions& train, const char* data_key) {
  if (!train.config.empty() || train.print_config) return;
  const auto has = [&](const std::string& key) {
    return std::any_of(train.given.begin(), train.given.end(), [&](const auto& g) { return g.first == key; });
  };
  if (!has(data_key)) throw CLI::RequiredError("--data");
  if (!has("run.out")) throw CLI::RequiredError("--out");
}

}  // namespace

// SFT as a run of training with other defaults.
void add_sft(CLI::App& app, SftOptions& o) {
  auto& f = o.train.flags = sft_defaults();
  add_fine_tuning(
      app, o.model, o.train,
      {.data_key = "data.chat",
       .data = &f.data.chat,
       .data_help = "JSONL of chats, prompts and completions, or texts",
       .batch_help = "rows per step, each filled with whole samples",
       .length_help = "tokens a row; longer samples are cut. Default 1024, or the model's context",
       .epochs_help = "passes over the data; default 2"});
  add_every_key(app, o.train, train_keys());
}

// A reward model in the same way.
void add_reward_train(CLI::App& app, RewardTrainOptions& o) {
  auto& f = o.train.flags = reward_train_defaults();
  add_fine_tuning(
      app, o.model, o.train,
      {.data_key = "data.preferences",
       .data = &f.data.preferences,
       .data_help = "JSONL of prompts with a chosen and a rejected answer",
       .batch_help = "pairs per step",
       .length_help = "tokens of prompt and answer; pairs with more are left out. Default 1024, or "
                      "the model's context",
       .epochs_help = "passes over the data; default 1"});
  add_every_key(app, o.train, train_keys());
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
  return train_config_of(o.train, fine_tuning_base(sft_defaults(), o.model, o.train));
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

TrainConfig reward_train_config_of(const RewardTrainOptions& o) {
  return train_config_of(o.train, fine_tuning_base(reward_train_defaults(), o.model, o.train));
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
  if (!has("data.text") && !has("data.sources") && !has("data.chat") && !has("data.preferences"))
    throw CLI::RequiredError("--data");
  if (!has("run.out")) throw CLI::RequiredError("--out");
  if (o.flags.run.minutes == 0 && o.flags.run.steps == 0 && !has("run.steps") && !has("run.minutes") &&
      !has("run.epochs"))
    throw CLI::ValidationError("--minutes, --steps", "when does it end? Give one or both");
}

void finish_sft(SftOptions& o) {
  require_data_and_out(o.train, "data.chat");
}

void finish_reward_train(RewardTrainOptions& o) {
  require_data_and_out(o.train, "data.preferences");
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
