// Tasks made from a seed, with a worked answer each; docs/tasks.md shows every kind.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/base/json.h"

namespace hadal {

// Draws of one task: a function of (seed, index of the task) alone.
class TaskRandom {
 public:
  TaskRandom(uint64_t seed, uint64_t index) : seed_(seed), index_(index) {}
  int64_t between(int64_t least, int64_t most);  // both may come
  template <class T>
  const T& one_of(const std::vector<T>& all) {
    return all[static_cast<size_t>(between(0, static_cast<int64_t>(all.size()) - 1))];
  }

 private:
  uint64_t seed_, index_, draws_ = 0;
};

struct MadeTask {
  std::string prompt;
  std::string verifier;
  std::string answer;      // "" for code and countdown
  Json columns;            // more of the record: numbers, target, tests ...
  std::string thought;     // a short chain that leads to the solution
  std::string solution;    // what stands in <answer>
  bool continued = false;  // the prompt is a text that goes on with the solution: no thought, no tags
};

struct TaskKind {
  const char* name;
  const char* help;
  int64_t least_level, default_level, most_level;
  MadeTask (*make)(TaskRandom& random, int64_t level);
};
const std::vector<TaskKind>& task_kinds();
// Throws invalid_argument with the list of names.
const TaskKind& task_kind(std::string_view name);

struct TaskSetOptions {
  int64_t count = 1000;
  uint64_t seed = 0;
  int64_t level = 0;           // how hard; 0: the kind's default
  double held_out = 0.1;       // share of all prompts that belongs to the held-out part
  bool held_out_part = false;  // which of the two parts to make
  bool messages = false;       // prompts as a chat of one message
};

// JSON lines of one part, no prompt twice. Prompts belong to a part by split_position() of their normalised
// text, so the parts of a kind never meet, whatever the seeds. Throws exhausted if there are not as many
// different prompts, invalid_argument for a level that the kind does not have.
std::vector<Json> make_tasks(const TaskKind& kind, const TaskSetOptions& options);

// The same with demonstrations for supervised fine-tuning: "completion" (or an assistant's message) is
// <think>thought</think><answer>solution</answer>, or " solution" where a text goes on. "text" is the prompt
// with its completion, to train on as text; chats have none.
std::vector<Json> make_demonstrations(const TaskKind& kind, const TaskSetOptions& options);

// Pairs for reward models: chosen and rejected answers with the written reasons for their scores. The hidden
// score is 6 · accuracy + 2 · format + 2 · (1 + repetition) of the rule rewards, 0 to 10. Not for kinds with
// code, nor where a text goes on. Throws unsupported for those.
std::vector<Json> make_preferences(const TaskKind& kind, const TaskSetOptions& options);

// "<think>t</think><answer>s</answer>"
std::string reasoned_answer(std::string_view thought, std::string_view solution);

}  // namespace hadal
