#include "hadal/rewards/code_task.h"

#include <array>
#include <cctype>
#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/rewards/answer_text.h"
#include "hadal/rewards/code_checker.h"

namespace hadal {
namespace {

[[noreturn]] void refuse(const Task& task, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, cat("[rewards.code] task ", task.id, ": ", what));
}

std::string text_of(const Task& task, const Json& record, const char* key, const char* otherwise) {
  if (!record.contains(key)) return otherwise;
  if (!record[key].is_string())
    refuse(task, cat("\"", key, "\" is ", record[key].type_name(), ", need text."));
  return record[key].get<std::string>();
}

double number_of(const Task& task, const char* key, double otherwise, double most) {
  const Json& record = *task.record;
  if (!record.contains(key)) return otherwise;
  const double value = record[key].is_number() ? record[key].get<double>() : 0;
  if (!(value > 0 && value <= most))
    refuse(task, cat("\"", key, "\" needs a number above 0, at most ", most, "."));
  return value;
}

CodeTest parse_test(const Task& task, const Json& test, bool calls) {
  if (!test.is_object()) refuse(task, "a test is no JSON object.");
  if (!calls) {
    if (!test.contains("output")) refuse(task, "a test has no \"output\".");
    return {text_of(task, test, "input", ""), text_of(task, test, "output", "")};
  }
  if (!test.contains("args") || !test["args"].is_array() || !test.contains("result"))
    refuse(task, "a test of a function needs \"args\", a list, and \"result\".");
  return {dump_json(test["args"]), dump_json(test["result"])};
}

bool is_name(const std::string& text) {
  if (text.empty() || std::isdigit(static_cast<unsigned char>(text[0]))) return false;
  for (const unsigned char c : text)
    if (!std::isalnum(c) && c != '_') return false;
  return true;
}

void read_function(const Task& task, CodeTask& code) {
  code.function = text_of(task, *task.record, "function", "");
  code.signature = text_of(task, *task.record, "signature", "");
  if (code.function.empty()) return;
  if (!is_name(code.function)) refuse(task, cat("\"function\" is \"", code.function, "\", need a name."));
  if (code.language == CodeLanguage::kCpp && code.signature.find(code.function + "(") == std::string::npos)
    refuse(task, cat("a function in C++ needs its \"signature\", such as \"int ", code.function,
                     "(int a, int b)\"."));
}

// The block's content if the line at `begin` opens one of `tags`; `end` becomes the end of the block.
bool read_block(std::string_view text, size_t& at, std::string& tag, std::string& content) {
  const size_t fence = text.find("```", at);
  if (fence == std::string_view::npos) return false;
  const size_t line_end = text.find('\n', fence);
  if (line_end == std::string_view::npos) return false;
  tag = trimmed(text.substr(fence + 3, line_end - fence - 3));
  for (char& c : tag) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  size_t end = text.find("\n```", line_end);
  if (end == std::string_view::npos) return false;  // cut off: no program
  content = text.substr(line_end + 1, end > line_end ? end - line_end : 0);
  at = end + 4;
  return true;
}

}  // namespace

CodeTask parse_code_task(const Task& task) {
  const Json& record = *task.record;
  CodeTask code;
  const std::string language = text_of(task, record, "language", "cpp");
  if (language != "cpp" && language != "python")
    refuse(task, cat("\"language\" is \"", language, "\", need cpp or python."));
  code.language = language == "cpp" ? CodeLanguage::kCpp : CodeLanguage::kPython;
  code.time_limit_seconds = number_of(task, "time_limit_ms", 1000, 600'000) / 1000;
  code.memory_bytes = static_cast<int64_t>(number_of(task, "memory_limit_mb", 256, 65536) * 1048576);
  read_function(task, code);
  code.checker = text_of(task, record, "checker", "tokens");
  require_checker(code.checker, cat("[rewards.code] task ", task.id));
  if (!record.contains("tests") || !record["tests"].is_array() || record["tests"].empty())
    refuse(task, "no \"tests\": a list of at least one is needed.");
  for (const Json& test : record["tests"])
    code.tests.push_back(parse_test(task, test, !code.function.empty()));
  return code;
}

std::string find_program(std::string_view completion, CodeLanguage language) {
  const AnswerText after = text_after_reasoning(completion);
  if (after.status != AnswerStatus::kFound) return "";
  constexpr std::array<std::string_view, 4> cpp = {"cpp", "c++", "cc", "cxx"},
                                            python = {"python", "py", "python3", "python"};
  std::string found, tag, content;
  for (size_t at = 0; read_block(after.text, at, tag, content);)
    for (const std::string_view known : language == CodeLanguage::kCpp ? cpp : python)
      if (tag == known) found = content;
  return found;
}

}  // namespace hadal
