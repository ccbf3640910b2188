// The regular expressions of tokenizer.json split patterns: a small backtracking engine with the match choice
// of the engine behind Hugging Face tokenizers (Oniguruma: first alternative wins, greedy), in linear time.
//
// Supported: literals, escapes (\n \r \t \v \f \xHH \x{H..} \uHHHH), classes [..] with ranges, negation,
// \p{..} \P{..} (general categories), \s \S \d \D \w \W, '.', groups (..) (?:..) (?i:..), alternation, greedy
// ? * + {m} {m,} {m,n}, lookahead (?=..) (?!..) over alternatives of plain character sequences, line anchors
// ^ $. The rest is an error.
#pragma once
#include <array>
#include <bitset>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "hadal/tokenizer/unicode.h"

namespace hadal {

// A set of code points: kinds and ranges, as a whole perhaps negated.
class CharSet {
 public:
  void add(uint32_t first, uint32_t last) { ranges_.emplace_back(first, last); }
  void add(KindMask kinds) { kinds_ |= kinds; }
  void negate() { negated_ = !negated_; }
  void finish();  // sorts; call once after the last change, before matches()

  bool matches(uint32_t code) const { return code < 128 ? ascii_[code] : look_up(code); }
  // Bytes that a character of the set can start with.
  std::bitset<256> first_bytes() const;
  bool operator==(const CharSet& other) const;

 private:
  bool look_up(uint32_t code) const;
  KindMask kinds_ = 0;
  std::vector<std::pair<uint32_t, uint32_t>> ranges_;
  bool negated_ = false;
  std::bitset<128> ascii_;
};

struct RegexNode;

class Regex {
 public:
  struct Match {
    size_t begin, end;  // bytes
  };

  // Throws Error{unsupported} for a construct outside the list above, Error{corrupt} for a broken pattern;
  // the text says which, at which character of the pattern. `field` names the place of the pattern in errors.
  static Regex compile(std::string_view pattern, std::string_view field);
  static Regex literal(std::string_view text);  // matches exactly `text`

  // Appends all matches, left to right, not overlapping. Empty matches are reported except right after a
  // match. Adds the work done to *steps: at most a constant (the size of the pattern) times the length of the
  // text. REQUIRES: text is UTF-8. Thread-safe.
  void find_all(std::string_view text, std::vector<Match>& out, uint64_t* steps = nullptr) const;

 private:
  friend class RegexCompiler;
  friend class RegexMatcher;

  enum class Op : uint8_t { kSet, kLoop, kEagerLoop, kSplit, kJump, kLook, kLineStart, kLineEnd, kMatch };
  struct Inst {
    Op op;
    bool negative = false;  // kLook
    uint32_t a = 0;         // set, look, or target
    uint32_t b = 0;         // second target of kSplit
    uint32_t memo = 0;      // which row of the memo: kSplit, kLoop
  };
  using Look = std::vector<std::vector<uint32_t>>;  // alternatives of sequences of sets

  std::vector<Inst> program_;
  std::vector<CharSet> sets_;
  std::vector<Look> looks_;
  uint32_t memo_rows_ = 0;
  std::bitset<256> first_;  // bytes that a match can start with
  bool nullable_ = false;   // may match nothing
};

}  // namespace hadal
