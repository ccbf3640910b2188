#include "hadal/config/config_fields.h"

#include <toml++/toml.h>
#include <algorithm>
#include <charconv>
#include <cmath>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

[[noreturn]] void fail(const ConfigDialect& dialect, const std::string& source, const std::string& what) {
  throw Error(ErrorCode::kInvalidConfig, cat(dialect.op, " ", source, ": ", what));
}

const char* need_of(const int64_t&) {
  return "an integer";
}
const char* need_of(const uint64_t&) {
  return "an integer of at least 0";
}
const char* need_of(const double&) {
  return "a number";
}
const char* need_of(const bool&) {
  return "true or false";
}
const char* need_of(const std::string&) {
  return "text in quotes";
}
const char* need_of(const std::vector<std::string>&) {
  return "a list of texts";
}

// A TOML value into a field; false: of another type.
bool take(const toml::node& node, int64_t& out) {
  if (!node.is_integer()) return false;
  out = **node.as_integer();
  return true;
}
bool take(const toml::node& node, uint64_t& out) {
  if (!node.is_integer() || **node.as_integer() < 0) return false;
  out = static_cast<uint64_t>(**node.as_integer());
  return true;
}
bool take(const toml::node& node, double& out) {
  if (node.is_integer()) {
    out = static_cast<double>(**node.as_integer());
  } else if (node.is_floating_point()) {
    out = **node.as_floating_point();
  } else {
    return false;
  }
  return std::isfinite(out);
}
bool take(const toml::node& node, bool& out) {
  if (!node.is_boolean()) return false;
  out = **node.as_boolean();
  return true;
}
bool take(const toml::node& node, std::string& out) {
  if (!node.is_string()) return false;
  out = **node.as_string();
  return true;
}
bool take(const toml::node& node, std::vector<std::string>& out) {
  if (!node.is_array()) return false;
  out.clear();
  for (const toml::node& one : *node.as_array()) {
    if (!one.is_string()) return false;
    out.push_back(**one.as_string());
  }
  return true;
}

// The same from the command line's text.
template <class T>
bool take_number(const std::string& text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}
bool take(const std::string& text, int64_t& out) {
  return take_number(text, out);
}
bool take(const std::string& text, uint64_t& out) {
  return take_number(text, out);
}
bool take(const std::string& text, double& out) {
  return take_number(text, out) && std::isfinite(out);
}
bool take(const std::string& text, bool& out) {
  out = text == "true";
  return out || text == "false";
}
bool take(const std::string& text, std::string& out) {
  out = text;
  return true;
}
// Apart by commas, those within the braces of JSON aside.
bool take(const std::string& text, std::vector<std::string>& out) {
  out.clear();
  std::string part;
  int64_t depth = 0;
  for (const char c : text + ",") {
    depth += (c == '{') - (c == '}');
    if (c != ',' || depth > 0) {
      part += c;
    } else if (!part.empty()) {
      out.push_back(part);
      part.clear();
    }
  }
  return depth == 0;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    char code[8];
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      out += code;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// The nearest key by its whole name, else by its last part: "learning.lr" means "optimizer.lr".
std::string key_hint(const std::string& key, const std::vector<ConfigField>& fields) {
  std::vector<std::string> keys;
  for (const ConfigField& field : fields) keys.push_back(field.name);
  if (const std::string hint = did_you_mean(key, keys); !hint.empty()) return hint;
  const std::string last = key.substr(key.rfind('.') + 1);
  for (const std::string& known : keys)
    if (known.substr(known.find('.') + 1) == last) return cat(" (did you mean \"", known, "\"?)");
  return "";
}

const ConfigField* find(const std::vector<ConfigField>& fields, const std::string& name) {
  const auto at = std::find_if(fields.begin(), fields.end(), [&](const auto& f) { return f.name == name; });
  return at == fields.end() ? nullptr : &*at;
}

std::string line_of(const toml::node& node) {
  return cat("line ", node.source().begin.line, ": ");
}

std::string as_written(const toml::node& node) {
  if (node.is_table()) return "a table";
  if (node.is_array()) return "a list";
  if (node.is_string()) return quoted(**node.as_string());
  std::ostringstream text;
  node.visit([&](const auto& value) { text << value; });
  return text.str();
}

}  // namespace

std::string toml_value(const int64_t& value) {
  return std::to_string(value);
}
std::string toml_value(const uint64_t& value) {
  return std::to_string(value);
}
std::string toml_value(const bool& value) {
  return value ? "true" : "false";
}
std::string toml_value(const std::string& value) {
  return quoted(value);
}
std::string toml_value(const double& value) {
  char text[40];
  const auto result = std::to_chars(text, text + sizeof text, value);
  std::string out(text, result.ptr);
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}
std::string toml_value(const std::vector<std::string>& values) {
  std::string out;
  for (const std::string& value : values) out += (out.empty() ? "" : ", ") + quoted(value);
  return "[" + out + "]";
}

std::string ConfigField::text() const {
  return std::visit([](const auto* field) { return toml_value(*field); }, value);
}

const char* ConfigField::need() const {
  return std::visit([](const auto* field) { return need_of(*field); }, value);
}

void read_toml(std::string_view text, const std::string& source, const std::vector<ConfigField>& fields,
               const ConfigDialect& dialect) {
  toml::table root;
  try {
    root = toml::parse(text);
  } catch (const toml::parse_error& e) {
    fail(dialect, source, cat("line ", e.source().begin.line, ": not TOML: ", e.description(), "."));
  }
  for (const auto& [section, node] : root) {
    const std::string section_name(section.str());
    if (!node.is_table())
      fail(dialect, source,
           cat(line_of(node), "\"", section_name, "\" stands outside a section",
               key_hint(section_name, fields), ": need [section] and key = value."));
    for (const auto& [key, value] : *node.as_table()) {
      const std::string name = cat(section_name, ".", std::string(key.str()));
      const ConfigField* field = find(fields, name);
      if (!field)
        fail(dialect, source,
             cat(line_of(value), "there is no key ", name, key_hint(name, fields), ". ", dialect.command,
                 " --print-config lists all."));
      const toml::node& node_of = value;
      if (!std::visit([&](auto* into) { return take(node_of, *into); }, field->value))
        fail(dialect, source,
             cat(line_of(value), name, " is ", as_written(value), ", need ", field->need(), "."));
    }
  }
}

void set_field(const std::vector<ConfigField>& fields, const std::string& key, const std::string& value,
               const std::string& source, const ConfigDialect& dialect) {
  const ConfigField* field = find(fields, key);
  if (!field)
    fail(dialect, source,
         cat("there is no key ", key, key_hint(key, fields), ". ", dialect.command,
             " --print-config lists all."));
  if (!std::visit([&](auto* into) { return take(value, *into); }, field->value))
    fail(dialect, source, cat(key, " is \"", value, "\", need ", field->need(), "."));
}

std::string toml_text(const std::vector<ConfigField>& fields, bool with_help) {
  std::string out, section;
  for (const ConfigField& field : fields) {
    const size_t dot = field.name.find('.');
    if (field.name.substr(0, dot) != section) {
      section = field.name.substr(0, dot);
      out += cat(out.empty() ? "" : "\n", "[", section, "]\n");
    }
    const std::string line = cat(field.name.substr(dot + 1), " = ", field.text());
    out += line;
    if (with_help) out += cat(std::string(line.size() < 32 ? 32 - line.size() : 1, ' '), "# ", field.help);
    out += "\n";
  }
  return out;
}

std::string reference_tables(const std::vector<ConfigField>& fields) {
  std::string out, section;
  for (const ConfigField& field : fields) {
    const size_t dot = field.name.find('.');
    if (field.name.substr(0, dot) != section) {
      section = field.name.substr(0, dot);
      out += cat("\n## [", section, "]\n\n| key | default | meaning |\n|---|---|---|\n");
    }
    out += cat("| `", field.name.substr(dot + 1), "` | `", field.text(), "` | ", field.help, " |\n");
  }
  return out;
}

std::vector<std::string> changed_fields(const std::vector<ConfigField>& before,
                                        const std::vector<ConfigField>& now,
                                        const std::function<bool(const std::string&)>& counts) {
  std::vector<std::string> changes;
  for (size_t i = 0; i < now.size(); ++i) {
    const std::string old = before[i].text(), value = now[i].text();
    if (value != old && counts(now[i].name))
      changes.push_back(cat(now[i].name, ": ", old, " before, ", value, " now"));
  }
  return changes;
}

void ConfigRules::fail(const char* key, const std::string& value, const char* what) const {
  hadal::fail(dialect_, source_, cat(key, " is ", value, ", need ", what, "."));
}

bool is_one_of(const std::string& value, std::initializer_list<const char*> known) {
  return std::find(known.begin(), known.end(), value) != known.end();
}

}  // namespace hadal
