#include "hadal/server/json_fields.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/server/api_error.h"

namespace hadal {

void bad_field(const std::string& param, const std::string& what) {
  throw ApiError(400, param + ": " + what, param);
}

std::optional<int64_t> whole_number(const Json& value) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) return {};
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return {};
  const auto number = value.get<double>();
  if (number != std::trunc(number) || number <= -0x1p63 || number >= 0x1p63) return {};
  return static_cast<int64_t>(number);
}

const char* kind_of(const Json& value) {
  if (value.is_string()) return "a string";
  if (value.is_boolean()) return "a boolean";
  if (value.is_number_integer()) return "an integer";
  if (value.is_number()) return "a number";
  if (value.is_array()) return "an array";
  return value.is_object() ? "an object" : "null";
}

JsonFields::JsonFields(const Json& value, std::string path) : object_(value), path_(std::move(path)) {
  if (value.is_object()) return;
  const std::string what = cat("got ", kind_of(value), ", need an object.");
  if (path_.empty()) throw ApiError(400, "the request: " + what);
  bad_field(path_, what);
}

const Json* JsonFields::find(const std::string& key) {
  known_.push_back(key);
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

const Json& JsonFields::need(const std::string& key) {
  const Json* value = find(key);
  if (!value) bad_field(path_of(key), "is missing.");
  return *value;
}

std::optional<double> JsonFields::number(const std::string& key, double low, double high) {
  const Json* value = find(key);
  if (!value) return {};
  if (!value->is_number()) bad_field(path_of(key), cat("got ", kind_of(*value), ", need a number."));
  const double number = value->get<double>();
  if (!(number >= low && number <= high))
    bad_field(path_of(key), cat("got ", number, ", need a number from ", low, " to ", high, "."));
  return number;
}

std::optional<int64_t> JsonFields::integer(const std::string& key, int64_t low, int64_t high) {
  const Json* value = find(key);
  if (!value) return {};
  const std::optional<int64_t> number = whole_number(*value);
  if (!number) bad_field(path_of(key), cat("got ", kind_of(*value), ", need an integer."));
  if (*number < low || *number > high)
    bad_field(path_of(key), cat("got ", *number, ", need an integer from ", low, " to ", high, "."));
  return number;
}

std::optional<bool> JsonFields::boolean(const std::string& key) {
  const Json* value = find(key);
  if (!value) return {};
  if (!value->is_boolean()) bad_field(path_of(key), cat("got ", kind_of(*value), ", need true or false."));
  return value->get<bool>();
}

std::optional<std::string> JsonFields::text(const std::string& key, size_t max_bytes) {
  const Json* value = find(key);
  if (!value) return {};
  if (!value->is_string()) bad_field(path_of(key), cat("got ", kind_of(*value), ", need a string."));
  auto text = value->get<std::string>();
  if (text.size() > max_bytes)
    bad_field(path_of(key), cat("got ", text.size(), " bytes, need at most ", max_bytes, "."));
  return text;
}

std::optional<std::string> JsonFields::choice(const std::string& key,
                                              const std::vector<std::string>& values) {
  std::optional<std::string> value = text(key, 256);
  if (value && std::find(values.begin(), values.end(), *value) == values.end()) {
    std::string list;
    for (const std::string& known : values) list += (list.empty() ? "\"" : ", \"") + known + "\"";
    bad_field(path_of(key),
              cat("got \"", *value, "\"", did_you_mean(*value, values), ", need one of ", list, "."));
  }
  return value;
}

std::string JsonFields::need_text(const std::string& key, size_t max_bytes) {
  std::optional<std::string> value = text(key, max_bytes);
  if (!value) bad_field(path_of(key), "is missing.");
  return *std::move(value);
}

void JsonFields::ignore(const std::vector<std::string>& keys) {
  known_.insert(known_.end(), keys.begin(), keys.end());
}

void JsonFields::done() const {
  for (const auto& [key, value] : object_.items())
    if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
      const std::string shown = key.substr(0, 64);
      bad_field(path_of(shown), cat("is not a known field", did_you_mean(shown, known_), ". Leave it out."));
    }
}

}  // namespace hadal
