#include "hadal/base/json.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "hadal/base/text.h"
#include "hadal/base/wide_json.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kSmallObject = 16;

// Builds an ordered_json from SAX events, refusing what parse_json promises to refuse.
class StrictReader : public nlohmann::json_sax<Json> {
 public:
  explicit StrictReader(bool wide) : wide_(wide) {}

  Json root;
  std::string problem;
  size_t problem_byte = 0;

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return put(static_cast<int64_t>(value));
    return wide_ ? put(static_cast<double>(value))
                 : fail(cat("integer ", value, " does not fit in 64 signed bits"));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    if (!std::isfinite(value)) return fail(cat("number ", text, " is out of range"));
    if (!wide_ && text.find_first_of(".eE") == string_t::npos)
      return fail(cat("integer ", text, " does not fit in 64 signed bits"));
    return put(value);
  }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return fail("binary value"); }

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool key(string_t& name) override {
    if (seen(name)) return fail(cat("duplicate key \"", name, "\""));
    key_ = std::move(name);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    problem_byte = position ? position - 1 : 0;
    std::string text = e.what();  // "[json.exception...] parse error at line 1, column 2: syntax error ..."
    const size_t colon = text.find(": "), bracket = text.find("] ");
    problem = text.substr(colon != std::string::npos     ? colon + 2
                          : bracket != std::string::npos ? bracket + 2
                                                         : 0);
    return false;
  }

 private:
  bool fail(std::string text) {
    problem = std::move(text);
    return false;
  }
  Json* add(Json value) {
    if (stack_.empty()) return &(root = std::move(value));
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    // Keys are known to be new, so append: ordered_json's operator[] would search the whole object.
    auto& object = parent.get_ref<Json::object_t&>();
    if (object.size() == object.capacity()) {
      // By hand: keys are const, so the vector would copy every value, and all below it, when it grows.
      Json::object_t::Container larger;
      larger.reserve(2 * object.size() + 4);
      for (auto& [key, each] : object) larger.emplace_back(key, std::move(each));
      object.Container::swap(larger);
    }
    object.Container::emplace_back(std::move(key_), std::move(value));
    return &object.back().second;
  }
  // Is `name` a key of the open object already? Small objects are searched, large ones have a set.
  bool seen(const std::string& name) {
    const auto& object = stack_.back()->get_ref<const Json::object_t&>();
    std::unordered_set<std::string>& keys = keys_.back();
    if (object.size() < kSmallObject) {
      for (const auto& [key, value] : object)
        if (key == name) return true;
      return false;
    }
    if (keys.empty())
      for (const auto& [key, value] : object) keys.insert(key);
    return !keys.insert(name).second;
  }
  bool put(Json value) {
    add(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (stack_.size() >= kMaxDepth) return fail(cat("nested deeper than ", kMaxDepth));
    stack_.push_back(add(std::move(value)));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  const bool wide_;
  std::vector<Json*> stack_;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string key_;
};

Json parse(std::string_view text, std::string_view source, size_t offset, bool wide) {
  size_t bad = 0;
  if (!is_utf8(text, &bad))
    throw Error(ErrorCode::kCorrupt, cat("[json] ", source, ": byte ", offset + bad, ": invalid UTF-8"));
  // nlohmann takes a NUL for the end of the text and would not look at what follows.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos)
    throw Error(ErrorCode::kCorrupt, cat("[json] ", source, ": byte ", offset + nul, ": NUL byte"));
  StrictReader reader(wide);
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) {
    throw Error(ErrorCode::kCorrupt,
                cat("[json] ", source, ": byte ", offset + reader.problem_byte, ": ", reader.problem));
  }
  return std::move(reader.root);
}

}  // namespace

Json parse_json(std::string_view text, std::string_view source, size_t offset) {
  return parse(text, source, offset, /*wide=*/false);
}

Json parse_wide_json(std::string_view text, std::string_view source) {
  return parse(text, source, 0, /*wide=*/true);
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace hadal
