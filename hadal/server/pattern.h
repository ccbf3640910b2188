// Regular expressions of JSON Schema's "pattern", as strings of JSON.
//
// The language of ECMA-262 in Unicode mode as far as it is regular: literals, '.', classes with ranges and
// \d \w \s \D \W \S, escapes (\n \r \t \v \f \0 \xHH \uHHHH \u{H..}), groups (..) (?:..) (?<name>..),
// alternation, ? * + {m} {m,} {m,n} (lazy ones too: they match the same texts), ^ at the beginning and $ at
// the end of an outermost alternative. Without ^ or $ anything may stand before or behind, as the standard
// has it. Look-around, \b, back references and \p are refused.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "hadal/server/json_text.h"

namespace hadal {

class Pattern {
 public:
  // Throws Error{unsupported} or {invalid_argument} saying what and at which byte of the pattern.
  static Pattern parse(std::string_view text);

  // From `from` to `to`: a JSON string of min_length to max_length characters that matches.
  void add_string(JsonText& json, Grammar& grammar, Grammar::State from, int64_t min_length,
                  std::optional<int64_t> max_length, Grammar::State to) const;

 private:
  friend class PatternParser;
  struct Edge {
    int32_t set = -1;  // index in sets_; -1: takes nothing
    uint32_t to = 0;
  };
  std::vector<std::vector<Edge>> edges_;  // of each state; 0 begins, 1 ends
  std::vector<CodePoints> sets_;
};

}  // namespace hadal
