// How flags are declared: one helper per kind, so that all commands refuse bad values in the same words.
#pragma once
#include <CLI/CLI.hpp>
#include <charconv>
#include <string>
#include <vector>

#include "hadal/base/text.h"

namespace hadal {

// The whole of `text` as a number; NaN is one.
template <class T>
bool parse_number(const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// --name N. `good(value)` decides, `need` says what is needed: "--batch: got "0", need an integer of at least
// 1".
template <class T, class Good>
CLI::Option* number_flag(CLI::App& app, const std::string& name, T& value, const std::string& help, Good good,
                         const char* need) {
  const auto refuse = [good, need](const std::string& text) -> std::string {
    T parsed{};
    return parse_number(text, parsed) && good(parsed) ? "" : cat("got \"", text, "\", need ", need);
  };
  return app.add_option(name, value, help)->type_name("N")->capture_default_str()->check(refuse, "");
}

template <class T>
CLI::Option* count_flag(CLI::App& app, const std::string& name, T& value, const std::string& help) {
  return number_flag(
      app, name, value, help, [](T x) { return x >= 1; }, "an integer of at least 1");
}

template <class T>
CLI::Option* count_or_zero_flag(CLI::App& app, const std::string& name, T& value, const std::string& help) {
  return number_flag(
      app, name, value, help, [](T x) { return x >= 0; }, "an integer of at least 0");
}

inline CLI::Option* positive_flag(CLI::App& app, const std::string& name, double& value,
                                  const std::string& help) {
  return number_flag(
      app, name, value, help, [](double x) { return x > 0 && x < 1e300; }, "a number above 0");
}

inline CLI::Option* not_negative_flag(CLI::App& app, const std::string& name, double& value,
                                      const std::string& help) {
  return number_flag(
      app, name, value, help, [](double x) { return x >= 0 && x < 1e300; }, "a number of at least 0");
}

inline std::string join(const std::vector<std::string>& parts, const char* between) {
  std::string all;
  for (const std::string& part : parts) all += (all.empty() ? "" : between) + part;
  return all;
}

// --name one of `allowed`. The type name "a|b|c" is what shell completion offers.
inline CLI::Option* choice_flag(CLI::App& app, const std::string& name, std::string& value,
                                const std::string& help, const std::vector<std::string>& allowed) {
  const auto refuse = [allowed](const std::string& text) -> std::string {
    for (const std::string& one : allowed)
      if (one == text) return "";
    return cat("got \"", text, "\", need ", join(allowed, ", "), did_you_mean(text, allowed));
  };
  return app.add_option(name, value, help)
      ->type_name(join(allowed, "|"))
      ->capture_default_str()
      ->check(refuse, "");
}

// --name FILE (type "FILE") or DIR: shell completion offers files.
inline CLI::Option* file_flag(CLI::App& app, const std::string& name, std::string& value,
                              const std::string& help, const char* type = "FILE") {
  return app.add_option(name, value, help)->type_name(type)->capture_default_str();
}

inline void json_flag(CLI::App& app, bool& value) {
  app.add_flag("--json", value, "print JSON for a machine to read");
}

}  // namespace hadal
