// hadal tasks: files of questions whose answers a rule can judge.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/data/permutation.h"
#include "hadal/rewards/task.h"
#include "hadal/rewards/task_maker.h"
#include "hadal/rewards/task_score.h"

namespace hadal {
namespace {

TaskSetOptions set_options(const TasksOptions& o) {
  return {.count = o.count,
          .seed = o.seed,
          .level = o.level,
          .held_out = o.held_out,
          .held_out_part = o.part == "held-out",
          .messages = o.messages};
}

void write_lines(const std::string& path, const std::vector<Json>& lines) {
  AtomicFile file(path);
  for (const Json& line : lines) file.write(dump_json(line) + "\n");
  file.commit();
}

}  // namespace

int run_tasks_make(const TasksOptions& o) {
  const TaskKind& kind = task_kind(o.kind);
  write_lines(
      o.out, o.demonstrations ? make_demonstrations(kind, set_options(o)) : make_tasks(kind, set_options(o)));
  return 0;
}

int run_tasks_preferences(const TasksOptions& o) {
  write_lines(o.out, make_preferences(task_kind(o.kind), set_options(o)));
  return 0;
}

int run_tasks_mix(const TasksOptions& o) {
  std::vector<std::string> lines;
  for (const std::string& file : o.files) {
    std::istringstream text(read_file(file));
    int64_t number = 0;
    for (std::string line; std::getline(text, line);) {
      ++number;
      if (line.empty()) continue;
      parse_json(line, cat(file, " line ", number));
      lines.push_back(std::move(line));
    }
  }
  const Permutation order(std::ssize(lines), o.seed, 0);
  AtomicFile out(o.out);
  for (int64_t i = 0; i < std::ssize(lines); ++i) out.write(lines[static_cast<size_t>(order(i))] + "\n");
  out.commit();
  return 0;
}

int run_tasks_check(const TasksOptions& o) {
  const std::vector<Task> train = load_tasks(o.files[0]), held_out = load_tasks(o.files[1]);
  require_disjoint(train, held_out);
  print(cat(train.size(), " and ", held_out.size(), " tasks, no prompt in both\n"));
  return 0;
}

int run_tasks_compare(const TasksOptions& o) {
  const PairedDifference found =
      compare_results(read_task_results(o.files[0]), read_task_results(o.files[1]), o.seed);
  if (o.json) {
    print(dump_json(Json{{"difference", found.mean},
                         {"from", found.from},
                         {"to", found.to},
                         {"questions", found.questions},
                         {"seed", o.seed}}) +
          "\n");
    return 0;
  }
  char text[160];
  std::snprintf(text, sizeof text,
                "%+.2f points, 95 %% of the bootstrap from %+.2f to %+.2f, %lld questions\n",
                100 * found.mean, 100 * found.from, 100 * found.to, static_cast<long long>(found.questions));
  print(text);
  return 0;
}

}  // namespace hadal
