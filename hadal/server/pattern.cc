#include "hadal/server/pattern.h"

#include <algorithm>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr size_t kMaxStates = 20'000, kMaxPatternBytes = 4096;
constexpr int kMaxNesting = 40, kMaxRepeat = 1000;
constexpr uint32_t kLastCode = 0x10FFFF;

const CodePoints kDigits = {{'0', '9'}};
const CodePoints kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePoints kBlanks = {{9, 13},          {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                            {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                            {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const CodePoints kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

struct Node {
  enum class Kind { kSet, kSequence, kChoice, kRepeat } kind = Kind::kSequence;
  CodePoints set;
  std::vector<Node> children;
  int min = 0, max = 0;  // kRepeat; max -1: no limit
};

}  // namespace

class PatternParser {
 public:
  explicit PatternParser(std::string_view text) : text_(text) {}

  Pattern parse() {
    if (text_.size() > kMaxPatternBytes)
      fail(ErrorCode::kUnsupported, cat("has ", text_.size(), " bytes, need at most ", kMaxPatternBytes));
    if (!is_utf8(text_)) fail(ErrorCode::kInvalidArgument, "is not UTF-8");
    const Node root = outermost();
    pattern_.edges_.resize(2);
    pattern_.edges_[emit(root, 0)].push_back({-1, 1});
    return std::move(pattern_);
  }

 private:
  [[noreturn]] void fail(ErrorCode code, const std::string& what) const {
    throw Error(code, cat("[server.pattern] byte ", at_, ": the pattern ", what, "."));
  }
  [[noreturn]] void unsupported(const std::string& what) const {
    fail(ErrorCode::kUnsupported, what + ", which is not supported. Write it without");
  }
  [[noreturn]] void broken(const std::string& what) const { fail(ErrorCode::kInvalidArgument, what); }

  bool done() const { return at_ == text_.size(); }
  bool next_is(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  bool take(std::string_view what) {
    if (!next_is(what)) return false;
    at_ += what.size();
    return true;
  }
  uint32_t take_code() {
    const auto lead = static_cast<uint8_t>(text_[at_]);
    const size_t n = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint32_t code = n == 1 ? lead : lead & (0xFFu >> (n + 1));
    for (size_t k = 1; k < n; ++k) code = code << 6 | (static_cast<uint8_t>(text_[at_ + k]) & 63);
    at_ += n;
    return code;
  }

  static Node of_set(CodePoints set) { return {.kind = Node::Kind::kSet, .set = std::move(set)}; }

  Node outermost() {
    Node choice{.kind = Node::Kind::kChoice};
    const Node anything{
        .kind = Node::Kind::kRepeat, .children = {of_set(merged({{0, kLastCode}}))}, .max = -1};
    do {
      Node whole;
      if (!take("^")) whole.children.push_back(anything);
      whole.children.push_back(sequence());
      if (!take("$")) whole.children.push_back(anything);
      if (!done() && !next_is("|")) broken(next_is(")") ? "closes a group that is not open" : "has $ inside");
      choice.children.push_back(std::move(whole));
    } while (take("|"));
    return choice;
  }

  Node sequence() {
    Node out;
    while (!done() && !next_is("|") && !next_is(")") && !next_is("$")) out.children.push_back(repeated());
    return out;
  }

  Node group() {
    if (++nesting_ > kMaxNesting) unsupported("nests groups deeper than 40");
    if (next_is("?=") || next_is("?!") || next_is("?<=") || next_is("?<!"))
      unsupported("looks around with (?=..)");
    if (take("?<")) {
      const size_t close = text_.find('>', at_);
      if (close == text_.npos) broken("has a group name without end");
      at_ = close + 1;
    } else if (!take("?:") && next_is("?")) {
      unsupported("has a group (?..) of a kind");
    }
    Node choice{.kind = Node::Kind::kChoice};
    do choice.children.push_back(sequence());
    while (take("|"));
    if (next_is("$")) unsupported("has $ inside a group");
    if (!take(")")) broken("opens a group that is not closed");
    --nesting_;
    return choice;
  }

  Node atom() {
    if (take("(")) return group();
    if (take("[")) return of_set(char_class());
    if (take(".")) return of_set(complement(kLineEnds));
    if (take("^")) unsupported("has ^ inside");
    if (take("\\")) return of_set(escape(false));
    for (const char* mark : {"*", "+", "?", "{", "}", "]"})
      if (next_is(mark)) broken(cat("has ", mark, " with nothing before it; escape it with a backslash"));
    const uint32_t code = take_code();
    return of_set({{code, code}});
  }

  int number() {
    if (done() || text_[at_] < '0' || text_[at_] > '9') broken("has a repeat without a number");
    int value = 0;
    for (; !done() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      value = std::min(kMaxRepeat + 1, value * 10 + (text_[at_] - '0'));
    if (value > kMaxRepeat) unsupported(cat("repeats more than ", kMaxRepeat, " times"));
    return value;
  }

  Node repeated() {
    Node inner = atom();
    int min = 1, max = 1;
    if (take("*"))
      min = 0, max = -1;
    else if (take("+"))
      min = 1, max = -1;
    else if (take("?"))
      min = 0, max = 1;
    else if (take("{")) {
      min = max = number();
      if (take(",")) max = next_is("}") ? -1 : number();
      if (!take("}")) broken("has { without }");
      if (max >= 0 && max < min) broken("repeats fewer times at most than at least");
    } else {
      return inner;
    }
    take("?");  // lazy: the same texts
    for (const char* mark : {"*", "+", "?", "{"})
      if (next_is(mark)) broken("repeats a repeat");
    return {.kind = Node::Kind::kRepeat, .children = {std::move(inner)}, .min = min, .max = max};
  }

  uint32_t hex(size_t digits) {
    uint32_t code = 0;
    for (size_t i = 0; i < digits; ++i, ++at_) {
      const char c = done() ? 'x' : text_[at_];
      const int value = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (value < 0) broken("has an escape with too few hexadecimal digits");
      code = code << 4 | static_cast<uint32_t>(value);
    }
    if (code > kLastCode || (code >= 0xD800 && code < 0xE000)) broken("has an escape that is no character");
    return code;
  }

  // Behind a backslash.
  CodePoints escape(bool in_class) {
    if (done()) broken("ends with a backslash");
    const char c = text_[at_];
    const auto one = [](uint32_t code) { return CodePoints{{code, code}}; };
    if ((c >= '1' && c <= '9') || c == 'k') unsupported("refers back to a group");
    if (c == 'p' || c == 'P') unsupported("has \\p");
    if ((c == 'b' || c == 'B') && !in_class) unsupported("has \\b");
    if (c == 'c') unsupported("has \\c");
    if (take("d")) return kDigits;
    if (take("D")) return complement(kDigits);
    if (take("w")) return kWord;
    if (take("W")) return complement(kWord);
    if (take("s")) return kBlanks;
    if (take("S")) return complement(kBlanks);
    if (take("n")) return one('\n');
    if (take("r")) return one('\r');
    if (take("t")) return one('\t');
    if (take("v")) return one('\v');
    if (take("f")) return one('\f');
    if (take("b")) return one('\b');
    if (take("0")) return one(0);
    if (take("x")) return one(hex(2));
    if (take("u{")) {
      const size_t close = text_.find('}', at_);
      if (close == text_.npos || close - at_ > 6 || close == at_) broken("has \\u{ without a code and }");
      const uint32_t code = hex(close - at_);
      ++at_;
      return one(code);
    }
    if (take("u")) return one(hex(4));
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) unsupported(cat("has the escape \\", c));
    return one(take_code());
  }

  CodePoints char_class() {
    const bool negated = take("^");
    CodePoints set;
    while (!take("]")) {
      if (done()) broken("has [ without ]");
      CodePoints first = take("\\") ? escape(true) : single();
      const bool ranges = next_is("-") && !next_is("-]");
      if (ranges && first.size() == 1 && first[0].first == first[0].second) {
        ++at_;
        if (done()) broken("has [ without ]");
        const CodePoints last = take("\\") ? escape(true) : single();
        if (last.size() != 1 || last[0].first != last[0].second || last[0].first < first[0].first)
          broken("has a range that runs backwards");
        first[0].second = last[0].first;
      }
      set.insert(set.end(), first.begin(), first.end());
    }
    set = merged(std::move(set));
    if (negated) set = complement(set);
    if (set.empty()) broken("has a class without characters");
    return set;
  }
  CodePoints single() {
    const uint32_t code = take_code();
    return {{code, code}};
  }

  uint32_t add_state() {
    if (pattern_.edges_.size() >= kMaxStates) unsupported("needs too many states: its repeats are too large");
    pattern_.edges_.emplace_back();
    return static_cast<uint32_t>(pattern_.edges_.size() - 1);
  }

  // From this state on; returns the one behind it.
  uint32_t emit(const Node& node, uint32_t from) {
    switch (node.kind) {
      case Node::Kind::kSet: {
        const auto found = std::find(pattern_.sets_.begin(), pattern_.sets_.end(), node.set);
        const auto set = static_cast<int32_t>(found - pattern_.sets_.begin());
        if (found == pattern_.sets_.end()) pattern_.sets_.push_back(node.set);
        const uint32_t to = add_state();
        pattern_.edges_[from].push_back({set, to});
        return to;
      }
      case Node::Kind::kSequence:
        for (const Node& child : node.children) from = emit(child, from);
        return from;
      case Node::Kind::kChoice: {
        const uint32_t to = add_state();
        for (const Node& child : node.children) {
          const uint32_t begin = add_state();
          pattern_.edges_[from].push_back({-1, begin});
          pattern_.edges_[emit(child, begin)].push_back({-1, to});
        }
        return to;
      }
      case Node::Kind::kRepeat:
        return emit_repeat(node, from);
    }
    return from;
  }

  uint32_t emit_repeat(const Node& node, uint32_t from) {
    const Node& child = node.children[0];
    for (int i = 0; i < node.min; ++i) from = emit(child, from);
    const uint32_t to = add_state();
    if (node.max < 0) {
      const uint32_t loop = add_state();
      pattern_.edges_[from].push_back({-1, loop});
      pattern_.edges_[emit(child, loop)].push_back({-1, loop});
      pattern_.edges_[loop].push_back({-1, to});
      return to;
    }
    pattern_.edges_[from].push_back({-1, to});
    for (int i = node.min; i < node.max; ++i) {
      from = emit(child, from);
      pattern_.edges_[from].push_back({-1, to});
    }
    return to;
  }

  std::string_view text_;
  size_t at_ = 0;
  int nesting_ = 0;
  Pattern pattern_;
};

Pattern Pattern::parse(std::string_view text) {
  return PatternParser(text).parse();
}

// A copy of the states for each length so far, if the length counts; past the last count that matters the
// same copy serves all.
void Pattern::add_string(JsonText& json, Grammar& grammar, Grammar::State from, int64_t min_length,
                         std::optional<int64_t> max_length, Grammar::State to) const {
  using State = Grammar::State;
  const int64_t last = max_length.value_or(min_length);
  std::vector<std::vector<State>> copies(static_cast<size_t>(last) + 1);
  for (auto& copy : copies)
    for (size_t s = 0; s < edges_.size(); ++s) copy.push_back(grammar.state_beside(from));
  grammar.add_literal(from, "\"", copies[0][0]);
  for (int64_t n = 0; n <= last; ++n) {
    const std::vector<State>& copy = copies[static_cast<size_t>(n)];
    for (size_t s = 0; s < edges_.size(); ++s)
      for (const Edge& edge : edges_[s]) {
        if (edge.set < 0)
          grammar.add_empty(copy[s], copy[edge.to]);
        else if (n < last || !max_length)
          json.add_char(copy[s], sets_[static_cast<size_t>(edge.set)],
                        copies[static_cast<size_t>(std::min(n + 1, last))][edge.to]);
      }
    if (n >= min_length) grammar.add_literal(copy[1], "\"", to);
  }
}

}  // namespace hadal
