// hadal launch: the same command as N ranks on this machine.
#include "hadal/parallel/launch.h"

#include "hadal/cli/command_line.h"
#include "hadal/cli/flags.h"

namespace hadal {

void add_launch(CLI::App& app, LaunchOptions& o) {
  count_flag(app, "-n,--ranks", o.ranks, "processes");
  count_or_zero_flag(
      app, "--max-restarts", o.max_restarts,
      "times that all ranks are started again after one failed; training goes on from its newest "
      "checkpoint");
  app.add_flag("--program", o.program, "ARGS are a program and its arguments, not a command of hadal");
  app.add_option("args", o.arguments, "command of hadal and its arguments, after --")
      ->type_name("ARGS")
      ->required();
}

int run_launch(const LaunchOptions& o) {
  LaunchConfig config{.ranks = o.ranks, .command = o.arguments, .max_restarts = o.max_restarts};
  if (!o.program) config.command.insert(config.command.begin(), "/proc/self/exe");
  return launch(config);
}

}  // namespace hadal
