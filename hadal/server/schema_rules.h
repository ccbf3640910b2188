// A JSON Schema as rules of a grammar.
#pragma once
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "hadal/engine/grammar.h"
#include "hadal/server/json_text.h"
#include "hadal/server/schema_parts.h"

namespace hadal {

class SchemaRules {
 public:
  using State = Grammar::State;
  using Rule = Grammar::Rule;
  // root must outlive this.
  SchemaRules(Grammar& grammar, JsonText& json, const Json& root, std::string param)
      : g_(grammar), json_(json), reader_(root, std::move(param)), root_(root) {}

  // The rule of a value (objects_only: of an object) that fits the schema. Throws ApiError.
  Rule compile(bool objects_only = false);

 private:
  struct Bounds {
    int64_t min = 0;
    std::optional<int64_t> max;
  };
  struct Members;

  // The rule of these parts, to be filled when its turn comes.
  Rule rule_of(const SchemaParts& parts, const std::string& path);
  void add(const SchemaParts& parts, const std::string& path, State from, State to, int depth);
  void add_alternatives(SchemaParts parts, size_t which, const std::string& path, State from, State to,
                        int depth);
  void add_plain(const SchemaParts& parts, const std::string& path, State from, State to);
  void add_values(const SchemaParts& parts, const std::vector<Json>& values, const std::string& path,
                  State from, State to);
  void add_object(const SchemaParts& parts, State from, State to);
  Members members(const SchemaParts& parts);
  void add_listed(const Members& members, State from, State to);
  void add_array(const SchemaParts& parts, State from, State to);
  void add_string(const SchemaParts& parts, State from, State to);
  void add_number(const SchemaParts& parts, bool integer, State from, State to);
  bool tighten(const SchemaPart& part, NumberRange& range) const;
  Bounds bounds(const SchemaParts& parts, const char* min, const char* max, int64_t most) const;
  bool any_has(const SchemaParts& parts, std::initializer_list<const char*> keywords,
               std::string& where) const;
  std::string format_pattern(const std::string& name, const std::string& place) const;
  // Throws for what no finite value can satisfy and for what never begins.
  void check(Rule root) const;

  Grammar& g_;
  JsonText& json_;
  SchemaReader reader_;
  const Json& root_;
  int64_t work_ = 0, num_properties_ = 0, num_values_ = 0;
  std::map<std::vector<SchemaPart>, Rule> rules_;
  std::map<Rule, std::string> paths_;
  struct Waiting {
    Rule rule;
    SchemaParts parts;
    std::string path;
  };
  std::deque<Waiting> waiting_;
};

}  // namespace hadal
