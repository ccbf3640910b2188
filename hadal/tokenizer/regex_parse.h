// The syntax tree of a split pattern; see regex.h for the language.
#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "hadal/tokenizer/regex.h"

namespace hadal {

struct RegexNode {
  enum class Kind { kEmpty, kSet, kConcat, kAlternate, kRepeat, kLook, kLineStart, kLineEnd };
  static constexpr uint32_t kNoLimit = UINT32_MAX;

  Kind kind = Kind::kEmpty;
  CharSet set;                      // kSet
  std::vector<RegexNode> children;  // kConcat, kAlternate; the one of kRepeat, kLook
  uint32_t min = 0, max = 0;        // kRepeat
  bool negative = false;            // kLook

  bool nullable() const;  // can match the empty text
};

// Throws as Regex::compile.
RegexNode parse_regex(std::string_view pattern, std::string_view field);

}  // namespace hadal
