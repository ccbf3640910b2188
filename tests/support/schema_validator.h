// A plain validator of JSON Schema for tests: what hadal/server/json_schema.h compiles, written apart from
// it.
#pragma once
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>

#include "hadal/base/json.h"

namespace hadal {

class SchemaValidator {
 public:
  explicit SchemaValidator(const Json& root) : root_(root) {}
  bool valid(const Json& v) const { return valid(root_, v); }

 private:
  static size_t length(const std::string& text) {
    size_t n = 0;
    for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    return n;
  }
  static bool has_type(const std::string& type, const Json& v) {
    if (type == "null") return v.is_null();
    if (type == "boolean") return v.is_boolean();
    if (type == "object") return v.is_object();
    if (type == "array") return v.is_array();
    if (type == "string") return v.is_string();
    if (type == "number") return v.is_number();
    return v.is_number_integer() || (v.is_number_float() && v.get<double>() == std::floor(v.get<double>()));
  }
  const Json& resolve(const std::string& reference) const {
    std::string pointer;
    for (size_t i = 1; i < reference.size(); ++i) {
      if (reference[i] == '%') {
        pointer += static_cast<char>(std::stoi(reference.substr(i + 1, 2), nullptr, 16));
        i += 2;
      } else {
        pointer += reference[i];
      }
    }
    return root_.at(Json::json_pointer(pointer));
  }
  static bool format(const std::string& name, const std::string& s) {
    int y = 0, m = 0, d = 0, end = 0;
    if (name == "date") {
      static const int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
      return std::sscanf(s.c_str(), "%4d-%2d-%2d%n", &y, &m, &d, &end) == 3 && end == 10 && s.size() == 10 &&
             y >= 1 && m >= 1 && m <= 12 && d >= 1 && d <= kDays[m - 1];
    }
    if (name == "time")
      return std::regex_match(s, std::regex("\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[+-]\\d\\d:\\d\\d)")) &&
             std::stoi(s) < 24 && std::stoi(s.substr(3)) < 60 && std::stoi(s.substr(6)) < 60;
    if (name == "date-time")
      return s.size() > 11 && s[10] == 'T' && format("date", s.substr(0, 10)) && format("time", s.substr(11));
    if (name == "uuid") return s.size() == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-';
    if (name == "email") return std::regex_match(s, std::regex("[^@ ]+@[^@ .]+(\\.[^@ .]+)+"));
    if (name == "ipv4") return std::regex_match(s, std::regex("(\\d{1,3}\\.){3}\\d{1,3}"));
    return true;
  }
  bool object(const Json& s, const Json& v) const {
    if (s.contains("required"))
      for (const Json& name : s["required"])
        if (!v.contains(name.get<std::string>())) return false;
    for (const auto& [name, value] : v.items()) {
      if (s.contains("properties") && s["properties"].contains(name)) {
        if (!valid(s["properties"][name], value)) return false;
      } else if (s.contains("additionalProperties") && !valid(s["additionalProperties"], value)) {
        return false;
      }
    }
    return v.size() >= s.value("minProperties", size_t{0}) &&
           v.size() <= s.value("maxProperties", size_t{1} << 40);
  }
  bool array(const Json& s, const Json& v) const {
    if (v.size() < s.value("minItems", size_t{0}) || v.size() > s.value("maxItems", size_t{1} << 40))
      return false;
    for (size_t i = 0; i < v.size(); ++i) {
      if (s.contains("prefixItems") && i < s["prefixItems"].size()) {
        if (!valid(s["prefixItems"][i], v[i])) return false;
      } else if (s.contains("items") && !valid(s["items"], v[i])) {
        return false;
      }
    }
    return true;
  }
  bool number(const Json& s, const Json& v) const {
    if (s.contains("minimum") && v < s["minimum"]) return false;
    if (s.contains("maximum") && v > s["maximum"]) return false;
    if (s.contains("exclusiveMinimum") && v <= s["exclusiveMinimum"]) return false;
    if (s.contains("exclusiveMaximum") && v >= s["exclusiveMaximum"]) return false;
    if (!s.contains("multipleOf")) return true;
    const double steps = v.get<double>() / s["multipleOf"].get<double>();
    return std::abs(steps - std::round(steps)) < 1e-6;
  }
  bool string(const Json& s, const std::string& v) const {
    if (length(v) < s.value("minLength", size_t{0}) || length(v) > s.value("maxLength", size_t{1} << 40))
      return false;
    if (s.contains("format") && !format(s["format"], v)) return false;
    const std::string pattern = s.value("pattern", "");
    // The standard library's expressions know bytes only, and neither names nor \u{..}.
    for (const char c : pattern + v)
      if (static_cast<unsigned char>(c) >= 0x80) return true;
    return pattern.find("(?<") != pattern.npos || pattern.find("\\u{") != pattern.npos ||
           std::regex_search(v, std::regex(pattern));
  }
  bool valid(const Json& s, const Json& v) const {
    if (s.is_boolean()) return s.get<bool>();
    const bool null_too = s.value("nullable", false) && v.is_null();
    if (s.contains("$ref") && !valid(resolve(s["$ref"]), v)) return false;
    if (s.contains("type") && !null_too) {
      const Json types = s["type"].is_array() ? s["type"] : Json::array({s["type"]});
      bool any = false;
      for (const Json& type : types) any |= has_type(type, v);
      if (!any) return false;
    }
    if (s.contains("enum") && !null_too &&
        std::find(s["enum"].begin(), s["enum"].end(), v) == s["enum"].end())
      return false;
    if (s.contains("const") && s["const"] != v) return false;
    const auto fitting = [&](const char* keyword) {
      size_t n = 0;
      for (const Json& one : s[keyword]) n += valid(one, v);
      return n;
    };
    if (s.contains("allOf") && fitting("allOf") != s["allOf"].size()) return false;
    if (s.contains("anyOf") && fitting("anyOf") == 0) return false;
    if (s.contains("oneOf") && fitting("oneOf") != 1) return false;
    if (v.is_object()) return object(s, v);
    if (v.is_array()) return array(s, v);
    if (v.is_number()) return number(s, v);
    return !v.is_string() || string(s, v.get<std::string>());
  }
  const Json& root_;
};

}  // namespace hadal
