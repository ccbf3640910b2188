// Tools that a model may call: a name, a JSON schema of the arguments, and what it does.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/base/json.h"

namespace hadal {

struct Tool {
  std::string name, description;
  Json parameters;                       // JSON schema of an object
  std::function<Json(const Json&)> run;  // arguments that fit the schema to a result; throws Error to refuse
};

class ToolBox {
 public:
  // Throws invalid_argument for a name that is there already or is no word.
  void add(Tool tool);
  const std::vector<Tool>& tools() const { return tools_; }

  // What the model gets back, as JSON text of at most max_result_bytes (the middle of a longer one is left
  // out, as a note says). Nothing a model writes is an exception: an unknown tool, arguments that are no JSON
  // or do not fit, and a tool that refuses give {"error": "..."}; *failed says so.
  std::string call(std::string_view name, std::string_view arguments, bool* failed = nullptr) const;

  size_t max_result_bytes = 8192;

 private:
  std::vector<Tool> tools_;
};

// "" if `value` fits, else what is wrong and where. Of JSON Schema: type, properties, required,
// additionalProperties false, enum, items, minimum, maximum, minLength, maxLength.
std::string schema_fault(const Json& schema, const Json& value, const std::string& where = "arguments");

}  // namespace hadal
