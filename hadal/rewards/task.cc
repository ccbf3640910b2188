#include "hadal/rewards/task.h"

#include <cctype>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "hadal/base/file.h"
#include "hadal/base/sha256.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/rewards/answer_text.h"

namespace hadal {
namespace {

constexpr const char* kVerifiers[] = {"math", "choice", "exact", "countdown",
                                      "code", "genrm",  "rm",    "verdict"};

[[noreturn]] void refuse(std::string_view source, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, cat("[rewards.task] ", source, ": ", what));
}

// A column that may be text or a number, as text.
std::string text_column(const Json& record, const char* key, std::string_view source) {
  if (!record.contains(key) || record[key].is_null()) return "";
  const Json& value = record[key];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) return value.dump();
  refuse(source, cat("\"", key, "\" is ", value.type_name(), ", need text."));
}

// {"question", "answer": "working ... #### 42"}: the form GSM8K is published in.
bool read_gsm8k(const Json& record, Task& task) {
  if (!record.contains("question") || !record["question"].is_string() || record.contains("prompt"))
    return false;
  const std::string worked = record.value("answer", "");
  const size_t mark = worked.rfind("####");
  if (mark == std::string::npos) return false;
  task.prompt = record["question"].get<std::string>();
  task.answer = trimmed(std::string_view(worked).substr(mark + 4));
  task.verifier = "math";
  return true;
}

void read_prompt(const Json& record, std::string_view source, Task& task) {
  if (!record.contains("prompt")) refuse(source, "no \"prompt\". A task has a prompt and a verifier.");
  const Json& prompt = record["prompt"];
  if (prompt.is_string()) {
    task.prompt = prompt.get<std::string>();
    if (trimmed(task.prompt).empty()) refuse(source, "\"prompt\" is empty.");
    return;
  }
  if (!prompt.is_array() || prompt.empty() || !prompt.back().is_object())
    refuse(source, "\"prompt\" is neither text nor a list of messages.");
  const std::string role = prompt.back().value("role", "");
  if (role != "user" && role != "tool")
    refuse(source, cat("the last message of \"prompt\" is by \"", role, "\", need user or tool."));
  task.messages = dump_json(prompt);
}

void check_verifier(const Task& task, std::string_view source) {
  std::vector<std::string> known(std::begin(kVerifiers), std::end(kVerifiers));
  for (const std::string& one : known)
    if (one == task.verifier) return;
  std::string list;
  for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
  refuse(source, cat("verifier is \"", task.verifier, "\", need one of ", list,
                     did_you_mean(task.verifier, known), "."));
}

}  // namespace

Task parse_task(std::string_view line, std::string_view source) {
  auto record = std::make_shared<Json>(parse_json(line, source));
  if (!record->is_object()) refuse(source, "not a JSON object.");
  Task task;
  if (!read_gsm8k(*record, task)) {
    read_prompt(*record, source, task);
    task.verifier = text_column(*record, "verifier", source);
    task.answer = text_column(*record, "answer", source);
    check_verifier(task, source);
  }
  task.id = text_column(*record, "id", source);
  task.record = std::move(record);
  return task;
}

std::vector<Task> load_tasks(const std::filesystem::path& path) {
  const std::string content = read_file(path);
  std::vector<Task> tasks;
  int64_t number = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    const std::string_view line = trimmed(std::string_view(content).substr(begin, end - begin));
    begin = end + 1;
    ++number;
    if (line.empty()) continue;
    tasks.push_back(parse_task(line, cat(path.string(), ":", number)));
    if (tasks.back().id.empty()) tasks.back().id = cat(number);
  }
  if (tasks.empty())
    throw Error(ErrorCode::kInvalidArgument,
                cat("[rewards.task] ", path.string(), " holds no task. See docs/tasks.md for the format."));
  return tasks;
}

std::string normalised_prompt(const Task& task) {
  std::string text;
  for (const unsigned char c : task.prompt.empty() ? task.messages : task.prompt) {
    if (!std::isspace(c)) {
      text += static_cast<char>(std::tolower(c));
    } else if (!text.empty() && text.back() != ' ') {
      text += ' ';
    }
  }
  if (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

double split_position(std::string_view normalised_prompt) {
  const Sha256Digest digest = sha256(normalised_prompt);
  uint64_t bits = 0;
  for (int i = 0; i < 8; ++i) bits = bits << 8 | digest[static_cast<size_t>(i)];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

void require_disjoint(const std::vector<Task>& train, const std::vector<Task>& held_out) {
  std::unordered_set<std::string> known;
  for (const Task& task : train) known.insert(normalised_prompt(task));
  int64_t shared = 0;
  const Task* first = nullptr;
  for (const Task& task : held_out)
    if (known.count(normalised_prompt(task)) && ++shared == 1) first = &task;
  if (!first) return;
  throw Error(ErrorCode::kInvalidArgument,
              cat("[rewards.task] ", shared, " of ", held_out.size(),
                  " held-out prompts are also trained on, the first is task ", first->id, ": \"",
                  normalised_prompt(*first).substr(0, 80),
                  "\". Make both files with one `hadal tasks make`, or remove them."));
}

}  // namespace hadal
