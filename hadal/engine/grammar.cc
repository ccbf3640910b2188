#include "hadal/engine/grammar.h"

#include <algorithm>
#include <utility>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {

Grammar::Rule Grammar::add_rule() {
  const Rule rule = static_cast<Rule>(rules_.size());
  rules_.push_back({});
  const State start = add_state(rule);
  rules_[rule] = {start, add_state(rule)};
  return rule;
}

Grammar::State Grammar::add_state(Rule rule) {
  HADAL_CHECK(rule < rules_.size()) << "rule " << rule << " of " << rules_.size();
  if (num_states() >= limits_.states)
    throw Error(ErrorCode::kExhausted,
                cat("[engine.grammar] more than ", with_commas(limits_.states),
                    " states are needed. Ask for less: smaller counts, fewer values."));
  edges_.emplace_back();
  rule_of_.push_back(rule);
  return static_cast<State>(edges_.size() - 1);
}

void Grammar::add_edge(State from, const Edge& edge) {
  HADAL_CHECK(from < edges_.size() && edge.to < edges_.size() && rule_of_[from] == rule_of_[edge.to])
      << "an edge from state " << from << " to " << edge.to << " of " << edges_.size();
  if (++num_edges_ > limits_.edges)
    throw Error(ErrorCode::kExhausted, cat("[engine.grammar] more than ", with_commas(limits_.edges),
                                           " edges are needed. Ask for less: smaller counts, fewer values."));
  edges_[from].push_back(edge);
}

void Grammar::add_bytes(State from, uint8_t first, uint8_t last, State to) {
  HADAL_CHECK(first <= last) << "bytes " << int{first} << " to " << int{last};
  add_edge(from, {EdgeKind::kBytes, first, last, 0, to});
}

void Grammar::add_empty(State from, State to) {
  add_edge(from, {EdgeKind::kEmpty, 0, 0, 0, to});
}

void Grammar::add_call(State from, Rule rule, State to) {
  HADAL_CHECK(rule < rules_.size()) << "rule " << rule << " of " << rules_.size();
  add_edge(from, {EdgeKind::kCall, 0, 0, rule, to});
}

void Grammar::add_token(State from, std::string_view spelling, State to) {
  const auto found = std::find(tokens_.begin(), tokens_.end(), spelling);
  const auto index = static_cast<uint32_t>(found - tokens_.begin());
  if (found == tokens_.end()) tokens_.emplace_back(spelling);
  add_edge(from, {EdgeKind::kToken, 0, 0, index, to});
}

void Grammar::add_literal(State from, std::string_view bytes, State to) {
  if (bytes.empty()) return add_empty(from, to);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const State next = i + 1 == bytes.size() ? to : state_beside(from);
    const auto byte = static_cast<uint8_t>(bytes[i]);
    add_bytes(from, byte, byte, next);
    from = next;
  }
}

Grammar::State Grammar::then_literal(State from, std::string_view bytes) {
  if (bytes.empty()) return from;
  const State to = state_beside(from);
  add_literal(from, bytes, to);
  return to;
}

Grammar::State Grammar::then_call(State from, Rule rule) {
  const State to = state_beside(from);
  add_call(from, rule, to);
  return to;
}

Grammar::State Grammar::then_markup(State from, std::string_view text, const Tokenizer& tokenizer) {
  for (const int32_t id : tokenizer.encode(text)) {
    if (!tokenizer.is_added(id)) {
      from = then_literal(from, tokenizer.token_bytes(id));
      continue;
    }
    const State to = state_beside(from);
    add_token(from, tokenizer.token(id), to);
    from = to;
  }
  return from;
}

// Level by level: a state has the lowest level at which one of its edges leads to settled states only.
std::vector<int32_t> Grammar::heights() const {
  std::vector<int32_t> height(edges_.size(), kNever);
  for (const Ends& rule : rules_) height[rule.end] = 0;
  std::vector<std::vector<State>> before(edges_.size());   // states with an edge here
  std::vector<std::vector<State>> callers(rules_.size());  // states that call the rule
  std::vector<State> work;
  for (State s = 0; s < edges_.size(); ++s) {
    for (const Edge& e : edges_[s]) {
      before[e.to].push_back(s);
      if (e.kind == EdgeKind::kCall) callers[e.what].push_back(s);
    }
    if (height[s] == 0) work.push_back(s);
  }
  const auto through = [&](const Edge& e) {
    if (e.kind != EdgeKind::kCall) return height[e.to];
    const int32_t called = height[rules_[e.what].start];
    return called == kNever ? kNever : std::max(height[e.to], called + 1);
  };
  for (int32_t level = 0; !work.empty(); ++level) {
    std::vector<State> next;
    while (!work.empty()) {
      const State changed = work.back();
      work.pop_back();
      const auto look = [&](State s) {
        if (height[s] != kNever) return;
        for (const Edge& e : edges_[s]) {
          const int32_t h = through(e);
          if (h > level) {
            if (h == level + 1) next.push_back(s);
            continue;
          }
          height[s] = level;
          work.push_back(s);
          return;
        }
      };
      for (const State s : before[changed]) look(s);
      const Rule rule = rule_of_[changed];
      if (rules_[rule].start == changed)
        for (const State s : callers[rule]) look(s);
    }
    for (const State s : next) {
      if (height[s] != kNever) continue;
      height[s] = level + 1;
      work.push_back(s);
    }
  }
  return height;
}

std::vector<Grammar::State> Grammar::free_states(Rule rule, const std::vector<bool>& nullable,
                                                 std::vector<uint32_t>& stamps, uint32_t walk) const {
  std::vector<State> found = {rules_[rule].start};
  stamps[found[0]] = walk;
  for (size_t i = 0; i < found.size(); ++i) {
    for (const Edge& e : edges_[found[i]]) {
      const bool free = e.kind == EdgeKind::kEmpty || (e.kind == EdgeKind::kCall && nullable[e.what]);
      if (!free || std::exchange(stamps[e.to], walk) == walk) continue;
      found.push_back(e.to);
    }
  }
  return found;
}

std::vector<bool> Grammar::nullable_rules() const {
  std::vector<bool> nullable(rules_.size(), false);
  std::vector<uint32_t> stamps(edges_.size(), 0);
  uint32_t walk = 0;
  for (bool changed = true; changed;) {
    changed = false;
    for (Rule r = 0; r < rules_.size(); ++r) {
      if (nullable[r]) continue;
      free_states(r, nullable, stamps, ++walk);
      nullable[r] = stamps[rules_[r].end] == walk;
      changed |= nullable[r];
    }
  }
  return nullable;
}

std::optional<Grammar::Rule> Grammar::left_recursive_rule() const {
  const std::vector<bool> nullable = nullable_rules();
  enum : uint8_t { kNew, kOpen, kDone };
  std::vector<uint8_t> mark(rules_.size(), kNew);
  std::vector<uint32_t> stamps(edges_.size(), 0);
  uint32_t walk = 0;
  const auto first_calls = [&](Rule rule) {
    std::vector<Rule> calls;
    for (const State s : free_states(rule, nullable, stamps, ++walk))
      for (const Edge& e : edges_[s])
        if (e.kind == EdgeKind::kCall) calls.push_back(e.what);
    return calls;
  };
  struct Visit {
    Rule rule;
    std::vector<Rule> calls;
    size_t next = 0;
  };
  for (Rule root = 0; root < rules_.size(); ++root) {
    if (mark[root] != kNew) continue;
    std::vector<Visit> path = {{root, first_calls(root)}};
    mark[root] = kOpen;
    while (!path.empty()) {
      Visit& top = path.back();
      if (top.next == top.calls.size()) {
        mark[top.rule] = kDone;
        path.pop_back();
        continue;
      }
      const Rule called = top.calls[top.next++];
      if (mark[called] == kOpen) return called;
      if (mark[called] == kDone) continue;
      mark[called] = kOpen;
      path.push_back({called, first_calls(called)});
    }
  }
  return std::nullopt;
}

}  // namespace hadal
