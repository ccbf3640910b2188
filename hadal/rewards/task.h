// Tasks: prompts whose answers a rule can judge, one JSON object a line (docs/tasks.md).
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/base/json.h"

namespace hadal {

struct Task {
  std::string id;                      // "": none was given; load_tasks() gives the line's number
  std::string prompt;                  // plain text; "" if there are messages
  std::string messages;                // JSON text of a chat (parse_chat_messages); "" if there is a prompt
  std::string verifier;                // "math", "choice", "exact", "countdown", "code", ...
  std::string answer;                  // the reference; "" if the verifier needs none
  std::shared_ptr<const Json> record;  // the whole line, other columns included; never null
};

// One line of a task file. `source` names it in errors. Throws corrupt (no JSON), invalid_argument naming the
// field that is missing or wrong. GSM8K's lines, {"question", "answer": "... #### 42"}, are tasks too.
Task parse_task(std::string_view line, std::string_view source);

// All lines of a file. Throws what parse_task throws, with "FILE:line", and invalid_argument for an empty
// one.
std::vector<Task> load_tasks(const std::filesystem::path& path);

// The prompt as compared for held-out splits: lower case, runs of white space as one blank, none at the ends.
std::string normalised_prompt(const Task& task);

// Where a prompt belongs: a number in [0, 1) that is a function of the normalised prompt alone.
double split_position(std::string_view normalised_prompt);

// Throws invalid_argument naming the first prompt that is in both, and how many are.
void require_disjoint(const std::vector<Task>& train, const std::vector<Task>& held_out);

}  // namespace hadal
