#include "hadal/tokenizer/regex_parse.h"

#include <algorithm>
#include <optional>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

using Kind = RegexNode::Kind;

constexpr uint32_t kMaxCount = 1000;  // of {m,n}
constexpr int kMaxDepth = 50;         // of groups

class Parser {
 public:
  Parser(std::string_view pattern, std::string_view field) : text_(pattern), field_(field) {}

  RegexNode parse() {
    RegexNode node = alternation(0);
    if (at_ < text_.size()) broken("unmatched )");
    return node;
  }

 private:
  [[noreturn]] void broken(const std::string& what) const {
    fail(ErrorCode::kCorrupt, what, "Repair the pattern.");
  }
  [[noreturn]] void unsupported(const std::string& what) const {
    fail(ErrorCode::kUnsupported, what + " is not supported",
         "hadal knows literals, classes, \\p{..}, \\s \\d \\w, groups, (?i:..), alternation, greedy ? * + "
         "{m,n}, "
         "(?=..), (?!..), ^ and $.");
  }
  [[noreturn]] void fail(ErrorCode code, const std::string& what, std::string_view remedy) const {
    throw Error(code, cat("[tokenizer.regex] ", field_, ": ", what, " at byte ", at_, " of the pattern \"",
                          text_, "\". ", remedy));
  }

  bool more() const { return at_ < text_.size(); }
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool take(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected) return false;
    at_ += expected.size();
    return true;
  }
  uint32_t take_char() {
    const Utf8Char c = utf8_at(text_, at_);
    at_ += c.length;
    return c.code;
  }

  RegexNode alternation(int depth) {
    if (depth > kMaxDepth) unsupported("a group nested this deep");
    std::vector<RegexNode> branches;
    do branches.push_back(sequence(depth));
    while (take("|"));
    if (branches.size() == 1) return std::move(branches[0]);
    return {.kind = Kind::kAlternate, .children = std::move(branches)};
  }

  RegexNode sequence(int depth) {
    RegexNode node{.kind = Kind::kConcat};
    uint32_t before = 0;  // the literal before this one, for multi-letter case folding
    while (more() && peek() != '|' && peek() != ')') {
      literal_ = 0;
      RegexNode item = atom(depth);
      if (ignore_case_ && literal_) refuse_multi_letter_folding(before, literal_);
      before = literal_;
      quantify(item);
      node.children.push_back(std::move(item));
    }
    return node;
  }

  // ss, ff, fi, fl, st also match one character (sharp s, ligatures) when case is ignored.
  void refuse_multi_letter_folding(uint32_t first, uint32_t second) const {
    const uint32_t a = first | 0x20, b = second | 0x20;
    if ((a == 's' && (b == 's' || b == 't')) || (a == 'f' && (b == 'f' || b == 'i' || b == 'l')))
      unsupported("ss, st, ff, fi or fl under (?i:..)");
  }

  RegexNode atom(int depth) {
    switch (peek()) {
      case '(':
        return group(depth);
      case '[':
        return bracket();
      case '^':
        ++at_;
        return {.kind = Kind::kLineStart};
      case '$':
        ++at_;
        return {.kind = Kind::kLineEnd};
      case '*':
      case '+':
      case '?':
        broken("nothing to repeat");
      case '{':
        unsupported("a literal {");
      case '.': {
        ++at_;
        CharSet set;
        set.add('\n', '\n');
        set.negate();
        return leaf(std::move(set));
      }
      default:
        break;
    }
    CharSet set;
    if (const auto literal = peek() == '\\' ? escape(set) : std::optional(take_char())) {
      literal_ = *literal;
      add_range(set, *literal, *literal);
    }
    return leaf(std::move(set));
  }

  static RegexNode leaf(CharSet set) {
    set.finish();
    return {.kind = Kind::kSet, .set = std::move(set)};
  }

  RegexNode group(int depth) {
    ++at_;
    const bool outer_case = ignore_case_;
    RegexNode node;
    if (take("?=") || take("?!")) {
      const bool negative = text_[at_ - 1] == '!';
      RegexNode body = alternation(depth + 1);
      if (!plain_sequences(body)) unsupported("a lookahead over anything but sequences of characters");
      node = {.kind = Kind::kLook, .negative = negative};
      node.children.push_back(std::move(body));
    } else {
      if (take("?i:")) {
        ignore_case_ = true;
      } else if (!take("?:") && peek() == '?') {
        unsupported(cat("the group (?", peek(1)));
      }
      node = alternation(depth + 1);
    }
    ignore_case_ = outer_case;
    if (!take(")")) broken("missing )");
    return node;
  }

  static bool plain_sequences(const RegexNode& node) {
    if (node.kind == Kind::kSet) return true;
    if (node.kind != Kind::kConcat && node.kind != Kind::kAlternate) return false;
    return std::all_of(node.children.begin(), node.children.end(), [&](const RegexNode& child) {
      return node.kind == Kind::kAlternate ? child.kind != Kind::kAlternate && plain_sequences(child)
                                           : child.kind == Kind::kSet;
    });
  }

  void quantify(RegexNode& item) {
    uint32_t min = 0, max = RegexNode::kNoLimit;
    if (take("?")) {
      max = 1;
    } else if (take("+")) {
      min = 1;
    } else if (peek() == '{') {
      interval(min, max);
    } else if (!take("*")) {
      return;
    }
    if (peek() == '?' || peek() == '+' || peek() == '*' || peek() == '{')
      unsupported("a lazy, possessive or doubled repeat");
    if (item.kind != Kind::kSet && item.nullable() && max == RegexNode::kNoLimit)
      unsupported("repeating something that can match nothing");
    RegexNode node{.kind = Kind::kRepeat, .min = min, .max = max};
    node.children.push_back(std::move(item));
    item = std::move(node);
  }

  void interval(uint32_t& min, uint32_t& max) {
    ++at_;
    const auto low = number();
    min = low.value_or(0);
    max = min;
    if (take(",")) {
      const auto high = number();
      if (!low && !high) unsupported("a literal {");
      max = high.value_or(RegexNode::kNoLimit);
    } else if (!low) {
      unsupported("a literal {");
    }
    if (!take("}")) unsupported("a literal {");
    if (max < min) broken("a repeat whose limits are swapped");
  }

  std::optional<uint32_t> number() {
    if (peek() < '0' || peek() > '9') return std::nullopt;
    uint32_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + static_cast<uint32_t>(text_[at_++] - '0');
      if (value > kMaxCount) unsupported(cat("a repeat above ", kMaxCount));
    }
    return value;
  }

  RegexNode bracket() {
    ++at_;
    CharSet set;
    in_bracket_ = true;
    const bool negated = take("^");
    for (bool first = true; first || peek() != ']'; first = false) {
      if (!more()) broken("missing ]");
      if (peek() == '[') unsupported("a class inside a class");
      if (peek() == '&' && peek(1) == '&') unsupported("&& in a class");
      const auto low = peek() == '\\' ? escape(set) : std::optional(take_char());
      if (!low) {
        if (peek() == '-' && peek(1) != ']') unsupported("a range that starts with a class");
        continue;
      }
      uint32_t high = *low;
      if (peek() == '-' && peek(1) != ']' && at_ + 1 < text_.size()) {
        ++at_;
        if (peek() == '[') unsupported("a class inside a class");
        CharSet ignored;
        const auto end = peek() == '\\' ? escape(ignored) : std::optional(take_char());
        if (!end) unsupported("a range that ends with a class");
        if (*end < *low) broken("a range whose ends are swapped");
        high = *end;
      }
      add_range(set, *low, high);
    }
    ++at_;
    in_bracket_ = false;
    if (negated) set.negate();
    return leaf(std::move(set));
  }

  void add_range(CharSet& set, uint32_t low, uint32_t high) {
    set.add(low, high);
    if (!ignore_case_) return;
    if (high >= 128) unsupported("a character outside ASCII under (?i:..)");
    for (uint32_t c = low; c <= high; ++c) {
      const uint32_t lower = c | 0x20;
      if (lower < 'a' || lower > 'z' || (c != lower && c + 0x20 != lower)) continue;
      set.add(c ^ 0x20, c ^ 0x20);
      if (lower == 's') set.add(0x17F, 0x17F);    // long s
      if (lower == 'k') set.add(0x212A, 0x212A);  // Kelvin sign
    }
  }

  // A literal code point, or nothing after adding a class to `set`.
  std::optional<uint32_t> escape(CharSet& set) {
    ++at_;
    if (!more()) broken("a \\ at the end");
    const char c = peek();
    const auto add = [&](KindMask kinds) {
      ++at_;
      set.add(kinds);
      return std::nullopt;
    };
    switch (c) {
      case 's':
        return add(kSpaceKinds);
      case 'S':
        return add(kAllKinds & ~kSpaceKinds);
      case 'd':
        return add(kDigitKinds);
      case 'D':
        return add(kAllKinds & ~kDigitKinds);
      case 'w':
        return add(word_kinds());
      case 'W':
        return add(kAllKinds & ~word_kinds());
      case 'p':
      case 'P':
        property(set);
        return std::nullopt;
      case 'n':
        ++at_;
        return '\n';
      case 'r':
        ++at_;
        return '\r';
      case 't':
        ++at_;
        return '\t';
      case 'v':
        ++at_;
        return '\v';
      case 'f':
        ++at_;
        return '\f';
      case 'x':
      case 'u':
        return code_escape();
      default:
        break;
    }
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) unsupported(cat("\\", c));
    return take_char();
  }

  // Alone, \w takes the superscripts and fractions of Latin-1 for word characters; in a class it does not.
  KindMask word_kinds() const { return in_bracket_ ? kWordKinds & ~bit(CharKind::kNoWord) : kWordKinds; }

  void property(CharSet& set) {
    bool negated = peek() == 'P';
    ++at_;
    if (!take("{")) broken("\\p without {");
    if (take("^")) negated = !negated;
    const size_t close = text_.find('}', at_);
    if (close == std::string_view::npos) broken("missing } of \\p");
    const std::string_view name = text_.substr(at_, close - at_);
    const auto kinds = kinds_of_category(name);
    if (!kinds) unsupported(cat("the property \\p{", name, "}"));
    if (ignore_case_) unsupported("\\p{..} under (?i:..)");
    at_ = close + 1;
    set.add(negated ? kAllKinds & ~*kinds : *kinds);
  }

  uint32_t code_escape() {
    const bool braces = peek() == 'x' && peek(1) == '{';
    const size_t digits = peek() == 'u' ? 4 : 2;
    at_ += braces ? 2 : 1;
    uint32_t code = 0;
    size_t count = 0;
    for (; count < (braces ? 8 : digits) && more(); ++count, ++at_) {
      const char c = peek();
      const int value = c >= '0' && c <= '9'                 ? c - '0'
                        : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                             : -1;
      if (value < 0) break;
      code = code << 4 | static_cast<uint32_t>(value);
    }
    if (count == 0 || (!braces && count < digits) || (braces && !take("}"))) broken("a bad \\x or \\u");
    if (code >= 0x110000 || (code >= 0xD800 && code < 0xE000)) broken("a \\x or \\u that is no character");
    if (!braces && digits == 2 && code >= 128) unsupported("\\xHH above 7F (a byte; write \\x{H..})");
    return code;
  }

  std::string_view text_, field_;
  size_t at_ = 0;
  bool ignore_case_ = false;
  bool in_bracket_ = false;
  uint32_t literal_ = 0;  // set by atom(): the literal it read, 0 for anything else
};

}  // namespace

bool RegexNode::nullable() const {
  const auto is_nullable = [](const RegexNode& child) { return child.nullable(); };
  switch (kind) {
    case Kind::kSet:
      return false;
    case Kind::kConcat:
      return std::all_of(children.begin(), children.end(), is_nullable);
    case Kind::kAlternate:
      return std::any_of(children.begin(), children.end(), is_nullable);
    case Kind::kRepeat:
      return min == 0 || children[0].nullable();
    default:
      return true;
  }
}

RegexNode parse_regex(std::string_view pattern, std::string_view field) {
  size_t bad = 0;
  if (!is_utf8(pattern, &bad))
    throw Error(ErrorCode::kCorrupt, cat("[tokenizer.regex] ", field, ": byte ", bad,
                                         " of the pattern is not UTF-8. "
                                         "Repair the pattern."));
  return Parser(pattern, field).parse();
}

}  // namespace hadal
