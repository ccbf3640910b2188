// The flags of hadal train: each short one stands for a key of the configuration.
#include <filesystem>

#include "hadal/cli/flags.h"
#include "hadal/cli/options.h"
#include "hadal/config/presets.h"

namespace hadal {
namespace {

bool is_toml(const std::string& path) {
  return std::filesystem::path(path).extension() == ".toml";
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
  // Every key is a flag. Declared last, so over the short ones.
  for (const TrainKey& key : train_keys())
    app.add_option_function<std::string>(
           "--" + key.name,
           [&o, name = key.name](const std::string& text) { o.given.emplace_back(name, text); }, key.help)
        ->type_name(key.need == "true or false" ? "true|false" : "VALUE")
        ->default_str(key.value)
        ->group("Every key of the configuration");
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
  if (!has("data.text") && !has("data.sources")) throw CLI::RequiredError("--data");
  if (!has("run.out")) throw CLI::RequiredError("--out");
  if (o.flags.run.minutes == 0 && o.flags.run.steps == 0 && !has("run.steps") && !has("run.minutes"))
    throw CLI::ValidationError("--minutes, --steps", "when does it end? Give one or both");
}

TrainConfig train_config_of(const TrainOptions& o) {
  TrainConfig config;
  if (!o.config.empty()) config = load_train_config(o.config);
  for (const auto& [key, text] : o.given) {
    if (key == "model.preset") config.model.config.clear();
    if (key == "model.config") config.model.preset.clear();
    if (key == "data.text") config.data.sources.clear();
    if (key == "data.sources") config.data.text.clear();
    set_train_key(config, key, text, "the command line");
  }
  if (config.model.preset.empty() && config.model.config.empty()) config.model.preset = "tiny";
  return config;
}

}  // namespace hadal
