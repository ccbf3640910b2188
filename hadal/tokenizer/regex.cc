#include "hadal/tokenizer/regex.h"

#include <algorithm>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tokenizer/regex_parse.h"

namespace hadal {

void CharSet::finish() {
  std::sort(ranges_.begin(), ranges_.end());
  std::vector<std::pair<uint32_t, uint32_t>> merged;
  for (const auto& range : ranges_) {
    if (!merged.empty() && range.first <= merged.back().second + 1)
      merged.back().second = std::max(merged.back().second, range.second);
    else
      merged.push_back(range);
  }
  ranges_ = std::move(merged);
  for (uint32_t c = 0; c < 128; ++c) ascii_[c] = look_up(c);
}

bool CharSet::look_up(uint32_t code) const {
  if (kinds_ && (kinds_ >> static_cast<int>(char_kind(code)) & 1)) return !negated_;
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), code,
                                      [](uint32_t c, const auto& range) { return c < range.first; });
  const bool in = after != ranges_.begin() && code <= std::prev(after)->second;
  return in != negated_;
}

std::bitset<256> CharSet::first_bytes() const {
  std::bitset<256> bytes;
  for (uint32_t c = 0; c < 128; ++c) bytes[c] = ascii_[c];
  const auto lead = [](uint32_t code) {
    return code < 0x800 ? 0xC0 | code >> 6 : code < 0x10000 ? 0xE0 | code >> 12 : 0xF0 | code >> 18;
  };
  if (kinds_ || negated_) {
    for (uint32_t b = 0xC2; b < 0xF5; ++b) bytes[b] = true;
    return bytes;
  }
  for (const auto& [first, last] : ranges_) {
    if (last < 128) continue;
    for (uint32_t b = lead(std::max(first, 128u)); b <= lead(last); ++b) bytes[b] = true;
  }
  return bytes;
}

bool CharSet::operator==(const CharSet& other) const {
  return kinds_ == other.kinds_ && negated_ == other.negated_ && ranges_ == other.ranges_;
}

// ---- compiler ----

class RegexCompiler {
 public:
  RegexCompiler(Regex& out, std::string_view field) : re_(out), field_(field) {}

  void compile(const RegexNode& root) {
    emit(root);
    add(Op::kMatch);
    for (size_t pc = 0; pc < re_.program_.size(); ++pc) {
      auto& inst = re_.program_[pc];
      if (inst.op == Op::kLoop && cannot_fail(pc + 1, 0)) inst.op = Op::kEagerLoop;
      if (inst.op == Op::kLoop || inst.op == Op::kSplit) inst.memo = re_.memo_rows_++;
    }
    re_.nullable_ = root.nullable();
    if (re_.nullable_ || !first_bytes(root, re_.first_)) re_.first_.set();
  }

 private:
  using Op = Regex::Op;
  using Kind = RegexNode::Kind;
  static constexpr size_t kMaxProgram = 4096;

  size_t add(Op op, size_t a = 0, size_t b = 0) {
    if (re_.program_.size() >= kMaxProgram)
      throw Error(ErrorCode::kUnsupported, cat("[tokenizer.regex] ", field_, ": the pattern needs more than ",
                                               kMaxProgram, " instructions. Use smaller {m,n} repeats."));
    re_.program_.push_back({.op = op, .a = static_cast<uint32_t>(a), .b = static_cast<uint32_t>(b)});
    return re_.program_.size() - 1;
  }
  size_t here() const { return re_.program_.size(); }

  uint32_t set_of(const CharSet& set) {
    const auto known = std::find(re_.sets_.begin(), re_.sets_.end(), set);
    if (known != re_.sets_.end()) return static_cast<uint32_t>(known - re_.sets_.begin());
    re_.sets_.push_back(set);
    return static_cast<uint32_t>(re_.sets_.size() - 1);
  }

  void emit(const RegexNode& node) {
    switch (node.kind) {
      case Kind::kEmpty:
        break;
      case Kind::kSet:
        add(Op::kSet, set_of(node.set));
        break;
      case Kind::kConcat:
        for (const RegexNode& child : node.children) emit(child);
        break;
      case Kind::kAlternate:
        emit_alternate(node);
        break;
      case Kind::kRepeat:
        emit_repeat(node);
        break;
      case Kind::kLook:
        emit_look(node);
        break;
      case Kind::kLineStart:
        add(Op::kLineStart);
        break;
      case Kind::kLineEnd:
        add(Op::kLineEnd);
        break;
    }
  }

  void emit_alternate(const RegexNode& node) {
    std::vector<size_t> exits;
    for (size_t i = 0; i < node.children.size(); ++i) {
      const bool last = i + 1 == node.children.size();
      const size_t split = last ? 0 : add(Op::kSplit);
      if (!last) re_.program_[split].a = static_cast<uint32_t>(here());
      emit(node.children[i]);
      if (last) break;
      exits.push_back(add(Op::kJump));
      re_.program_[split].b = static_cast<uint32_t>(here());
    }
    for (size_t exit : exits) re_.program_[exit].a = static_cast<uint32_t>(here());
  }

  void emit_repeat(const RegexNode& node) {
    const RegexNode& body = node.children[0];
    for (uint32_t i = 0; i < node.min; ++i) emit(body);
    if (node.max == RegexNode::kNoLimit) {
      if (body.kind == Kind::kSet) {
        add(Op::kLoop, set_of(body.set));
        return;
      }
      const size_t split = add(Op::kSplit);
      re_.program_[split].a = static_cast<uint32_t>(here());
      emit(body);
      add(Op::kJump, split);
      re_.program_[split].b = static_cast<uint32_t>(here());
      return;
    }
    std::vector<size_t> splits;
    for (uint32_t i = node.min; i < node.max; ++i) {
      splits.push_back(add(Op::kSplit));
      re_.program_[splits.back()].a = static_cast<uint32_t>(here());
      emit(body);
    }
    for (size_t split : splits) re_.program_[split].b = static_cast<uint32_t>(here());
  }

  void emit_look(const RegexNode& node) {
    Regex::Look look;
    const auto add_sequence = [&](const RegexNode& sequence) {
      look.emplace_back();
      if (sequence.kind == Kind::kSet) look.back().push_back(set_of(sequence.set));
      for (const RegexNode& child : sequence.children) look.back().push_back(set_of(child.set));
    };
    const RegexNode& body = node.children[0];
    if (body.kind == Kind::kAlternate)
      for (const RegexNode& branch : body.children) add_sequence(branch);
    else
      add_sequence(body);
    re_.looks_.push_back(std::move(look));
    re_.program_[add(Op::kLook, re_.looks_.size() - 1)].negative = node.negative;
  }

  // Whether every run from pc ends in a match: then a greedy loop before it never gives anything back.
  bool cannot_fail(size_t pc, int depth) const {
    if (depth > 32) return false;
    const auto& inst = re_.program_[pc];
    switch (inst.op) {
      case Op::kMatch:
        return true;
      case Op::kJump:
        return cannot_fail(inst.a, depth + 1);
      case Op::kLoop:
      case Op::kEagerLoop:
        return cannot_fail(pc + 1, depth + 1);
      case Op::kSplit:
        return cannot_fail(inst.b, depth + 1);
      default:
        return false;
    }
  }

  // Adds the bytes a match of `node` can start with. False: it may match nothing, so what follows counts too.
  static bool first_bytes(const RegexNode& node, std::bitset<256>& bytes) {
    switch (node.kind) {
      case Kind::kSet:
        bytes |= node.set.first_bytes();
        return true;
      case Kind::kConcat:
        for (const RegexNode& child : node.children)
          if (first_bytes(child, bytes)) return true;
        return false;
      case Kind::kAlternate: {
        bool all = true;
        for (const RegexNode& child : node.children) all &= first_bytes(child, bytes);
        return all;
      }
      case Kind::kRepeat:
        return first_bytes(node.children[0], bytes) && node.min > 0;
      default:
        return false;
    }
  }

  Regex& re_;
  std::string_view field_;
};

Regex Regex::compile(std::string_view pattern, std::string_view field) {
  Regex regex;
  RegexCompiler(regex, field).compile(parse_regex(pattern, field));
  return regex;
}

Regex Regex::literal(std::string_view text) {
  RegexNode node{.kind = RegexNode::Kind::kConcat};
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_at(text, at);
    at += c.length;
    RegexNode leaf{.kind = RegexNode::Kind::kSet};
    leaf.set.add(c.code, c.code);
    leaf.set.finish();
    node.children.push_back(std::move(leaf));
  }
  Regex regex;
  RegexCompiler(regex, "pattern").compile(node);
  return regex;
}

// ---- matcher ----

// Backtracking. While it behaves, it runs bare; when the work exceeds a budget linear in the text, it
// remembers every (instruction, position) it has been at: one that failed once fails always, whatever the
// start of the match, so none is run twice and the total stays linear.
class RegexMatcher {
 public:
  RegexMatcher(const Regex& regex, std::string_view text)
      : re_(regex), text_(text), budget_(kStepsPerByte * text.size() + 4096) {}

  uint64_t steps() const { return steps_; }

  // End of the match that starts at `start`, or npos.
  size_t match_at(size_t start) {
    stack_.clear();
    size_t pc = 0, pos = start;
    for (;;) {
      if (++steps_ > budget_ && !memo_on_) start_memo();
      const Regex::Inst& inst = re_.program_[pc];
      bool ok = true;
      switch (inst.op) {
        case Op::kSet:
          ok = take(inst.a, pos);
          ++pc;
          break;
        case Op::kEagerLoop:
          while (take(inst.a, pos)) ++steps_;
          ++pc;
          break;
        case Op::kLoop:
          ok = loop(inst, pc, pos);
          break;
        case Op::kSplit:
          ok = !seen(inst, pos);
          if (ok) stack_.push_back({inst.b, pos, pos});
          pc = inst.a;
          break;
        case Op::kJump:
          pc = inst.a;
          break;
        case Op::kLook:
          ok = look(re_.looks_[inst.a], pos) != inst.negative;
          ++pc;
          break;
        case Op::kLineStart:
          ok = pos == 0 || (text_[pos - 1] == '\n' && pos < text_.size());
          ++pc;
          break;
        case Op::kLineEnd:
          ok = pos == text_.size() || text_[pos] == '\n';
          ++pc;
          break;
        case Op::kMatch:
          forget(pos);
          return pos;
      }
      if (!ok && !backtrack(pc, pos)) return std::string_view::npos;
    }
  }

 private:
  using Op = Regex::Op;
  static constexpr uint64_t kStepsPerByte = 32;

  // To try next: pc at `pos`, then at each character boundary before it down to `lowest`.
  struct Frame {
    size_t pc, pos, lowest;
  };

  bool take(uint32_t set, size_t& pos) const {
    if (pos >= text_.size()) return false;
    const Utf8Char c = utf8_at(text_, pos);
    if (!re_.sets_[set].matches(c.code)) return false;
    pos += c.length;
    return true;
  }

  bool loop(const Regex::Inst& inst, size_t& pc, size_t& pos) {
    if (memo_on_) {  // one character at a time, so that each position is remembered
      if (seen(inst, pos)) return false;
      const size_t before = pos;
      if (take(inst.a, pos))
        stack_.push_back({pc + 1, before, before});
      else
        ++pc;
      return true;
    }
    const size_t lowest = pos;
    while (take(inst.a, pos)) ++steps_;
    ++pc;
    if (pos > lowest) stack_.push_back({pc, utf8_before(text_, pos), lowest});
    return true;
  }

  bool look(const Regex::Look& alternatives, size_t pos) {
    for (const auto& sequence : alternatives) {
      size_t at = pos;
      bool ok = true;
      for (size_t i = 0; ok && i < sequence.size(); ++i, ++steps_) ok = take(sequence[i], at);
      if (ok) return true;
    }
    return false;
  }

  bool backtrack(size_t& pc, size_t& pos) {
    if (stack_.empty()) return false;
    Frame& top = stack_.back();
    pc = top.pc;
    pos = top.pos;
    if (top.pos > top.lowest)
      top.pos = utf8_before(text_, top.pos);
    else
      stack_.pop_back();
    return true;
  }

  void start_memo() {
    memo_on_ = true;
    memo_.assign(re_.memo_rows_ * (text_.size() + 1), false);
  }
  bool seen(const Regex::Inst& inst, size_t pos) {
    if (!memo_on_) return false;
    auto bit = memo_[inst.memo * (text_.size() + 1) + pos];
    if (bit) return true;
    bit = true;
    return false;
  }
  // The states of the successful run did not fail. The next match starts where this one ended.
  void forget(size_t pos) {
    if (!memo_on_) return;
    for (size_t row = 0; row < re_.memo_rows_; ++row) memo_[row * (text_.size() + 1) + pos] = false;
    steps_ += re_.memo_rows_;
  }

  const Regex& re_;
  std::string_view text_;
  uint64_t steps_ = 0, budget_;
  std::vector<Frame> stack_;
  bool memo_on_ = false;
  std::vector<bool> memo_;
};

void Regex::find_all(std::string_view text, std::vector<Match>& out, uint64_t* steps) const {
  constexpr size_t kNone = std::string_view::npos;
  RegexMatcher matcher(*this, text);
  size_t from = 0, last_end = kNone;
  while (from <= text.size()) {
    size_t begin = from, end = kNone;
    while (begin <= text.size()) {
      while (begin < text.size() && !first_[static_cast<unsigned char>(text[begin])]) ++begin;
      if (begin == text.size() && !nullable_) break;
      end = matcher.match_at(begin);
      if (end != kNone || begin == text.size()) break;
      begin += utf8_at(text, begin).length;
    }
    if (end == kNone) break;
    if (end == begin && end == last_end) {  // an empty match right after a match does not count
      from += from < text.size() ? utf8_at(text, from).length : 1;
      continue;
    }
    out.push_back({begin, end});
    from = last_end = end;
  }
  if (steps) *steps += matcher.steps();
}

}  // namespace hadal
