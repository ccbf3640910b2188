// What the commands that train in a run folder declare alike. Their flags are keys of a configuration.
#pragma once
#include "hadal/cli/flags.h"
#include "hadal/config/config_fields.h"

namespace hadal {

// Keys and values in the order of the command line.
using GivenKeys = std::vector<std::pair<std::string, std::string>>;

// The flag's text sets `key` over what a file says. Returns the flag.
CLI::Option* sets(GivenKeys& given, CLI::Option* flag, const std::string& key);
bool has(const GivenKeys& given, const std::string& key);

void add_keys(CLI::App& app, GivenKeys& given, const std::vector<ConfigField>& fields);
// Every key is a flag. Declared last, so over the short ones.
template <class Config>
void add_every_key(CLI::App& app, GivenKeys& given) {
  Config defaults;
  add_keys(app, given, fields_of(defaults));
}

// Options: TrainOptions or GrpoOptions.
template <class Options>
void add_out(CLI::App& app, Options& o) {
  sets(o.given,
       file_flag(app, "--out", o.flags.run.out,
                 "run folder; the model ends up in it. A run goes on where it was", "DIR"),
       "run.out");
}

template <class Options>
void add_run_flags(CLI::App& app, Options& o, const char* seed_help) {
  auto& f = o.flags;
  sets(o.given,
       count_or_zero_flag(app, "--save-every", f.checkpoint.every,
                          "steps between checkpoints; 0: at the end and when stopped"),
       "checkpoint.every");
  sets(o.given,
       number_flag(
           app, "--seed", f.run.seed, seed_help, [](uint64_t) { return true; }, "an integer of at least 0"),
       "run.seed");
  sets(o.given, count_or_zero_flag(app, "--threads", f.run.threads, "0: all cores"), "run.threads");
  app.add_flag("--print-config", o.print_config, "print the whole configuration as TOML and exit");
  app.add_flag("--force-config", o.force_config, "go on although the configuration has changed");
  app.add_flag("--restart", o.restart, "discard what an earlier run left in the folder");
}

// Of runs that begin with a model.
template <class Options>
void add_start(CLI::App& app, std::string& model, Options& o) {
  file_flag(app, "MODEL", model, "folder of the model to begin with", "DIR")->required();
  file_flag(app, "--config", o.config, "run.toml with any keys");
}

// Data and a run folder must be named where no file may name them.
template <class Options>
void require_data_and_out(const Options& o, const std::string& data_key, const char* data_flag) {
  if (!o.config.empty() || o.print_config) return;
  if (!has(o.given, data_key)) throw CLI::RequiredError(data_flag);
  if (!has(o.given, "run.out")) throw CLI::RequiredError("--out");
}

}  // namespace hadal
