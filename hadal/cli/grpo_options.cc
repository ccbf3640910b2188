// The flags of hadal grpo: each short one stands for a key of the configuration.
#include <algorithm>

#include "hadal/base/file.h"
#include "hadal/cli/flags.h"
#include "hadal/cli/options.h"
#include "hadal/tokenizer.h"

namespace hadal {

void add_grpo(CLI::App& app, GrpoOptions& o) {
  const auto sets = [&o](CLI::Option* option, const std::string& key) {
    option->each([&o, key](const std::string& text) { o.given.emplace_back(key, text); });
  };
  auto& f = o.flags;
  file_flag(app, "MODEL", o.model, "folder of the model to begin with", "DIR")->required();
  file_flag(app, "--config", o.config, "run.toml with any keys");
  choice_flag(app, "--profile", o.profile, "settings that a report states", grpo_profiles());
  sets(file_flag(app, "--tasks", f.tasks.train, "JSONL of tasks to learn from"), "tasks.train");
  sets(file_flag(app, "--held-out", f.tasks.held_out, "JSONL of tasks to measure on"), "tasks.held_out");
  app.add_option_function<std::vector<std::string>>(
         "--reward",
         [&o](const std::vector<std::string>& parts) {
           o.given.emplace_back("tasks.rewards", join(parts, ","));
         },
         "part of the reward, NAME or NAME:WEIGHT; may be given several times. Default: accuracy")
      ->type_name("NAME:WEIGHT")
      ->allow_extra_args(false);
  sets(file_flag(app, "--out", f.run.out, "run folder; the model ends up in it. A run goes on where it was",
                 "DIR"),
       "run.out");
  sets(choice_flag(app, "--template", f.policy.chat_template,
                   "chat format instead of the tokenizer's own; none: prompts are continued as text",
                   template_names_or_none()),
       "policy.chat_template");
  sets(count_flag(app, "--steps", f.run.steps, "rollout batches"), "run.steps");
  sets(not_negative_flag(app, "--minutes", f.run.minutes, "no step begins after this time; 0: no limit"),
       "run.minutes");
  sets(count_flag(app, "--prompts", f.rollout.prompts, "tasks of a step"), "rollout.prompts");
  sets(count_flag(app, "--group", f.rollout.group_size, "answers to each task"), "rollout.group_size");
  sets(count_flag(app, "--max-tokens", f.rollout.max_tokens, "of an answer"), "rollout.max_tokens");
  sets(positive_flag(app, "--lr", f.optimizer.lr, "peak learning rate"), "optimizer.lr");
  sets(not_negative_flag(app, "--beta", f.loss.beta, "of the KL to the reference; 0: none"), "loss.beta");
  sets(count_or_zero_flag(app, "--save-every", f.checkpoint.every,
                          "steps between checkpoints; 0: at the end and when stopped"),
       "checkpoint.every");
  sets(number_flag(
           app, "--seed", f.run.seed, "of tasks' order and samples", [](uint64_t) { return true; },
           "an integer of at least 0"),
       "run.seed");
  sets(count_or_zero_flag(app, "--threads", f.run.threads, "0: all cores"), "run.threads");
  app.add_flag("--print-config", o.print_config, "print the whole configuration as TOML and exit");
  app.add_flag("--force-config", o.force_config, "go on although the configuration has changed");
  app.add_flag("--restart", o.restart, "discard what an earlier run left in the folder");
  GrpoConfig defaults;
  for (const ConfigField& field : fields_of(defaults))
    app.add_option_function<std::string>(
           "--" + field.name,
           [&o, name = field.name](const std::string& text) { o.given.emplace_back(name, text); }, field.help)
        ->type_name(std::string_view(field.need()) == "true or false" ? "true|false" : "VALUE")
        ->default_str(field.text())
        ->group("Every key of the configuration");
}

void finish_grpo(GrpoOptions& o) {
  if (!o.config.empty() || o.print_config) return;
  const auto has = [&](const std::string& key) {
    return std::any_of(o.given.begin(), o.given.end(), [&](const auto& g) { return g.first == key; });
  };
  if (!has("tasks.train")) throw CLI::RequiredError("--tasks");
  if (!has("run.out")) throw CLI::RequiredError("--out");
}

GrpoConfig grpo_config_of(const GrpoOptions& o) {
  GrpoConfig config;
  if (!o.profile.empty()) apply_profile(config, o.profile);
  if (!o.config.empty()) read_toml(read_file(o.config, 1 << 20), o.config, fields_of(config), kGrpoDialect);
  config.policy.start = o.model;
  for (const auto& [key, text] : o.given)
    set_field(fields_of(config), key, text, "the command line", kGrpoDialect);
  return config;
}

}  // namespace hadal
