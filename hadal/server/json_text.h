// JSON texts as rules of a grammar (hadal/engine/grammar.h).
//
// White space is bounded, so that no model can write blanks for ever: where JSON allows it between two marks,
// nothing, one blank, or a new line and up to 16 blanks; none before a colon, a comma or behind the value.
// Numbers are bounded too (15 digits before and behind the point, two of the exponent): every reader can hold
// them. Characters of free strings have all spellings of JSON; those of keys and of strings with a pattern
// have one: as they are, and escaped only where they must be.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hadal/engine/grammar.h"

namespace hadal {

// Code points, ascending and apart: first and last of each range.
using CodePoints = std::vector<std::pair<uint32_t, uint32_t>>;
CodePoints merged(CodePoints ranges);      // sorted, touching ones joined, surrogates left out
CodePoints complement(const CodePoints&);  // of merged ones

// A number as JSON spells it, without rounding: digits * 10^-places.
struct Decimal {
  bool negative = false;
  unsigned __int128 digits = 0;
  int places = 0;
};
// nullopt: more than 15 digits before or behind the point.
std::optional<Decimal> parse_decimal(const std::string& text);

struct NumberRange {
  std::optional<Decimal> low, high;
  bool above_low = false, below_high = false;  // the bound itself is excluded
  int max_places = 15;                         // behind the point; 0: integers
};

class JsonText {
 public:
  using State = Grammar::State;
  using Rule = Grammar::Rule;
  explicit JsonText(Grammar& grammar) : g_(grammar) {}

  Rule value();   // any
  Rule object();  // any
  Rule array();   // any
  Rule string();  // any
  Rule number();  // any
  // A string that is none of these: the key of a further member.
  Rule other_key(std::vector<std::string> taken);

  State then_space(State from);
  // One character of a string: of these (one spelling), or any (all spellings).
  void add_char(State from, const CodePoints& set, State to);
  void add_any_char(State from, State to);
  void add_string(State from, int64_t min_length, std::optional<int64_t> max_length, State to);
  // Plain decimals in the range. REQUIRES: low <= high. False: there is none.
  bool add_number(State from, const NumberRange& range, State to);
  // Values separated by commas, up to the closing mark.
  struct Count {
    int64_t min = 0;
    std::optional<int64_t> max;
  };
  // `item` adds one element between two states; first: one more may be the first.
  void add_list(State from, const std::vector<Rule>& first, std::optional<Rule> rest, Count count, State to);

  bool has_free_keys() const { return has_free_keys_; }

 private:
  Rule space_rule();
  Rule rare_char(const CodePoints& set);  // of a set, without what is written as one byte
  Rule any_rare_char();
  void add_utf8(State from, uint32_t first, uint32_t last, State to);
  void add_escape(State from, uint32_t code, State to);
  void add_hex(State from, State to);
  void add_member_list(State from, Rule key, Rule value, State to);

  Grammar& g_;
  std::map<std::string, Rule> rules_;  // by name
  std::map<CodePoints, Rule> rare_;
  std::map<std::vector<std::string>, Rule> keys_;
  bool has_free_keys_ = false;
};

// The text of a JSON string, quotes and all, in its one spelling.
std::string json_string_text(const std::string& text);

}  // namespace hadal
