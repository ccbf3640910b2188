#include "hadal/posttrain/json_lines.h"

#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {

JsonLine::JsonLine(const Json& object, std::string place) : object_(object), place_(std::move(place)) {
  if (!object_.is_object()) fail("is no JSON object", "Write one object a line.");
}

void JsonLine::fail(const std::string& what, const std::string& remedy) const {
  throw Error(ErrorCode::kInvalidArgument, cat("[posttrain.data] ", place_, ": ", what, ". ", remedy));
}

bool JsonLine::has(const char* key) const {
  const auto at = object_.find(key);
  return at != object_.end() && !at->is_null();
}

bool JsonLine::is_text(const char* key) const {
  return has(key) && object_[key].is_string();
}

bool JsonLine::is_empty(const char* key) const {
  return object_[key].is_string() ? object_[key].get<std::string>().empty() : object_[key].empty();
}

std::string JsonLine::text(const char* key) const {
  if (!is_text(key)) fail(cat("\"", key, "\" is missing or no text"), "Correct the line.");
  return object_[key].get<std::string>();
}

std::vector<ChatMessage> JsonLine::messages(const char* key) const {
  if (!has(key) || !object_[key].is_array())
    fail(cat("\"", key, "\" is missing or no list of messages"), "Correct the line.");
  return parse_chat_messages(dump_json(object_[key]), cat(place_, " ", key));
}

void each_json_line(const std::filesystem::path& file, const std::function<void(const JsonLine&)>& visit) {
  const std::string text = read_file(file);
  int64_t number = 0, seen = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    ++number;
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    ++seen;
    const std::string place = cat(file.string(), " line ", number);
    const Json value = parse_json(line, place);
    visit(JsonLine(value, place));
  }
  if (seen == 0)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[posttrain.data] ", file.string(), " has no line. Write one JSON object a line."));
}

}  // namespace hadal
