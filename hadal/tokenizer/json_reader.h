// Typed access to a parsed tokenizer.json, with errors that name the field.
#pragma once
#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {

class JsonReader {
 public:
  using array = simdjson::dom::array;
  using element = simdjson::dom::element;
  using object = simdjson::dom::object;
  static constexpr int64_t kMaxId = (1 << 24) - 1;  // larger ids are a damaged file, not a vocabulary

  explicit JsonReader(std::string_view source) : source_(source) {}

  [[noreturn]] void corrupt(std::string_view field, const std::string& what) const {
    throw Error(ErrorCode::kCorrupt, cat("[tokenizer.load] ", source_, ": ", field, " ", what,
                                         ". Fetch or write the file again."));
  }
  [[noreturn]] void unsupported(std::string_view field, const std::string& what,
                                std::string_view supported) const {
    throw Error(ErrorCode::kUnsupported, cat("[tokenizer.load] ", source_, ": ", field, " ", what,
                                             " is not supported. hadal executes ", supported, "."));
  }

  // The member, or nothing if it is absent or null.
  std::optional<element> member(const object& parent, std::string_view key) const {
    element value;
    if (parent.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
    return value;
  }
  element need(const object& parent, std::string_view path, std::string_view key) const {
    const auto value = member(parent, key);
    if (!value) corrupt(join(path, key), "is missing");
    return *value;
  }
  object as_object(element value, std::string_view field) const {
    object out;
    if (value.get(out) != simdjson::SUCCESS) corrupt(field, "is not an object");
    return out;
  }
  // Which of two equal keys counts would be a guess. For small objects: compares all pairs.
  void refuse_same_keys(const object& value, std::string_view field) const {
    size_t index = 0;
    for (const auto& entry : value) {
      size_t before = 0;
      for (const auto& other : value) {
        if (before++ == index) break;
        if (other.key == entry.key) corrupt(field, cat("has the key \"", entry.key, "\" twice"));
      }
      ++index;
    }
  }
  array as_array(element value, std::string_view field) const {
    array out;
    if (value.get(out) != simdjson::SUCCESS) corrupt(field, "is not an array");
    return out;
  }
  std::string_view as_string(element value, std::string_view field) const {
    std::string_view out;
    if (value.get(out) != simdjson::SUCCESS) corrupt(field, "is not a string");
    return out;
  }
  int32_t as_id(element value, std::string_view field) const {
    int64_t out = 0;
    if (value.get(out) != simdjson::SUCCESS) corrupt(field, "is not an integer");
    if (out < 0 || out > kMaxId) corrupt(field, cat("is ", out, ", need an id from 0 to ", kMaxId));
    return static_cast<int32_t>(out);
  }
  bool flag(const object& parent, std::string_view path, std::string_view key, bool fallback) const {
    const auto value = member(parent, key);
    if (!value) return fallback;
    bool out = false;
    if (value->get(out) != simdjson::SUCCESS) corrupt(join(path, key), "is not true or false");
    return out;
  }
  std::string_view type_of(const object& parent, std::string_view path) const {
    return as_string(need(parent, path, "type"), join(path, "type"));
  }
  // "file: field", for errors of what the field holds.
  std::string place(std::string_view field) const { return cat(source_, ": ", field); }
  static std::string join(std::string_view path, std::string_view key) {
    return path.empty() ? std::string(key) : cat(path, ".", key);
  }

 private:
  std::string_view source_;
};

}  // namespace hadal
