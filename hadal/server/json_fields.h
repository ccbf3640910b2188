// The fields of a JSON object a client sent: each is read once with its type and range, and a field nobody
// asked for is an error. Every error is an ApiError 400 whose param is the field's path.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hadal/base/json.h"

namespace hadal {

class JsonFields {
 public:
  // `path` is put before the names: "messages[2]"; "": the request itself. Throws if `value` is no object.
  JsonFields(const Json& value, std::string path);

  const std::string& path() const { return path_; }
  std::string path_of(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }

  // The value; null and absent are both nullptr.
  const Json* find(const std::string& key);
  const Json& need(const std::string& key);

  std::optional<double> number(const std::string& key, double low, double high);
  std::optional<int64_t> integer(const std::string& key, int64_t low, int64_t high);
  std::optional<bool> boolean(const std::string& key);
  std::optional<std::string> text(const std::string& key, size_t max_bytes = SIZE_MAX);
  std::optional<std::string> choice(const std::string& key, const std::vector<std::string>& values);
  std::string need_text(const std::string& key, size_t max_bytes = SIZE_MAX);

  // These may be there and are not looked at.
  void ignore(const std::vector<std::string>& keys);
  // Throws for the first field that was not asked for, with the nearest known name.
  void done() const;

 private:
  const Json& object_;
  std::string path_;
  std::vector<std::string> known_;
};

// Throws ApiError{400} about `param`: "<param>: <what>".
[[noreturn]] void bad_field(const std::string& param, const std::string& what);

// An integer as JSON Schema means it: 3, and 3.0 too. None: another value, or out of range.
std::optional<int64_t> whole_number(const Json& value);

// "a string", "an integer", ...: what a value is, for error texts.
const char* kind_of(const Json& value);

}  // namespace hadal
