// A JSONL file of the outside world, line by line, with errors that say where. Torch-free.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/tokenizer.h"

namespace hadal {

// One line, an object.
class JsonLine {
 public:
  JsonLine(const Json& object, std::string place);
  bool has(const char* key) const;  // and it is not null
  bool is_text(const char* key) const;
  bool is_empty(const char* key) const;  // "", [] or {}
  std::string text(const char* key) const;
  std::vector<ChatMessage> messages(const char* key) const;
  const Json& object() const { return object_; }
  const std::string& place() const { return place_; }  // "FILE line 3"
  // Throws invalid_argument "[posttrain.data] FILE line 3: <what>. <remedy>".
  [[noreturn]] void fail(const std::string& what, const std::string& remedy) const;

 private:
  const Json& object_;
  std::string place_;
};

// Empty lines are skipped. Throws what read_file and parse_json throw; invalid_argument for a file without a
// line.
void each_json_line(const std::filesystem::path& file, const std::function<void(const JsonLine&)>& visit);

}  // namespace hadal
