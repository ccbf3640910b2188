// The keys of a configuration, each listed once in its sections' fields(): TOML in and out, overrides
// "section.key=value", documentation. Torch-free.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace hadal {

struct ConfigField {
  std::string name;  // section.key
  std::variant<int64_t*, uint64_t*, double*, bool*, std::string*, std::vector<std::string>*> value;
  std::string help;
  std::string text() const;  // as in TOML
  const char* need() const;  // "a number"
};

// Pointers into `config`, valid as long as it.
template <class Config>
std::vector<ConfigField> fields_of(Config& config) {
  std::vector<ConfigField> fields;
  config.sections([&](const char* section, auto& section_of) {
    section_of.fields([&](const char* key, auto& field, const char* help) {
      fields.push_back({std::string(section) + "." + key, &field, help});
    });
  });
  return fields;
}

// How errors name the configuration: "[config.train]", "hadal train".
struct ConfigDialect {
  const char* op;
  const char* command;
};

// Reads TOML into the fields. `source` names the text in errors. Throws invalid_config: "[config.train] FILE:
// line 3: ...", unknown keys with the nearest name.
void read_toml(std::string_view text, const std::string& source, const std::vector<ConfigField>& fields,
               const ConfigDialect& dialect);

// A value as on the command line: a number, true or false, text as it is, lists by commas. Throws
// invalid_config naming key, value and need.
void set_field(const std::vector<ConfigField>& fields, const std::string& key, const std::string& value,
               const std::string& source, const ConfigDialect& dialect);

// Every key with its value; read_toml() gives the same values back.
std::string toml_text(const std::vector<ConfigField>& fields, bool with_help);

// A Markdown table for each section.
std::string reference_tables(const std::vector<ConfigField>& fields);

// "batch.sequences: 8 before, 16 now" for each key that differs and counts. Fields of one type of
// configuration.
std::vector<std::string> changed_fields(const std::vector<ConfigField>& before,
                                        const std::vector<ConfigField>& now,
                                        const std::function<bool(const std::string&)>& counts);

// A value as TOML writes it.
std::string toml_value(const int64_t& value);
std::string toml_value(const uint64_t& value);
std::string toml_value(const bool& value);
std::string toml_value(const std::string& value);
std::string toml_value(const double& value);
std::string toml_value(const std::vector<std::string>& values);

// need(good, "batch.length", 1, "at least 2"): throws invalid_config where a rule is broken, "[config.train]
// SOURCE: batch.length is 1, need at least 2."
class ConfigRules {
 public:
  ConfigRules(const ConfigDialect& dialect, const std::string& source) : dialect_(dialect), source_(source) {}
  template <class T>
  void operator()(bool good, const char* key, const T& value, const char* what) const {
    if (!good) fail(key, toml_value(value), what);
  }

 private:
  [[noreturn]] void fail(const char* key, const std::string& value, const char* what) const;
  ConfigDialect dialect_;
  std::string source_;
};

bool is_one_of(const std::string& value, std::initializer_list<const char*> known);

}  // namespace hadal
