#include "hadal/server/schema_parts.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "hadal/base/text.h"
#include "hadal/server/api_error.h"

namespace hadal {
namespace {

constexpr size_t kMaxReferences = 100;

enum class Use { kAnnotation, kStructure, kLimit, kRefused };
struct Keyword {
  Use use;
  unsigned types;  // that a limit speaks of
};

const std::map<std::string, Keyword>& keywords() {
  static const std::map<std::string, Keyword> kKeywords = [] {
    std::map<std::string, Keyword> out;
    const auto put = [&](Use use, unsigned types, std::initializer_list<const char*> names) {
      for (const char* name : names) out[name] = {use, types};
    };
    put(Use::kAnnotation, 0,
        {"title",        "description",   "default",         "example",          "examples",      "$schema",
         "$id",          "$comment",      "deprecated",      "readOnly",         "writeOnly",     "$defs",
         "definitions",  "discriminator", "contentEncoding", "contentMediaType", "contentSchema", "strict",
         "externalDocs", "xml",           "$vocabulary"});
    put(Use::kStructure, 0, {"$ref", "allOf", "anyOf", "oneOf"});
    put(Use::kLimit, 0, {"type", "enum", "const", "nullable"});
    put(Use::kLimit, kObjectType,
        {"properties", "required", "additionalProperties", "minProperties", "maxProperties"});
    put(Use::kLimit, kArrayType, {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"});
    put(Use::kLimit, kStringType, {"minLength", "maxLength", "pattern", "format"});
    put(Use::kLimit, kNumberTypes,
        {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"});
    put(Use::kRefused, 0,
        {"not",
         "if",
         "then",
         "else",
         "dependentRequired",
         "dependentSchemas",
         "dependencies",
         "patternProperties",
         "propertyNames",
         "unevaluatedProperties",
         "unevaluatedItems",
         "contains",
         "minContains",
         "maxContains",
         "additionalItems",
         "$dynamicRef",
         "$dynamicAnchor",
         "$recursiveRef",
         "$recursiveAnchor",
         "$anchor"});
    return out;
  }();
  return kKeywords;
}

unsigned named_type(const std::string& name) {
  static const std::map<std::string, unsigned> kTypes = {
      {"null", kNullType},      {"boolean", kBooleanType}, {"object", kObjectType}, {"array", kArrayType},
      {"number", kNumberTypes}, {"integer", kIntegerType}, {"string", kStringType}};
  const auto found = kTypes.find(name);
  return found == kTypes.end() ? 0 : found->second;
}

}  // namespace

const Json* find(const SchemaPart& part, const char* keyword) {
  const auto found = part.schema->find(keyword);
  return found == part.schema->end() ? nullptr : &*found;
}

unsigned type_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return kNullType;
    case Json::value_t::boolean:
      return kBooleanType;
    case Json::value_t::object:
      return kObjectType;
    case Json::value_t::array:
      return kArrayType;
    case Json::value_t::string:
      return kStringType;
    case Json::value_t::number_float:
      return value.get<double>() == std::floor(value.get<double>()) ? kIntegerType : kFractionType;
    default:
      return kIntegerType;
  }
}

std::string pointer_step(const std::string& key) {
  std::string out = "/";
  for (const char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

void SchemaParts::add(const SchemaPart& part) {
  for (SchemaPart& known : all)
    if (known.schema == part.schema) {
      known.chosen |= part.chosen;
      return;
    }
  all.push_back(part);
}

void SchemaParts::add(const SchemaParts& parts) {
  for (const SchemaPart& part : parts.all) add(part);
  never |= parts.never;
}

// "response_format.json_schema.schema.properties.age.minimum", items by number in brackets.
void SchemaReader::fail(const std::string& path, const std::string& what) const {
  std::string param = param_;
  for (size_t at = 0; at < path.size();) {
    const size_t next = std::min(path.find('/', at + 1), path.size());
    const std::string step = path.substr(at + 1, next - at - 1);
    const bool index = !step.empty() && step.find_first_not_of("0123456789") == step.npos;
    param += index ? cat("[", step, "]") : cat(".", step);
    at = next;
  }
  throw ApiError(400, cat("[server.json_schema] #", path, ": ", what), param, "invalid_json_schema");
}

std::pair<const Json*, std::string> SchemaReader::target(const std::string& reference,
                                                         const std::string& path) const {
  if (reference.empty() || reference[0] != '#')
    fail(path, cat("refers to \"", reference, "\", need a place in this schema such as \"#/$defs/name\"."));
  const Json* at = &root_;
  std::string walked;
  for (size_t i = 1; i < reference.size();) {
    const size_t next = std::min(reference.find('/', i + 1), reference.size());
    std::string key;
    for (size_t k = i + 1; k < next; ++k) {
      if (reference[k] == '~' && k + 1 < next) {
        key += reference[++k] == '1' ? '/' : '~';
      } else if (reference[k] == '%' && k + 2 < next &&
                 std::isxdigit(static_cast<unsigned char>(reference[k + 1])) &&
                 std::isxdigit(static_cast<unsigned char>(reference[k + 2]))) {
        key += static_cast<char>(std::stoi(reference.substr(k + 1, 2), nullptr, 16));
        k += 2;
      } else {
        key += reference[k];
      }
    }
    const Json* step = nullptr;
    if (at->is_object()) {
      const auto found = at->find(key);
      if (found != at->end()) step = &*found;
    } else if (at->is_array() && !key.empty() && key.size() < 6 &&
               key.find_first_not_of("0123456789") == key.npos) {
      const auto index = static_cast<size_t>(std::stoi(key));
      if (index < at->size()) step = &(*at)[index];
    }
    if (reference[i] != '/' || !step)
      fail(path, cat("refers to \"", reference, "\", which is not in the schema. Define it under $defs."));
    at = step;
    walked += pointer_step(key);
    i = next;
  }
  return {at, walked};
}

void SchemaReader::check_keywords(const Json& schema, const std::string& path) {
  if (!checked_.insert(&schema).second) return;
  std::vector<std::string> known;
  for (const auto& [name, keyword] : keywords())
    if (keyword.use != Use::kRefused) known.push_back(name);
  for (const auto& [name, value] : schema.items()) {
    const auto found = keywords().find(name);
    const std::string place = path + pointer_step(name);
    if (found == keywords().end() && !name.starts_with("x-"))
      fail(place, cat("unknown keyword \"", name, "\"", did_you_mean(name, known), "."));
    if (found == keywords().end()) continue;
    if (found->second.use == Use::kRefused)
      fail(place, cat("\"", name, "\" is not supported. Leave it out and check the answer yourself."));
    const bool list = name == "allOf" || name == "anyOf" || name == "oneOf" || name == "prefixItems" ||
                      name == "enum" || name == "required";
    if (list && !value.is_array()) fail(place, cat("\"", name, "\" must be a list."));
    if (list && value.empty() && name != "required" && name != "prefixItems")
      fail(place, cat("\"", name, "\" must not be empty."));
    if (name == "properties" && !value.is_object()) fail(place, "\"properties\" must be an object.");
    if ((name == "$ref" || name == "pattern" || name == "format") && !value.is_string())
      fail(place, cat("\"", name, "\" must be a string."));
    if ((name == "nullable" || name == "uniqueItems") && !value.is_boolean())
      fail(place, cat("\"", name, "\" must be true or false."));
    if (name == "uniqueItems" && value == true)
      fail(place, "\"uniqueItems\" is not supported. Leave it out.");
    if (name == "required")
      for (const Json& key : value)
        if (!key.is_string()) fail(place, "\"required\" must be a list of strings.");
  }
  if (const auto nullable = schema.find("nullable");
      nullable != schema.end() && *nullable == true && !schema.contains("type") && !schema.contains("enum"))
    fail(path + "/nullable", "nullable needs a type beside it. Say anyOf with {\"type\": \"null\"} instead.");
  if (schema.contains("anyOf") && schema.contains("oneOf"))
    fail(path, "anyOf and oneOf side by side are not supported. Put one of them into allOf.");
}

void SchemaReader::collect(const Json& schema, const std::string& path, SchemaParts& out,
                           std::vector<const Json*>& active) {
  if (schema.is_boolean()) {
    out.never |= schema == false;
    return;
  }
  if (!schema.is_object()) fail(path, "a schema must be an object, true or false.");
  if (std::find(active.begin(), active.end(), &schema) != active.end())
    fail(path, "refers to itself with nothing in between: no value is described.");
  if (active.size() > kMaxReferences)
    fail(path, cat("follows more than ", kMaxReferences, " references. Refer directly."));
  check_keywords(schema, path);
  active.push_back(&schema);
  if (const auto reference = schema.find("$ref"); reference != schema.end()) {
    const auto [to, walked] = target(reference->get<std::string>(), path + "/$ref");
    collect(*to, walked, out, active);
  }
  if (const auto list = schema.find("allOf"); list != schema.end())
    for (size_t i = 0; i < list->size(); ++i) collect((*list)[i], cat(path, "/allOf/", i), out, active);
  active.pop_back();
  SchemaPart part{&schema, path};
  if (schema.contains("anyOf") || schema.contains("oneOf") || constrains(part)) out.add(part);
}

SchemaParts SchemaReader::parts(const Json& schema, const std::string& path) {
  SchemaParts out;
  std::vector<const Json*> active;
  collect(schema, path, out, active);
  return out;
}

bool SchemaReader::constrains(const SchemaPart& part) {
  for (const auto& [name, value] : part.schema->items()) {
    const auto found = keywords().find(name);
    if (found != keywords().end() && found->second.use == Use::kLimit) return true;
  }
  return !part.chosen && (part.schema->contains("anyOf") || part.schema->contains("oneOf"));
}

std::optional<int64_t> SchemaReader::count(const SchemaPart& part, const char* keyword, int64_t most) const {
  const Json* value = find(part, keyword);
  if (!value) return std::nullopt;
  const std::string place = part.path + "/" + keyword;
  if (!value->is_number_integer() &&
      !(value->is_number_float() && value->get<double>() == std::floor(value->get<double>())))
    fail(place, cat("\"", keyword, "\" must be a whole number."));
  const double n = value->get<double>();
  if (n < 0 || n > static_cast<double>(most))
    fail(place, cat("\"", keyword, "\" is ", dump_json(*value), ", need 0 to ", most, "."));
  return static_cast<int64_t>(n);
}

unsigned SchemaReader::stated_types(const SchemaPart& part) const {
  const Json* type = find(part, "type");
  const Json* nullable = find(part, "nullable");
  if (!type) return kAllTypes;
  unsigned types = 0;
  const auto add = [&](const Json& name) {
    const unsigned one = name.is_string() ? named_type(name.get<std::string>()) : 0;
    if (one == 0)
      fail(part.path + "/type", cat("unknown type ", dump_json(name),
                                    ", need null, boolean, object, array, number, integer or string."));
    types |= one;
  };
  if (type->is_array())
    for (const Json& name : *type) add(name);
  else
    add(*type);
  if (nullable && *nullable == true) types |= kNullType;
  return types;
}

unsigned SchemaReader::stated_types(const SchemaParts& parts) const {
  unsigned types = parts.never ? 0u : unsigned{kAllTypes};
  for (const SchemaPart& part : parts.all) types &= stated_types(part);
  return types;
}

unsigned SchemaReader::meant_types(const SchemaParts& parts) const {
  unsigned spoken_of = 0;
  bool stated = false;
  for (const SchemaPart& part : parts.all) {
    stated |=
        part.schema->contains("type") || part.schema->contains("enum") || part.schema->contains("const");
    for (const auto& [name, value] : part.schema->items())
      if (const auto found = keywords().find(name); found != keywords().end())
        spoken_of |= found->second.types;
  }
  return stated_types(parts) & (stated || spoken_of == 0 ? unsigned{kAllTypes} : spoken_of);
}

std::optional<std::vector<Json>> SchemaReader::values(const SchemaParts& parts) const {
  std::optional<std::vector<Json>> shared;
  const auto keep = [&](const std::vector<Json>& allowed) {
    if (!shared) {
      shared = allowed;
      return;
    }
    std::erase_if(*shared, [&](const Json& v) {
      return std::find(allowed.begin(), allowed.end(), v) == allowed.end();
    });
  };
  for (const SchemaPart& part : parts.all) {
    if (const Json* list = find(part, "enum")) {
      std::vector<Json> allowed(list->begin(), list->end());
      if (const Json* nullable = find(part, "nullable"); nullable && *nullable == true)
        allowed.emplace_back(nullptr);
      keep(allowed);
    }
    if (const Json* one = find(part, "const")) keep({*one});
  }
  return shared;
}

SchemaParts SchemaReader::property(const SchemaParts& parts, const std::string& name) {
  SchemaParts out;
  for (const SchemaPart& part : parts.all) {
    const Json* listed = find(part, "properties");
    const auto found = listed ? listed->find(name) : Json::const_iterator{};
    if (listed && found != listed->end())
      out.add(this->parts(*found, part.path + "/properties" + pointer_step(name)));
    else if (const Json* others = find(part, "additionalProperties"))
      out.add(this->parts(*others, part.path + "/additionalProperties"));
  }
  return out;
}

// A property that both require and that cannot be the same, or that one requires and the other forbids.
bool SchemaReader::objects_disjoint(const SchemaParts& a, const SchemaParts& b, int depth) {
  const auto required = [](const SchemaParts& parts) {
    std::set<std::string> names;
    for (const SchemaPart& part : parts.all)
      if (const Json* list = find(part, "required"))
        for (const Json& name : *list) names.insert(name.get<std::string>());
    return names;
  };
  const std::set<std::string> of_a = required(a), of_b = required(b);
  for (const std::string& name : of_a) {
    const SchemaParts other = property(b, name);
    if (other.never || (of_b.count(name) && disjoint(property(a, name), other, depth + 1))) return true;
  }
  return std::any_of(of_b.begin(), of_b.end(),
                     [&](const std::string& name) { return property(a, name).never; });
}

bool SchemaReader::disjoint(const SchemaParts& a, const SchemaParts& b, int depth) {
  if (depth > 3) return false;
  const auto values_a = values(a), values_b = values(b);
  if (values_a && values_b)
    return std::none_of(values_a->begin(), values_a->end(), [&](const Json& v) {
      return std::find(values_b->begin(), values_b->end(), v) != values_b->end();
    });
  const auto none_fits = [&](const std::vector<Json>& list, const SchemaParts& parts) {
    return std::none_of(list.begin(), list.end(),
                        [&](const Json& v) { return type_of(v) & stated_types(parts); });
  };
  if (values_a) return none_fits(*values_a, b);
  if (values_b) return none_fits(*values_b, a);
  const unsigned shared = (meant_types(a) & stated_types(b)) | (meant_types(b) & stated_types(a));
  return shared == 0 || (shared == kObjectType && objects_disjoint(a, b, depth));
}

}  // namespace hadal
