#include "hadal/server/json_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"

namespace hadal {
namespace {

constexpr uint32_t kLastCode = 0x10FFFF, kFirstSurrogate = 0xD800, kLastSurrogate = 0xDFFF;
constexpr int kMaxIndent = 16, kMaxDigits = 15;

std::string utf8(uint32_t code) {
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
  if (code < 0x10000)
    return {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63)),
            static_cast<char>(0x80 | (code & 63))};
  return {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 63)),
          static_cast<char>(0x80 | (code >> 6 & 63)), static_cast<char>(0x80 | (code & 63))};
}

bool is_plain(uint32_t code) {  // one byte, as it is
  return code >= 0x20 && code < 0x80 && code != '"' && code != '\\';
}

}  // namespace

CodePoints merged(CodePoints ranges) {
  CodePoints cut;
  for (const auto& [first, last] : ranges) {
    if (first < kFirstSurrogate) cut.emplace_back(first, std::min(last, kFirstSurrogate - 1));
    if (last > kLastSurrogate)
      cut.emplace_back(std::max(first, kLastSurrogate + 1), std::min(last, kLastCode));
  }
  std::sort(cut.begin(), cut.end());
  CodePoints out;
  for (const auto& range : cut) {
    if (range.first > range.second) continue;
    if (!out.empty() && range.first <= out.back().second + 1)
      out.back().second = std::max(out.back().second, range.second);
    else
      out.push_back(range);
  }
  return out;
}

CodePoints complement(const CodePoints& set) {
  CodePoints out;
  uint32_t next = 0;
  for (const auto& [first, last] : set) {
    if (first > next) out.emplace_back(next, first - 1);
    next = last + 1;
  }
  if (next <= kLastCode) out.emplace_back(next, kLastCode);
  return merged(std::move(out));
}

std::string json_string_text(const std::string& text) {
  return dump_json(Json(text));
}

// ---- white space ----

JsonText::Rule JsonText::space_rule() {
  if (const auto found = rules_.find("space"); found != rules_.end()) return found->second;
  const Rule rule = rules_["space"] = g_.add_rule();
  g_.add_empty(g_.start(rule), g_.end(rule));
  g_.add_literal(g_.start(rule), " ", g_.end(rule));
  State at = g_.then_literal(g_.start(rule), "\n");
  for (int i = 0; i < kMaxIndent; ++i) {
    g_.add_empty(at, g_.end(rule));
    at = g_.then_literal(at, " ");
  }
  g_.add_empty(at, g_.end(rule));
  return rule;
}

JsonText::State JsonText::then_space(State from) {
  return g_.then_call(from, space_rule());
}

// ---- characters ----

// The bytes of a range of code points, split where the number of bytes or a whole block of 64 changes.
void JsonText::add_utf8(State from, uint32_t first, uint32_t last, State to) {
  for (const uint32_t limit : {0x7Fu, 0x7FFu, 0xFFFFu})
    if (first <= limit && last > limit) {
      add_utf8(from, first, limit, to);
      return add_utf8(from, limit + 1, last, to);
    }
  if (first < 0x80) return g_.add_bytes(from, static_cast<uint8_t>(first), static_cast<uint8_t>(last), to);
  for (int bits = 6; bits < (first < 0x800 ? 7 : first < 0x10000 ? 13 : 19); bits += 6) {
    const uint32_t mask = (1u << bits) - 1;
    if (first >> bits == last >> bits) continue;
    if (first & mask) {
      add_utf8(from, first, first | mask, to);
      return add_utf8(from, (first | mask) + 1, last, to);
    }
    if ((last & mask) != mask) {
      add_utf8(from, first, (last & ~mask) - 1, to);
      return add_utf8(from, last & ~mask, last, to);
    }
  }
  const std::string low = utf8(first), high = utf8(last);
  for (size_t i = 0; i < low.size(); ++i) {
    const State next = i + 1 == low.size() ? to : g_.state_beside(from);
    g_.add_bytes(from, static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i]), next);
    from = next;
  }
}

void JsonText::add_escape(State from, uint32_t code, State to) {
  const std::string text = json_string_text(utf8(code));
  g_.add_literal(from, std::string_view(text).substr(1, text.size() - 2), to);
}

JsonText::Rule JsonText::rare_char(const CodePoints& set) {
  if (const auto found = rare_.find(set); found != rare_.end()) return found->second;
  const Rule rule = rare_[set] = g_.add_rule();
  for (const auto& [first, last] : set) {
    for (uint32_t c = first; c <= std::min(last, 0x7Fu); ++c)
      if (!is_plain(c)) add_escape(g_.start(rule), c, g_.end(rule));
    if (last >= 0x80) add_utf8(g_.start(rule), std::max(first, 0x80u), last, g_.end(rule));
  }
  return rule;
}

void JsonText::add_char(State from, const CodePoints& set, State to) {
  bool rare = false;
  for (const auto& [first, last] : set) {
    for (uint32_t c = first; c <= std::min(last, 0x7Fu); ++c) {
      uint32_t end = c;
      while (end + 1 <= std::min(last, 0x7Fu) && is_plain(end + 1)) ++end;
      if (is_plain(c)) g_.add_bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(end), to);
      rare |= !is_plain(c);
      if (is_plain(c)) c = end;
    }
    rare |= last >= 0x80;
  }
  if (rare) g_.add_call(from, rare_char(set), to);
}

void JsonText::add_hex(State from, State to) {
  g_.add_bytes(from, '0', '9', to);
  g_.add_bytes(from, 'a', 'f', to);
  g_.add_bytes(from, 'A', 'F', to);
}

// Beyond ASCII, or any escape; surrogates in pairs only.
JsonText::Rule JsonText::any_rare_char() {
  if (const auto found = rules_.find("rare"); found != rules_.end()) return found->second;
  const Rule rule = rules_["rare"] = g_.add_rule();
  const State from = g_.start(rule), to = g_.end(rule);
  for (const auto& [first, last] : merged({{0x80, kLastCode}})) add_utf8(from, first, last, to);
  const State escape = g_.then_literal(from, "\\");
  for (const char c : std::string("\"\\/bfnrt")) g_.add_literal(escape, std::string(1, c), to);
  const State unicode = g_.then_literal(escape, "u");
  const State three = g_.state_beside(from), two = g_.state_beside(from), one = g_.state_beside(from);
  g_.add_bytes(unicode, '0', '9', three);
  for (const char* range : {"ac", "AC", "ef", "EF"})
    g_.add_bytes(unicode, static_cast<uint8_t>(range[0]), static_cast<uint8_t>(range[1]), three);
  add_hex(three, two);
  add_hex(two, one);
  add_hex(one, to);
  const State d = g_.state_beside(from);
  for (const uint8_t c : {'d', 'D'}) g_.add_bytes(unicode, c, c, d);
  g_.add_bytes(d, '0', '7', two);
  State at = g_.state_beside(from);
  for (const auto& [first, last] : {std::pair<uint8_t, uint8_t>{'8', '9'}, {'a', 'b'}, {'A', 'B'}})
    g_.add_bytes(d, first, last, at);
  for (int i = 0; i < 2; ++i) {
    const State next = g_.state_beside(from);
    add_hex(at, next);
    at = next;
  }
  at = g_.then_literal(at, "\\u");
  const State low = g_.state_beside(from), low2 = g_.state_beside(from);
  for (const uint8_t c : {'d', 'D'}) g_.add_bytes(at, c, c, low);
  for (const auto& [first, last] : {std::pair<uint8_t, uint8_t>{'c', 'f'}, {'C', 'F'}})
    g_.add_bytes(low, first, last, low2);
  const State low3 = g_.state_beside(from);
  add_hex(low2, low3);
  add_hex(low3, to);
  return rule;
}

void JsonText::add_any_char(State from, State to) {
  g_.add_bytes(from, 0x20, '"' - 1, to);
  g_.add_bytes(from, '"' + 1, '\\' - 1, to);
  g_.add_bytes(from, '\\' + 1, 0x7F, to);
  g_.add_call(from, any_rare_char(), to);
}

// ---- strings ----

void JsonText::add_string(State from, int64_t min_length, std::optional<int64_t> max_length, State to) {
  State at = g_.then_literal(from, "\"");
  for (int64_t i = 0; i < max_length.value_or(min_length); ++i) {
    if (i >= min_length) g_.add_literal(at, "\"", to);
    const State next = g_.state_beside(from);
    add_any_char(at, next);
    at = next;
  }
  if (!max_length) add_any_char(at, at);
  g_.add_literal(at, "\"", to);
}

JsonText::Rule JsonText::string() {
  if (const auto found = rules_.find("string"); found != rules_.end()) return found->second;
  const Rule rule = rules_["string"] = g_.add_rule();
  add_string(g_.start(rule), 0, std::nullopt, g_.end(rule));
  return rule;
}

// Taken keys form a tree of bytes. On it, every byte that leads off is any other character; inside one of
// several bytes, the other continuations of that character.
JsonText::Rule JsonText::other_key(std::vector<std::string> taken) {
  has_free_keys_ = true;
  std::sort(taken.begin(), taken.end());
  if (const auto found = keys_.find(taken); found != keys_.end()) return found->second;
  const Rule rule = keys_[taken] = g_.add_rule();
  const State end = g_.end(rule), free = g_.add_state(rule);
  const CodePoints all = merged({{0, kLastCode}});
  add_char(free, all, free);
  g_.add_literal(free, "\"", end);
  // By whole characters: a node is a prefix of taken keys.
  struct Node {
    State state;
    bool is_key = false;
    std::map<uint32_t, size_t> children;
  };
  std::vector<Node> nodes = {{g_.then_literal(g_.start(rule), "\"")}};
  for (const std::string& key : taken) {
    size_t at = 0;
    for (size_t i = 0; i < key.size();) {
      const auto lead = static_cast<uint8_t>(key[i]);
      const size_t n = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
      uint32_t code = n == 1 ? lead : lead & (0xFFu >> (n + 1));
      for (size_t k = 1; k < n; ++k) code = code << 6 | (static_cast<uint8_t>(key[i + k]) & 63);
      i += n;
      const auto found = nodes[at].children.find(code);
      if (found != nodes[at].children.end()) {
        at = found->second;
        continue;
      }
      nodes.push_back({g_.add_state(rule)});
      nodes[at].children[code] = nodes.size() - 1;
      at = nodes.size() - 1;
    }
    nodes[at].is_key = true;
  }
  for (const Node& node : nodes) {
    if (!node.is_key) g_.add_literal(node.state, "\"", end);
    CodePoints on;
    for (const auto& [code, child] : node.children) {
      on.emplace_back(code, code);
      add_char(node.state, {{code, code}}, nodes[child].state);
    }
    add_char(node.state, complement(merged(on)), free);
  }
  return rule;
}

// ---- numbers, lists, any value ----

JsonText::Rule JsonText::number() {
  if (const auto found = rules_.find("number"); found != rules_.end()) return found->second;
  const Rule rule = rules_["number"] = g_.add_rule();
  const State end = g_.end(rule), sign = g_.add_state(rule), whole = g_.add_state(rule);
  g_.add_empty(g_.start(rule), sign);
  g_.add_literal(g_.start(rule), "-", sign);
  const auto digits = [&](State at, int most, State to) {  // up to `most`, then on
    for (int i = 0; i < most; ++i) {
      const State next = g_.add_state(rule);
      g_.add_bytes(at, '0', '9', next);
      g_.add_empty(next, to);
      at = next;
    }
  };
  g_.add_literal(sign, "0", whole);
  const State more = g_.add_state(rule), fraction = g_.add_state(rule), exponent = g_.add_state(rule);
  g_.add_bytes(sign, '1', '9', more);
  g_.add_empty(more, whole);
  digits(more, kMaxDigits - 1, whole);
  g_.add_empty(whole, fraction);
  digits(g_.then_literal(whole, "."), kMaxDigits, fraction);
  g_.add_empty(fraction, end);
  for (const char* mark : {"e", "E", "e-", "e+", "E-", "E+"}) g_.add_literal(fraction, mark, exponent);
  digits(exponent, 2, end);
  return rule;
}

void JsonText::add_list(State from, const std::vector<Rule>& first, std::optional<Rule> rest, Count count,
                        State to) {
  const auto fixed = static_cast<int64_t>(first.size());
  const int64_t most = count.max.value_or(INT64_MAX);
  State at = from;  // behind the opening mark, then behind each element
  const auto element = [&](State before, int64_t i, Rule rule, State after) {
    const State begin = i == 0 ? before : g_.then_literal(before, ",");
    g_.add_call(then_space(begin), rule, after);
  };
  for (int64_t i = 0;; ++i) {
    if (i >= count.min) g_.add_empty(i == 0 ? at : then_space(at), to);
    if (i >= most || (i >= fixed && !rest)) return;
    const Rule rule = i < fixed ? first[static_cast<size_t>(i)] : *rest;
    const bool loops = i >= fixed && i >= count.min && !count.max && i > 0;
    const State after = loops ? at : g_.state_beside(from);
    element(at, i, rule, after);
    if (loops) return;
    at = after;
  }
}

void JsonText::add_member_list(State from, Rule key, Rule value, State to) {
  g_.add_empty(from, to);
  const State before = then_space(from), after = g_.state_beside(from);
  g_.add_call(then_space(g_.then_literal(g_.then_call(before, key), ":")), value, after);
  g_.add_empty(then_space(g_.then_literal(after, ",")), before);
  g_.add_empty(then_space(after), to);
}

JsonText::Rule JsonText::object() {
  if (const auto found = rules_.find("object"); found != rules_.end()) return found->second;
  const Rule rule = rules_["object"] = g_.add_rule();
  const State close = g_.add_state(rule);
  add_member_list(g_.then_literal(g_.start(rule), "{"), other_key({}), value(), close);
  g_.add_literal(close, "}", g_.end(rule));
  return rule;
}

JsonText::Rule JsonText::array() {
  if (const auto found = rules_.find("array"); found != rules_.end()) return found->second;
  const Rule rule = rules_["array"] = g_.add_rule();
  const State close = g_.add_state(rule);
  add_list(g_.then_literal(g_.start(rule), "["), {}, value(), {}, close);
  g_.add_literal(close, "]", g_.end(rule));
  return rule;
}

JsonText::Rule JsonText::value() {
  if (const auto found = rules_.find("value"); found != rules_.end()) return found->second;
  const Rule rule = rules_["value"] = g_.add_rule();
  for (const char* word : {"true", "false", "null"}) g_.add_literal(g_.start(rule), word, g_.end(rule));
  for (const Rule kind : {string(), number(), object(), array()})
    g_.add_call(g_.start(rule), kind, g_.end(rule));
  return rule;
}

}  // namespace hadal
