// What an answer in JSON may be, as a constraint the engine follows (hadal/engine/constraint.h).
//
// Of JSON Schema (2020-12, with nullable and definitions of before): type, also as a list; properties,
// required, additionalProperties; items, prefixItems, minItems, maxItems; enum, const; minLength, maxLength,
// pattern (pattern.h), format date, time, date-time, uuid, email, ipv4, hostname; minimum, maximum and their
// exclusive forms, exactly; multipleOf a power of ten up to 1; anyOf, allOf, $ref within the schema,
// recursion too; oneOf if no value can match two. Every answer conforms; not every conforming text is among
// the answers: properties come in the order of the schema, are no more than those listed unless
// additionalProperties says so, numbers and white space are bounded (json_text.h), nesting is at most 62
// deep. A schema that cannot be honoured is refused: nothing is ignored but annotations and x-keywords.
//
// All throw ApiError{400, code "invalid_json_schema"}; `param` is where the schema stands in the request
// ("response_format.json_schema.schema") and starts the param of the error.
#pragma once
#include <memory>
#include <span>
#include <string>

#include "hadal/base/json.h"
#include "hadal/engine/constraint.h"

namespace hadal {

std::shared_ptr<const Constraint> compile_json_schema(const Json& schema, const std::string& param);
// Any object: response_format json_object.
std::shared_ptr<const Constraint> compile_json_object();

// One function that may be called: markup and name before its arguments, markup behind.
struct CallForm {
  std::string before, after;
  const Json* parameters = nullptr;  // schema of the arguments, an object; nullptr: any object
  std::string param;                 // "tools[0].function.parameters"
};
// Of all calls together. In every text added tokens of the tokenizer are matched as those tokens alone.
struct CallsForm {
  std::string begin, between, end;
  int64_t min_calls = 1, max_calls = 1;
};
// begin, one of the calls, between, another one .., end: for tool_choice "required" or a named function.
std::shared_ptr<const Constraint> compile_calls(std::span<const CallForm> calls, const CallsForm& form,
                                                const Tokenizer& tokenizer);

}  // namespace hadal
