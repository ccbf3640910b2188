#include "hadal/cli/flags.h"
#include "hadal/cli/options.h"
#include "hadal/rewards/task_maker.h"

namespace hadal {
namespace {

void making(CLI::App& app, TasksOptions& o) {
  std::vector<std::string> kinds;
  for (const TaskKind& kind : task_kinds()) kinds.emplace_back(kind.name);
  choice_flag(app, "KIND", o.kind, "of task", kinds)->required();
  file_flag(app, "--out", o.out, "JSONL file to write")->required();
  count_flag(app, "--count", o.count, "lines");
  count_or_zero_flag(app, "--level", o.level, "how hard; 0: the kind's own. See docs/tasks.md");
  count_or_zero_flag(app, "--seed", o.seed, "of the tasks; the parts never meet, whatever the seeds");
  number_flag(
      app, "--held-out", o.held_out, "share of all prompts that is held out",
      [](double x) { return x >= 0 && x < 1; }, "a number of at least 0, below 1");
  choice_flag(app, "--part", o.part, "which part to make", {"train", "held-out"});
  app.add_flag("--messages", o.messages, "prompts and answers as chat messages");
}

void two_files(CLI::App& app, TasksOptions& o, const char* help) {
  app.add_option("FILES", o.files, help)->type_name("FILE")->expected(2)->required();
}

}  // namespace

void add_tasks_make(CLI::App& app, TasksOptions& o) {
  making(app, o);
  app.add_flag("--demonstrations", o.demonstrations, "with a worked answer each, for supervised fine-tuning");
}

void add_tasks_preferences(CLI::App& app, TasksOptions& o) {
  making(app, o);
}

void add_tasks_mix(CLI::App& app, TasksOptions& o) {
  app.add_option("FILES", o.files, "JSONL files")->type_name("FILE")->required();
  file_flag(app, "--out", o.out, "JSONL file to write")->required();
  count_or_zero_flag(app, "--seed", o.seed, "of the order");
}

void add_tasks_check(CLI::App& app, TasksOptions& o) {
  two_files(app, o, "tasks to train on, then held-out tasks");
}

void add_tasks_compare(CLI::App& app, TasksOptions& o) {
  two_files(app, o, "results of hadal eval --out: the second is compared with the first");
  count_or_zero_flag(app, "--seed", o.seed, "of the bootstrap");
  json_flag(app, o.json);
}

}  // namespace hadal
