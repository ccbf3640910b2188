#include "hadal/server/schema_rules.h"

#include <algorithm>

#include "hadal/base/text.h"
#include "hadal/engine/constraint.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr int64_t kMaxWork = 20'000, kMaxValues = 10'000;
constexpr int kMaxAlternativesDepth = 40;
const int32_t kMaxDepth = ConstraintLimits{}.max_depth;

}  // namespace

SchemaRules::Rule SchemaRules::compile(bool objects_only) {
  static const Json kObject = {{"type", "object"}};
  SchemaParts parts = reader_.parts(root_, "");
  if (objects_only) parts.add(SchemaPart{&kObject, ""});
  const Rule root = rule_of(parts, "");
  while (!waiting_.empty()) {
    const Waiting next = std::move(waiting_.front());
    waiting_.pop_front();
    try {
      add(next.parts, next.path, g_.start(next.rule), g_.end(next.rule), 0);
    } catch (const Error& error) {
      reader_.fail(next.path, error.what());
    }
  }
  check(root);
  return root;
}

void SchemaRules::check(Rule root) const {
  if (const auto rule = g_.left_recursive_rule()) {
    const auto found = paths_.find(*rule);
    reader_.fail(found == paths_.end() ? "" : found->second,
                 "refers to itself with nothing in between: no value is described.");
  }
  const std::vector<int32_t> heights = g_.heights();
  const int32_t height = heights[g_.start(root)];
  if (height <= kMaxDepth) return;
  if (height != Grammar::kNever)
    reader_.fail("", cat("every value nests ", height, " deep, need at most ", kMaxDepth, "."));
  std::string place = paths_.at(root);
  for (const auto& [rule, path] : paths_)
    if (heights[g_.start(rule)] == Grammar::kNever) place = path;  // the last: farthest from the root
  reader_.fail(place, "no finite value satisfies this.");
}

SchemaRules::Rule SchemaRules::rule_of(const SchemaParts& parts, const std::string& path) {
  if (parts.all.empty() && !parts.never) return json_.value();
  std::vector<SchemaPart> key = parts.all;
  if (parts.never) key.push_back({});
  std::sort(key.begin(), key.end());
  const auto [found, fresh] = rules_.try_emplace(key, 0);
  if (!fresh) return found->second;
  const Rule rule = found->second = g_.add_rule();
  paths_[rule] = parts.all.size() == 1 ? parts.all[0].path : path;
  waiting_.push_back({rule, parts, paths_[rule]});
  return rule;
}

void SchemaRules::add(const SchemaParts& parts, const std::string& path, State from, State to, int depth) {
  if (++work_ > kMaxWork)
    reader_.fail(path, "the schema has too many parts or combinations of alternatives.");
  if (depth > kMaxAlternativesDepth)
    reader_.fail(path, "alternatives nest too deep or refer to themselves with nothing in between.");
  if (parts.never) return;
  for (size_t i = 0; i < parts.all.size(); ++i)
    if (const SchemaPart& part = parts.all[i]; !part.chosen && (find(part, "anyOf") || find(part, "oneOf")))
      return add_alternatives(parts, i, path, from, to, depth);
  add_plain(parts, path, from, to);
}

// Each alternative together with all that holds beside it.
void SchemaRules::add_alternatives(SchemaParts parts, size_t which, const std::string& path, State from,
                                   State to, int depth) {
  const SchemaPart part = parts.all[which];
  const char* const keyword = find(part, "oneOf") ? "oneOf" : "anyOf";
  parts.all[which].chosen = true;
  const bool alone = std::none_of(parts.all.begin(), parts.all.end(), SchemaReader::constrains);
  std::vector<SchemaParts> alternatives;
  const Json& list = *find(part, keyword);
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string place = cat(part.path, "/", keyword, "/", i);
    alternatives.push_back(reader_.parts(list[i], place));
    if (std::string_view(keyword) == "oneOf")
      for (size_t j = 0; j < i; ++j)
        if (!alternatives[i].never && !alternatives[j].never &&
            !reader_.disjoint(alternatives[i], alternatives[j]))
          reader_.fail(place,
                       cat("a value may match this and alternative ", j,
                           " of oneOf. Use anyOf, or tell them apart by a required property of one value."));
    if (alone) {
      g_.add_call(from, rule_of(alternatives[i], place), to);
      continue;
    }
    for (const SchemaPart& more : alternatives[i].all)
      for (const SchemaPart& known : parts.all)
        if (more.schema == known.schema && known.chosen)
          reader_.fail(place,
                       "an alternative refers to itself, or repeats what holds beside it. Leave it out.");
    SchemaParts together = parts;
    together.add(alternatives[i]);
    add(together, place, from, to, depth + 1);
  }
}

bool SchemaRules::any_has(const SchemaParts& parts, std::initializer_list<const char*> keywords,
                          std::string& where) const {
  for (const SchemaPart& part : parts.all)
    for (const char* keyword : keywords)
      if (find(part, keyword)) {
        where = part.path + "/" + keyword;
        return true;
      }
  return false;
}

void SchemaRules::add_plain(const SchemaParts& parts, const std::string& path, State from, State to) {
  if (const auto values = reader_.values(parts)) return add_values(parts, *values, path, from, to);
  const unsigned types = reader_.meant_types(parts);
  if (types & kNullType) g_.add_literal(from, "null", to);
  if (types & kBooleanType)
    for (const char* word : {"true", "false"}) g_.add_literal(from, word, to);
  if (types & kObjectType) add_object(parts, from, to);
  if (types & kArrayType) add_array(parts, from, to);
  if (types & kStringType) add_string(parts, from, to);
  if (types & kNumberTypes) add_number(parts, !(types & kFractionType), from, to);
}

void SchemaRules::add_values(const SchemaParts& parts, const std::vector<Json>& values,
                             const std::string& path, State from, State to) {
  const unsigned types = reader_.stated_types(parts);
  std::map<std::pair<State, uint8_t>, State> tree;
  num_values_ += static_cast<int64_t>(values.size());
  if (num_values_ > kMaxValues)
    reader_.fail(path, cat("more than ", kMaxValues, " values are listed in all."));
  std::string where;
  for (const Json& value : values) {
    const unsigned type = type_of(value);
    if (!(type & types)) continue;
    const bool more =
        (type == kStringType && any_has(parts, {"minLength", "maxLength", "pattern", "format"}, where)) ||
        (type == kObjectType &&
         any_has(parts, {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
                 where)) ||
        (type == kArrayType && any_has(parts, {"items", "prefixItems", "minItems", "maxItems"}, where)) ||
        ((type & kNumberTypes) &&
         any_has(parts, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}, where));
    if (more)
      reader_.fail(where,
                   "a limit beside enum or const is not supported. Drop it, or the values it excludes.");
    State at = from;
    for (const char c : dump_json(value)) {
      const auto byte = static_cast<uint8_t>(c);
      const auto [found, fresh] = tree.try_emplace({at, byte}, 0);
      if (fresh) {
        found->second = g_.state_beside(from);
        g_.add_bytes(at, byte, byte, found->second);
      }
      at = found->second;
    }
    if (at != from) g_.add_empty(at, to);
  }
}

SchemaRules::Bounds SchemaRules::bounds(const SchemaParts& parts, const char* min, const char* max,
                                        int64_t most) const {
  Bounds out;
  for (const SchemaPart& part : parts.all) {
    out.min = std::max(out.min, reader_.count(part, min, most).value_or(0));
    if (const auto limit = reader_.count(part, max, most))
      out.max = std::min(*limit, out.max.value_or(*limit));
  }
  return out;
}

}  // namespace hadal
