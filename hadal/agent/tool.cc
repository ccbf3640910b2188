#include "hadal/agent/tool.h"

#include <algorithm>
#include <cctype>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

bool has_type(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  return type == "null" && value.is_null();
}

std::string object_fault(const Json& schema, const Json& value, const std::string& where) {
  const Json none = Json::object();
  const Json& properties = schema.contains("properties") ? schema["properties"] : none;
  for (const Json& name : schema.value("required", Json::array()))
    if (!value.contains(name.get<std::string>()))
      return cat(where, " lack \"", name.get<std::string>(), "\"");
  std::vector<std::string> known;
  for (const auto& [name, property] : properties.items()) known.push_back(name);
  for (const auto& [name, member] : value.items()) {
    if (properties.contains(name)) {
      if (const std::string fault = schema_fault(properties[name], member, cat(where, ".", name));
          !fault.empty())
        return fault;
    } else if (schema.value("additionalProperties", Json(true)) == Json(false)) {
      return cat(where, " have no \"", name, "\"", did_you_mean(name, known));
    }
  }
  return "";
}

std::string bound_fault(const Json& schema, const Json& value, const std::string& where) {
  if (value.is_number()) {
    if (schema.contains("minimum") && value < schema["minimum"])
      return cat(where, " is below ", schema["minimum"].dump());
    if (schema.contains("maximum") && value > schema["maximum"])
      return cat(where, " is above ", schema["maximum"].dump());
  }
  if (value.is_string()) {
    const size_t size = value.get_ref<const std::string&>().size();
    if (schema.contains("minLength") && size < schema["minLength"].get<size_t>())
      return where + " is too short";
    if (schema.contains("maxLength") && size > schema["maxLength"].get<size_t>())
      return where + " is too long";
  }
  return "";
}

std::string error_text(const std::string& what) {
  return dump_json(Json{{"error", what}});
}

// Head and tail; cut at bytes, which dump_json mends.
std::string shortened(const std::string& text, size_t max_bytes) {
  const size_t half = max_bytes / 2 - 64;
  return dump_json(
      Json{{"note", cat("the result of ", text.size(), " bytes is too long, its middle is left out")},
           {"head", text.substr(0, half)},
           {"tail", text.substr(text.size() - half)}});
}

}  // namespace

std::string schema_fault(const Json& schema, const Json& value, const std::string& where) {
  if (schema.contains("type") && !has_type(value, schema["type"].get<std::string>()))
    return cat(where, " is ", value.type_name(), ", need ", schema["type"].get<std::string>());
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end())
    return cat(where, " is ", dump_json(value), ", need one of ", schema["enum"].dump());
  if (const std::string fault = bound_fault(schema, value, where); !fault.empty()) return fault;
  if (value.is_object()) return object_fault(schema, value, where);
  if (value.is_array() && schema.contains("items"))
    for (size_t i = 0; i < value.size(); ++i)
      if (const std::string fault = schema_fault(schema["items"], value[i], cat(where, "[", i, "]"));
          !fault.empty())
        return fault;
  return "";
}

void ToolBox::add(Tool tool) {
  const bool word = !tool.name.empty() &&
                    std::all_of(tool.name.begin(), tool.name.end(),
                                [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; });
  if (!word)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[agent.tool] a tool is named \"", tool.name, "\", need letters, digits, _ and -."));
  for (const Tool& one : tools_)
    if (one.name == tool.name)
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[agent.tool] there are two tools named \"", tool.name, "\"."));
  tools_.push_back(std::move(tool));
}

std::string ToolBox::call(std::string_view name, std::string_view arguments, bool* failed) const {
  if (failed) *failed = true;
  const auto tool =
      std::find_if(tools_.begin(), tools_.end(), [&](const Tool& one) { return one.name == name; });
  if (tool == tools_.end()) {
    std::vector<std::string> known;
    for (const Tool& one : tools_) known.push_back(one.name);
    return error_text(cat("there is no tool \"", name, "\"", did_you_mean(name, known)));
  }
  try {
    const Json parsed = parse_json(arguments, "arguments");
    if (const std::string fault = schema_fault(tool->parameters, parsed); !fault.empty())
      return error_text(fault);
    const std::string result = dump_json(tool->run(parsed));
    if (failed) *failed = false;
    return result.size() <= max_result_bytes ? result : shortened(result, max_result_bytes);
  } catch (const Error& e) {
    return error_text(e.what());
  }
}

}  // namespace hadal
