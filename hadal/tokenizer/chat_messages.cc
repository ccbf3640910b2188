// Chat messages from JSON.
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tokenizer.h"

namespace hadal {
namespace {

[[noreturn]] void wrong(std::string_view source, const std::string& field, std::string_view what) {
  throw Error(ErrorCode::kInvalidArgument,
              cat("[tokenizer.chat] ", source, ": ", field, " ", what, ". Correct the message."));
}

const Json* member(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string text_field(const Json& object, const char* key, std::string_view source,
                       const std::string& field) {
  const Json* value = member(object, key);
  if (!value || !value->is_string()) wrong(source, cat(field, ".", key), "is missing or not a string");
  return value->get<std::string>();
}

// A text, or parts of type "text".
std::string content_text(const Json& value, std::string_view source, const std::string& field) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) wrong(source, field, "is neither a string nor a list of text parts");
  std::string text;
  for (const Json& part : value) {
    if (!part.is_object() || part.value("type", "") != "text")
      wrong(source, field, "has a part that is not text");
    text += text_field(part, "text", source, field);
  }
  return text;
}

ToolCall tool_call(const Json& json, std::string_view source, const std::string& field) {
  if (!json.is_object()) wrong(source, field, "is not an object");
  const Json* function = member(json, "function");
  if (!function || !function->is_object()) wrong(source, field + ".function", "is missing or not an object");
  ToolCall call{.name = text_field(*function, "name", source, field + ".function")};
  if (member(json, "type")) call.type = text_field(json, "type", source, field);
  const Json* arguments = member(*function, "arguments");
  if (!arguments) wrong(source, field + ".function.arguments", "is missing");
  call.arguments = arguments->is_string() ? arguments->get<std::string>() : dump_json(*arguments);
  return call;
}

ChatMessage message(const Json& json, std::string_view source, const std::string& field) {
  if (!json.is_object()) wrong(source, field, "is not an object");
  ChatMessage out{.role = text_field(json, "role", source, field)};
  if (const Json* content = member(json, "content"))
    out.content = content_text(*content, source, field + ".content");
  if (member(json, "reasoning_content")) out.reasoning = text_field(json, "reasoning_content", source, field);
  if (const Json* calls = member(json, "tool_calls")) {
    if (!calls->is_array()) wrong(source, field + ".tool_calls", "is not a list");
    for (size_t i = 0; i < calls->size(); ++i)
      out.tool_calls.push_back(tool_call((*calls)[i], source, cat(field, ".tool_calls[", i, "]")));
  }
  return out;
}

}  // namespace

std::vector<ChatMessage> parse_chat_messages(std::string_view text, std::string_view source) {
  const Json json = parse_json(text, source);
  if (!json.is_array()) wrong(source, "the top level", "is not a list of messages");
  std::vector<ChatMessage> out;
  for (size_t i = 0; i < json.size(); ++i) out.push_back(message(json[i], source, cat("[", i, "]")));
  return out;
}

}  // namespace hadal
