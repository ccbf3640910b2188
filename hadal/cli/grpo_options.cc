// The flags of hadal grpo: each short one stands for a key of the configuration.
#include "hadal/base/file.h"
#include "hadal/cli/options.h"
#include "hadal/cli/run_flags.h"
#include "hadal/tokenizer.h"

namespace hadal {

void add_grpo(CLI::App& app, GrpoOptions& o) {
  const auto sets = [&o](CLI::Option* flag, const char* key) { hadal::sets(o.given, flag, key); };
  auto& f = o.flags;
  add_start(app, o.model, o);
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
  add_out(app, o);
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
  add_run_flags(app, o, "of tasks' order and samples");
  add_every_key<GrpoConfig>(app, o.given);
}

void finish_grpo(GrpoOptions& o) {
  require_data_and_out(o, "tasks.train", "--tasks");
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
