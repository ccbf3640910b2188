// What an answer may be, as an automaton over bytes with a stack. Torch-free; knows no JSON.
//
// A grammar is a set of rules. A rule is a graph of states; it begins at its start state and has matched when
// it reaches its end state. An edge takes a byte of a range, nothing, a whole other rule (which may lead back
// to this one: so brackets nest), or one added token of the vocabulary (markup such as a tool call's). Edges
// may contradict one another: all ways are followed at once (constraint.h).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/tokenizer.h"

namespace hadal {

struct GrammarLimits {
  int64_t states = 200'000, edges = 600'000;
};

class Grammar {
 public:
  using State = uint32_t;
  using Rule = uint32_t;
  enum class EdgeKind : uint8_t { kBytes, kEmpty, kCall, kToken };
  struct Edge {
    EdgeKind kind;
    uint8_t first, last;  // kBytes
    uint32_t what;        // kCall: the rule; kToken: index in tokens()
    State to;
  };
  static constexpr int32_t kNever = INT32_MAX;

  explicit Grammar(const GrammarLimits& limits = {}) : limits_(limits) {}

  // All that add throw exhausted past the limits. An edge joins states of one rule.
  Rule add_rule();
  State add_state(Rule rule);
  State state_beside(State state) { return add_state(rule_of_[state]); }  // of the same rule
  State start(Rule rule) const { return rules_[rule].start; }
  State end(Rule rule) const { return rules_[rule].end; }

  void add_bytes(State from, uint8_t first, uint8_t last, State to);
  void add_empty(State from, State to);
  void add_call(State from, Rule rule, State to);
  void add_token(State from, std::string_view spelling, State to);  // as tokenizer.json spells it
  void add_literal(State from, std::string_view bytes, State to);
  // The same with a new state behind.
  State then_literal(State from, std::string_view bytes);
  State then_call(State from, Rule rule);
  // Text in which added tokens of this tokenizer are those tokens and nothing else: "<｜tool▁sep｜>name".
  State then_markup(State from, std::string_view text, const Tokenizer& tokenizer);

  int64_t num_states() const { return static_cast<int64_t>(edges_.size()); }
  int64_t num_rules() const { return static_cast<int64_t>(rules_.size()); }
  const std::vector<Edge>& edges(State state) const { return edges_[state]; }
  const std::vector<std::string>& tokens() const { return tokens_; }
  Rule rule_of(State state) const { return rule_of_[state]; }
  bool is_end(State state) const { return rules_[rule_of_[state]].end == state; }

  // Of each state: calls that must be open at the same time, above its own rule's, until its rule ends;
  // kNever: its rule cannot end from there.
  std::vector<int32_t> heights() const;
  // A rule that may call itself, perhaps through others, before a byte is taken.
  std::optional<Rule> left_recursive_rule() const;

 private:
  struct Ends {
    State start, end;
  };
  void add_edge(State from, const Edge& edge);
  std::vector<bool> nullable_rules() const;
  // States that `rule` reaches without taking a byte. `stamps`: of each state the last walk that saw it.
  std::vector<State> free_states(Rule rule, const std::vector<bool>& nullable, std::vector<uint32_t>& stamps,
                                 uint32_t walk) const;

  GrammarLimits limits_;
  std::vector<Ends> rules_;
  std::vector<std::vector<Edge>> edges_;  // of each state
  std::vector<Rule> rule_of_;
  std::vector<std::string> tokens_;
  int64_t num_edges_ = 0;
};

}  // namespace hadal
