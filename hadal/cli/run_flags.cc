#include "hadal/cli/run_flags.h"

#include <algorithm>

namespace hadal {

CLI::Option* sets(GivenKeys& given, CLI::Option* flag, const std::string& key) {
  return flag->each([&given, key](const std::string& text) { given.emplace_back(key, text); });
}

bool has(const GivenKeys& given, const std::string& key) {
  return std::any_of(given.begin(), given.end(), [&](const auto& one) { return one.first == key; });
}

void add_keys(CLI::App& app, GivenKeys& given, const std::vector<ConfigField>& fields) {
  for (const ConfigField& field : fields)
    app.add_option_function<std::string>(
           "--" + field.name,
           [&given, name = field.name](const std::string& text) { given.emplace_back(name, text); },
           field.help)
        ->type_name(std::holds_alternative<bool*>(field.value) ? "true|false" : "VALUE")
        ->default_str(field.text())
        ->group("Every key of the configuration");
}

}  // namespace hadal
