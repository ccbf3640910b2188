// Objects, arrays, strings and numbers of a schema.
#include <algorithm>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/server/pattern.h"
#include "hadal/server/schema_rules.h"

namespace hadal {
namespace {

constexpr int64_t kMaxProperties = 5000, kMaxItems = 4096, kMaxLength = 16'384;

// Leap days are left out: every text is a day of every year.
const char* const kDate =
    "(?:(?:000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|"
    "(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8])))";
const char* const kTime =
    "(?:(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d))";

const std::map<std::string, std::string>& formats() {
  static const std::string kLabel = "[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?",
                           kByte = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  static const std::string kHost = cat(kLabel, "(?:\\.", kLabel, "){0,4}");
  static const std::map<std::string, std::string> kFormats = {
      {"date", cat("^", kDate, "$")},
      {"time", cat("^", kTime, "$")},
      {"date-time", cat("^", kDate, "T", kTime, "$")},
      {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
      {"email",
       cat("^[A-Za-z0-9_+-]{1,24}(?:\\.[A-Za-z0-9_+-]{1,24}){0,2}@", kLabel, "(?:\\.", kLabel, "){1,3}$")},
      {"ipv4", cat("^", kByte, "(?:\\.", kByte, "){3}$")},
      {"hostname", cat("^", kHost, "$")},
  };
  return kFormats;
}

// < 0, 0, > 0 as a is below, at, above b.
int compare(const Decimal& a, const Decimal& b) {
  const auto scaled = [](const Decimal& d) {
    unsigned __int128 value = d.digits;
    for (int i = d.places; i < 15; ++i) value *= 10;
    return d.negative ? -static_cast<__int128>(value) : static_cast<__int128>(value);
  };
  return scaled(a) < scaled(b) ? -1 : scaled(a) > scaled(b);
}

}  // namespace

// ---- objects ----

struct SchemaRules::Members {
  struct Listed {
    std::string name;
    Rule value;
    bool required;
  };
  std::vector<Listed> listed;
  std::optional<Rule> others;  // values of keys that are not listed
  bool never = false;
};

SchemaRules::Members SchemaRules::members(const SchemaParts& parts) {
  Members out;
  std::vector<std::string> names;
  std::map<std::string, std::string> required;  // and where it says so
  bool any_listed = false, opened = false;
  SchemaParts others;
  for (const SchemaPart& part : parts.all) {
    if (const Json* listed = find(part, "properties")) {
      any_listed = true;
      for (const auto& [name, schema] : listed->items())
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
    if (const Json* rest = find(part, "additionalProperties")) {
      opened = true;
      others.add(reader_.parts(*rest, part.path + "/additionalProperties"));
    }
  }
  for (const SchemaPart& part : parts.all)
    if (const Json* list = find(part, "required"))
      for (size_t i = 0; i < list->size(); ++i) {
        const auto name = (*list)[i].get<std::string>();
        required.emplace(name, cat(part.path, "/required/", i));
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
      }
  num_properties_ += static_cast<int64_t>(names.size());
  if (num_properties_ > kMaxProperties)
    reader_.fail(parts.all[0].path, cat("more than ", kMaxProperties, " properties are listed in all."));
  for (const std::string& name : names) {
    const SchemaParts value = reader_.property(parts, name);
    const auto found = required.find(name);
    if (value.never && found == required.end()) continue;
    if (value.never) out.never = true;
    const std::string place =
        value.all.empty() ? parts.all[0].path + "/properties" + pointer_step(name) : value.all[0].path;
    out.listed.push_back(
        {name, rule_of(value, value.never ? found->second : place), found != required.end()});
  }
  if (!others.never && (opened || (!any_listed && required.empty())))
    out.others = rule_of(others, others.all.empty() ? "" : others.all[0].path);
  return out;
}

// before[i]: member i or a later one comes next. Behind a member, a comma leads to the next `before`.
void SchemaRules::add_listed(const Members& members, State from, State to) {
  const size_t n = members.listed.size();
  size_t required_end = 0;  // behind the last required one
  for (size_t i = 0; i < n; ++i)
    if (members.listed[i].required) required_end = i + 1;
  std::vector<std::string> taken;
  State before = json_.then_space(from);
  if (required_end == 0) g_.add_empty(from, to);
  for (size_t i = 0; i <= n; ++i) {
    if (i == n && !members.others) return;
    const State after = g_.state_beside(from), next = i == n ? before : g_.state_beside(from);
    State colon;
    if (i < n) {
      taken.push_back(members.listed[i].name);
      colon = g_.then_literal(before, json_string_text(taken.back()) + ":");
      if (!members.listed[i].required) g_.add_empty(before, next);
    } else {
      colon = g_.then_literal(g_.then_call(before, json_.other_key(taken)), ":");
    }
    g_.add_call(json_.then_space(colon), i < n ? members.listed[i].value : *members.others, after);
    g_.add_empty(json_.then_space(g_.then_literal(after, ",")), next);
    if (i + 1 >= required_end) g_.add_empty(json_.then_space(after), to);
    before = next;
  }
}

void SchemaRules::add_object(const SchemaParts& parts, State from, State to) {
  const Members all = members(parts);
  const Bounds count = bounds(parts, "minProperties", "maxProperties", kMaxItems);
  const State open = g_.then_literal(from, "{"), close = g_.state_beside(from);
  g_.add_literal(close, "}", to);
  std::string where;
  if (!any_has(parts, {"minProperties", "maxProperties"}, where)) return add_listed(all, open, close);
  const auto required = static_cast<int64_t>(
      std::count_if(all.listed.begin(), all.listed.end(), [](const auto& m) { return m.required; }));
  if (all.listed.empty() && all.others) {
    const Rule member = g_.add_rule();
    const State colon = g_.then_literal(g_.then_call(g_.start(member), json_.other_key({})), ":");
    g_.add_call(json_.then_space(colon), *all.others, g_.end(member));
    return json_.add_list(open, {}, member, {count.min, count.max}, close);
  }
  const bool holds = required >= count.min && !all.others &&
                     static_cast<int64_t>(all.listed.size()) <= count.max.value_or(INT64_MAX);
  if (!holds)
    reader_.fail(where, "a count of properties is supported only for objects without listed properties.");
  add_listed(all, open, close);
}

// ---- arrays, strings, numbers ----

void SchemaRules::add_array(const SchemaParts& parts, State from, State to) {
  Bounds count = bounds(parts, "minItems", "maxItems", kMaxItems);
  size_t fixed = 0;
  for (const SchemaPart& part : parts.all) {
    if (const Json* list = find(part, "prefixItems")) fixed = std::max(fixed, list->size());
    if (const Json* items = find(part, "items"); items && items->is_array())
      reader_.fail(part.path + "/items",
                   "a list of schemas under items is not supported. Call it prefixItems.");
  }
  std::vector<Rule> first;
  std::optional<Rule> rest;
  for (size_t i = 0; i <= fixed; ++i) {
    SchemaParts element;
    std::string place;
    for (const SchemaPart& part : parts.all) {
      const Json* list = find(part, "prefixItems");
      const Json* items = find(part, "items");
      if (list && i < list->size()) {
        place = cat(part.path, "/prefixItems/", i);
        element.add(reader_.parts((*list)[i], place));
      } else if (items) {
        place = part.path + "/items";
        element.add(reader_.parts(*items, place));
      }
    }
    if (element.never) {
      count.max = std::min(count.max.value_or(INT64_MAX), static_cast<int64_t>(i));
      break;
    }
    if (i < fixed)
      first.push_back(rule_of(element, place));
    else
      rest = rule_of(element, place);
  }
  if (count.min > count.max.value_or(INT64_MAX)) return;
  const State close = g_.state_beside(from);
  json_.add_list(g_.then_literal(from, "["), first, rest, {count.min, count.max}, close);
  g_.add_literal(close, "]", to);
}

std::string SchemaRules::format_pattern(const std::string& name, const std::string& place) const {
  if (const auto found = formats().find(name); found != formats().end()) return found->second;
  std::string list;
  for (const auto& [known, unused] : formats()) list += (list.empty() ? "" : ", ") + known;
  reader_.fail(place, cat("unknown format \"", name, "\", need one of ", list, "."));
}

void SchemaRules::add_string(const SchemaParts& parts, State from, State to) {
  const Bounds length = bounds(parts, "minLength", "maxLength", kMaxLength);
  std::string pattern, where;
  for (const SchemaPart& part : parts.all)
    for (const char* keyword : {"pattern", "format"}) {
      const Json* value = find(part, keyword);
      if (!value) continue;
      const std::string place = part.path + "/" + keyword, text = value->get<std::string>();
      if (!where.empty())
        reader_.fail(place, "two patterns or formats of one string are not supported. Keep one.");
      where = place;
      pattern = text;
      if (std::string_view(keyword) == "pattern") continue;
      pattern = format_pattern(text, place);
    }
  if (length.min > length.max.value_or(INT64_MAX)) return;
  if (where.empty()) {
    if (length.min == 0 && !length.max) return g_.add_call(from, json_.string(), to);
    return json_.add_string(from, length.min, length.max, to);
  }
  try {
    Pattern::parse(pattern).add_string(json_, g_, from, length.min, length.max, to);
  } catch (const Error& error) {
    reader_.fail(where, error.what());
  }
}

// Takes what the part says into the range. False: no number is left.
bool SchemaRules::tighten(const SchemaPart& part, NumberRange& range) const {
  for (const char* keyword : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
    const Json* value = find(part, keyword);
    if (!value) continue;
    const std::string place = part.path + "/" + keyword;
    if (!value->is_number()) reader_.fail(place, cat("\"", keyword, "\" must be a number."));
    const auto bound = parse_decimal(dump_json(*value));
    if (!bound) reader_.fail(place, "has more than 15 digits behind or 19 before the point. Round it.");
    const bool low = std::string_view(keyword).ends_with("inimum"), exclusive = keyword[0] == 'e';
    auto& end = low ? range.low : range.high;
    bool& excluded = low ? range.above_low : range.below_high;
    const int order = end ? compare(*bound, *end) * (low ? 1 : -1) : 1;
    if (order > 0) end = bound, excluded = exclusive;
    if (order == 0) excluded |= exclusive;
  }
  if (const Json* step = find(part, "multipleOf")) {
    const std::string place = part.path + "/multipleOf";
    const auto unit = step->is_number() ? parse_decimal(dump_json(*step)) : std::nullopt;
    if (!unit || unit->negative || unit->digits != 1)
      reader_.fail(place, "only 1, 0.1, 0.01 and so on are supported as \"multipleOf\". Leave it out.");
    range.max_places = std::min(range.max_places, unit->places);
  }
  const Json* format = find(part, "format");
  if (format && !(reader_.stated_types(part) & kStringType) && *format != "int64" && *format != "double" &&
      *format != "float")
    reader_.fail(part.path + "/format",
                 cat("unknown format ", dump_json(*format), " of a number. State its minimum and maximum."));
  return !range.low || !range.high ||
         compare(*range.low, *range.high) < (range.above_low || range.below_high ? 0 : 1);
}

void SchemaRules::add_number(const SchemaParts& parts, bool integer, State from, State to) {
  NumberRange range;
  if (integer) range.max_places = 0;
  for (const SchemaPart& part : parts.all)
    if (!tighten(part, range)) return;
  if (!range.low && !range.high && range.max_places == 15) return g_.add_call(from, json_.number(), to);
  json_.add_number(from, range, to);
}

}  // namespace hadal
