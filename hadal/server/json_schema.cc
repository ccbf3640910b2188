#include "hadal/server/json_schema.h"

#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/server/api_error.h"
#include "hadal/server/schema_rules.h"
#include "hadal/server/unique_keys.h"

namespace hadal {
namespace {

constexpr size_t kMaxSchemaBytes = 512 * 1024;

void check_size(const Json& schema, const std::string& param) {
  const size_t bytes = dump_json(schema).size();
  if (bytes > kMaxSchemaBytes)
    throw ApiError(400,
                   cat("[server.json_schema] the schema has ", with_commas(static_cast<int64_t>(bytes)),
                       " bytes, need at most ", with_commas(kMaxSchemaBytes), "."),
                   param, "invalid_json_schema");
}

std::shared_ptr<const Constraint> finished(const Grammar& grammar, Grammar::Rule root, const JsonText& json) {
  auto constraint = std::make_shared<Constraint>(grammar, root);
  if (json.has_free_keys()) constraint->set_guard([] { return std::make_unique<UniqueKeys>(); });
  return constraint;
}

}  // namespace

std::shared_ptr<const Constraint> compile_json_schema(const Json& schema, const std::string& param) {
  check_size(schema, param);
  Grammar grammar;
  JsonText json(grammar);
  const Grammar::Rule root = SchemaRules(grammar, json, schema, param).compile();
  return finished(grammar, root, json);
}

std::shared_ptr<const Constraint> compile_json_object() {
  Grammar grammar;
  JsonText json(grammar);
  return finished(grammar, json.object(), json);
}

std::shared_ptr<const Constraint> compile_calls(std::span<const CallForm> calls, const CallsForm& form,
                                                const Tokenizer& tokenizer) {
  Grammar grammar;
  JsonText json(grammar);
  std::vector<Grammar::Rule> arguments;
  for (const CallForm& call : calls) {
    if (call.parameters) check_size(*call.parameters, call.param);
    arguments.push_back(call.parameters
                            ? SchemaRules(grammar, json, *call.parameters, call.param).compile(true)
                            : json.object());
  }
  const Grammar::Rule one = grammar.add_rule();
  for (size_t i = 0; i < calls.size(); ++i) {
    const auto before = grammar.then_markup(grammar.start(one), calls[i].before, tokenizer);
    const auto after =
        grammar.then_markup(grammar.then_call(before, arguments[i]), calls[i].after, tokenizer);
    grammar.add_empty(after, grammar.end(one));
  }
  const Grammar::Rule root = grammar.add_rule();
  const Grammar::State last = grammar.add_state(root);
  Grammar::State at = grammar.then_markup(grammar.start(root), form.begin, tokenizer);
  for (int64_t i = 0; i < form.max_calls; ++i) {
    if (i >= form.min_calls) grammar.add_empty(at, last);
    at = grammar.then_call(i == 0 ? at : grammar.then_markup(at, form.between, tokenizer), one);
  }
  grammar.add_empty(at, last);
  grammar.add_empty(grammar.then_markup(last, form.end, tokenizer), grammar.end(root));
  return finished(grammar, root, json);
}

}  // namespace hadal
