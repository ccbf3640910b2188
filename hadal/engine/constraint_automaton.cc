#include "hadal/engine/constraint_automaton.h"

#include <algorithm>
#include <bitset>
#include <unordered_set>

#include "hadal/base/check.h"
#include "hadal/error.h"

namespace hadal {
namespace {

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15ull;
  return hash ^ hash >> 29;
}

}  // namespace

size_t Constraint::Automaton::Key::operator()(const std::vector<uint64_t>& words) const {
  uint64_t hash = words.size();
  for (const uint64_t word : words) hash = mix(hash, word);
  return hash;
}

Constraint::Automaton::Automaton(const Grammar& grammar, Rule root, const ConstraintLimits& limits)
    : height_(grammar.heights()), tokens_(grammar.tokens()), root_(root), limits_(limits) {
  std::bitset<257> boundary;
  const auto n = static_cast<uint32_t>(grammar.num_states());
  for (uint32_t s = 0; s < n; ++s)
    for (const Grammar::Edge& e : grammar.edges(s))
      if (e.kind == Grammar::EdgeKind::kBytes) boundary[e.first] = boundary[e.last + 1u] = true;
  for (uint32_t byte = 0, c = 0; byte < 256; ++byte) {
    c += byte > 0 && boundary[byte];
    class_of_[byte] = static_cast<uint16_t>(c);
    num_classes_ = c + 1;
  }
  byte_edges_.begin = free_edges_.begin = token_edges_.begin = {0};
  for (uint32_t s = 0; s < n; ++s) {
    is_end_.push_back(grammar.is_end(s));
    for (const Grammar::Edge& e : grammar.edges(s)) {
      if (e.kind == Grammar::EdgeKind::kBytes)
        byte_edges_.all.push_back({class_of_[e.first], class_of_[e.last], e.to});
      else if (e.kind == Grammar::EdgeKind::kToken)
        token_edges_.all.emplace_back(e.what, e.to);
      else
        free_edges_.all.push_back({e.kind == Grammar::EdgeKind::kCall ? e.what : kNoReturn, e.to});
    }
    byte_edges_.begin.push_back(static_cast<uint32_t>(byte_edges_.all.size()));
    free_edges_.begin.push_back(static_cast<uint32_t>(free_edges_.all.size()));
    token_edges_.begin.push_back(static_cast<uint32_t>(token_edges_.all.size()));
  }
  for (Rule r = 0; r < grammar.num_rules(); ++r) rule_start_.push_back(grammar.start(r));
  clear();
}

void Constraint::Automaton::clear() {
  ++epoch_;
  frames_ = {Frame{}};
  frame_ids_.clear();
  states_.clear();
  state_ids_.clear();
  next_.clear();
  masks_.clear();
  kept_ways_ = 0;
  intern({}, false);  // kDead
}

uint32_t Constraint::Automaton::frame(uint32_t back, uint32_t below) {
  const auto [found, fresh] = frame_ids_.try_emplace(static_cast<uint64_t>(back) << 32 | below,
                                                     static_cast<uint32_t>(frames_.size()));
  if (fresh) frames_.push_back({back, below, frames_[below].depth + 1});
  return found->second;
}

uint32_t Constraint::Automaton::intern(std::vector<Way> ways, bool accepts) {
  std::vector<uint64_t> key = {accepts};
  for (const Way& way : ways) key.push_back(static_cast<uint64_t>(way.state) << 32 | way.frame);
  const auto [found, fresh] = state_ids_.try_emplace(std::move(key), static_cast<uint32_t>(states_.size()));
  if (fresh) {
    StateFacts facts{.ways = std::move(ways), .accepts = accepts};
    for (const Way& way : facts.ways) facts.takes_tokens |= !token_edges_.of(way.state).empty();
    kept_ways_ += facts.ways.size();
    states_.push_back(std::move(facts));
  }
  return found->second;
}

// Ways keep the order in which they are found, which depends on the text alone: so does what the limit cuts.
uint32_t Constraint::Automaton::close(const std::vector<Way>& ways) {
  std::vector<Way> stack(ways.rbegin(), ways.rend()), kept;
  std::unordered_set<uint64_t> seen;
  bool accepts = false;
  const auto limit = static_cast<size_t>(limits_.max_ways);
  while (!stack.empty() && kept.size() < limit) {
    const Way way = stack.back();
    stack.pop_back();
    const Frame at = frames_[way.frame];
    if (height_[way.state] > limits_.max_depth - at.depth) continue;
    if (!seen.insert(static_cast<uint64_t>(way.state) << 32 | way.frame).second) continue;
    if (!byte_edges_.of(way.state).empty() || !token_edges_.of(way.state).empty()) kept.push_back(way);
    if (is_end_[way.state]) {
      if (at.back == kNoReturn)
        accepts = true;
      else
        stack.push_back({at.back, at.below});
    }
    const auto free = free_edges_.of(way.state);
    for (auto edge = free.rbegin(); edge != free.rend(); ++edge) {
      if (edge->rule == kNoReturn)
        stack.push_back({edge->to, way.frame});
      else if (height_[edge->to] <= limits_.max_depth - at.depth && at.depth < limits_.max_depth)
        stack.push_back({rule_start_[edge->rule], frame(edge->to, way.frame)});
    }
  }
  return intern(std::move(kept), accepts);
}

uint32_t Constraint::Automaton::fill_row(uint32_t state) {
  std::vector<std::vector<Way>> targets(num_classes_);
  for (const Way& way : states_[state].ways)
    for (const ByteEdge& edge : byte_edges_.of(way.state))
      for (uint32_t c = edge.first; c <= edge.last; ++c) targets[c].push_back({edge.to, way.frame});
  std::vector<uint32_t> row(num_classes_, kDead);
  for (uint32_t c = 0; c < num_classes_; ++c) {
    if (targets[c].empty()) continue;
    row[c] = c > 0 && targets[c] == targets[c - 1] ? row[c - 1] : close(targets[c]);
  }
  const auto at = static_cast<uint32_t>(next_.size());
  next_.insert(next_.end(), row.begin(), row.end());
  states_[state].row = at;
  return at;
}

uint32_t Constraint::Automaton::next_token(uint32_t state, uint32_t token) {
  std::vector<Way> targets;
  for (const Way& way : states_[state].ways)
    for (const auto& [named, to] : token_edges_.of(way.state))
      if (named == token) targets.push_back({to, way.frame});
  return targets.empty() ? kDead : close(targets);
}

void Constraint::Automaton::enter(Place& place) {
  const size_t limit = static_cast<size_t>(limits_.max_states);
  if (states_.size() > limit || kept_ways_ > 16 * limit || frames_.size() > 16 * limit) clear();
  if (place.epoch == epoch_) return;
  std::vector<Way> ways;
  for (size_t i = 1; i < place.ways.size();) {
    const uint32_t state = place.ways[i], depth = place.ways[i + 1];
    uint32_t inside = 0;
    for (uint32_t d = depth; d > 0; --d) inside = frame(place.ways[i + 1 + d], inside);
    ways.push_back({state, inside});
    i += 2 + depth;
  }
  place.state = intern(std::move(ways), place.ways[0] != 0);
  place.epoch = epoch_;
}

void Constraint::Automaton::leave(Place& place, uint32_t state) {
  place.state = state, place.epoch = epoch_;
  place.ways = {states_[state].accepts};
  for (const Way& way : states_[state].ways) {
    place.ways.push_back(way.state);
    place.ways.push_back(static_cast<uint32_t>(frames_[way.frame].depth));
    for (uint32_t f = way.frame; f != 0; f = frames_[f].below) place.ways.push_back(frames_[f].back);
  }
}

Constraint::Automaton::Place Constraint::Automaton::start() {
  Place place;
  leave(place, close({{rule_start_[root_], 0}}));
  return place;
}

void Constraint::Automaton::push(Place& place, std::string_view bytes) {
  enter(place);
  uint32_t state = place.state;
  for (const char byte : bytes) state = next(state, static_cast<uint8_t>(byte));
  leave(place, state);
}

void Constraint::Automaton::push_added(Place& place, const VocabularyTrie& vocabulary, int32_t token) {
  enter(place);
  uint32_t state = kDead;
  for (uint32_t i = 0; i < tokens_.size(); ++i)
    if (vocabulary.added_id(tokens_[i]) == token) state = next_token(place.state, i);
  leave(place, state);
}

std::shared_ptr<const TokenMask> Constraint::Automaton::mask(
    Place& place, const std::shared_ptr<const VocabularyTrie>& vocabulary) {
  enter(place);
  if (masks_of_ != vocabulary || static_cast<int64_t>(masks_.size()) >= limits_.max_masks) masks_.clear();
  masks_of_ = vocabulary;
  if (const auto found = masks_.find(place.state); found != masks_.end()) return found->second;
  return masks_[place.state] = make_mask(place.state, *vocabulary);
}

bool Constraint::Automaton::all_lead(uint32_t from, std::span<const ByteRange> bytes, uint32_t& to) {
  const auto [first, last] = bytes[0];
  for (int byte = first; byte <= last; ++byte) {
    if (byte > first && class_of_[byte] == class_of_[byte - 1]) continue;
    const uint32_t state = next(from, static_cast<uint8_t>(byte));
    if (state == kDead) return false;
    if (bytes.size() > 1) {
      if (!all_lead(state, bytes.subspan(1), to)) return false;
    } else {
      if (to == kUnknown) to = state;
      if (state != to) return false;
    }
  }
  return true;
}

bool Constraint::Automaton::takes_plain_tokens(uint32_t state) {
  constexpr ByteRange kTail{0x80, 0xBF};
  static const std::vector<std::vector<ByteRange>> kCharacters = {// The Unicode Standard, table 3-7
                                                                  {{' ', '!'}},
                                                                  {{'#', '['}},
                                                                  {{']', 0x7F}},
                                                                  {{0xC2, 0xDF}, kTail},
                                                                  {{0xE0, 0xE0}, {0xA0, 0xBF}, kTail},
                                                                  {{0xE1, 0xEC}, kTail, kTail},
                                                                  {{0xED, 0xED}, {0x80, 0x9F}, kTail},
                                                                  {{0xEE, 0xEF}, kTail, kTail},
                                                                  {{0xF0, 0xF0}, {0x90, 0xBF}, kTail, kTail},
                                                                  {{0xF1, 0xF3}, kTail, kTail, kTail},
                                                                  {{0xF4, 0xF4}, {0x80, 0x8F}, kTail, kTail}};
  for (int64_t i = 0; i < VocabularyTrie::kPlainCharacters; ++i) {
    uint32_t to = kUnknown;
    for (const std::vector<ByteRange>& bytes : kCharacters)
      if (!all_lead(state, bytes, to)) return false;
    if (to == state) return true;
    state = to;
  }
  return true;
}

void Constraint::Automaton::walk(uint32_t state, const std::vector<VocabularyTrie::Node>& nodes,
                                 TokenMask& mask) {
  if (nodes.empty()) return;
  std::vector<uint32_t> row_at = {row_of(state)};  // of each depth: where the next bytes are looked up
  for (size_t i = 0; i < nodes.size();) {
    const VocabularyTrie::Node& node = nodes[i];
    const uint32_t to = next_[row_at[node.depth] + class_of_[node.byte]];
    if (to == kDead) {
      i = node.after;
      continue;
    }
    if (node.token >= 0) {
      mask.bits[static_cast<size_t>(node.token / 64)] |= uint64_t{1} << node.token % 64;
      ++mask.num_tokens;
    }
    ++i;
    if (node.after == i) continue;  // no children
    row_at.resize(std::max<size_t>(row_at.size(), node.depth + 2u));
    row_at[node.depth + 1u] = row_of(to);
  }
}

std::shared_ptr<const TokenMask> Constraint::Automaton::make_mask(uint32_t state,
                                                                  const VocabularyTrie& vocabulary) {
  auto mask = std::make_shared<TokenMask>();
  if (takes_plain_tokens(state)) {
    mask->bits = vocabulary.plain_bits(), mask->num_tokens = vocabulary.num_plain();
    walk(state, vocabulary.nodes_of_others(), *mask);
  } else {
    mask->bits.resize(static_cast<size_t>(vocabulary.size() + 63) / 64, 0);
    walk(state, vocabulary.nodes(), *mask);
  }
  const auto allow = [&](int32_t id) { mask->bits[static_cast<size_t>(id / 64)] |= uint64_t{1} << id % 64; };
  if (states_[state].takes_tokens)
    for (uint32_t t = 0; t < tokens_.size(); ++t) {
      const int32_t id = vocabulary.added_id(tokens_[t]);
      if (id < 0 || next_token(state, t) == kDead) continue;
      allow(id);
      ++mask->num_tokens;
    }
  mask->ends = states_[state].accepts;
  if (mask->ends)
    for (const int32_t id : vocabulary.end_ids()) allow(id);
  return mask;
}

}  // namespace hadal
