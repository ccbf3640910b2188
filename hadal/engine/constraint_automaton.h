// The tables behind a Constraint. Internal to hadal/engine; not thread-safe, its owner locks.
#pragma once
#include <array>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "hadal/engine/constraint.h"

namespace hadal {

class Constraint::Automaton {
 public:
  Automaton(const Grammar& grammar, Rule root, const ConstraintLimits& limits);

  // A set of ways, spelled out so that it outlives the tables: of each its state, the number of calls it is
  // inside of, and where each returns to, innermost first. The first number: may the text end here?
  using Ways = std::vector<uint32_t>;
  struct Place {
    Ways ways;
    uint64_t epoch = 0;  // of the tables that `state` is in
    uint32_t state = 0;
  };

  std::mutex lock;
  Place start();
  // REQUIRES of both: the lock is held.
  std::shared_ptr<const TokenMask> mask(Place& place,
                                        const std::shared_ptr<const VocabularyTrie>& vocabulary);
  void push(Place& place, std::string_view bytes);
  void push_added(Place& place, const VocabularyTrie& vocabulary, int32_t token);
  const std::vector<std::string>& tokens() const { return tokens_; }

 private:
  static constexpr uint32_t kDead = 0, kUnknown = UINT32_MAX, kNoReturn = UINT32_MAX;
  struct Way {
    uint32_t state, frame;
    bool operator==(const Way&) const = default;
  };
  // A call that is open: where it returns to, inside which other one. Equal stacks are one frame.
  struct Frame {
    uint32_t back = kNoReturn, below = 0;
    int32_t depth = 0;
  };
  struct StateFacts {
    std::vector<Way> ways;
    bool accepts = false;
    uint32_t row = kUnknown;  // of next_, once it is filled
    bool takes_tokens = false;
  };
  struct Key {
    size_t operator()(const std::vector<uint64_t>& words) const;
  };

  uint32_t frame(uint32_t back, uint32_t below);
  // Follows everything that takes no byte from these ways.
  uint32_t close(const std::vector<Way>& ways);
  uint32_t intern(std::vector<Way> ways, bool accepts);
  uint32_t fill_row(uint32_t state);
  uint32_t row_of(uint32_t state) {
    const uint32_t row = states_[state].row;
    return row == kUnknown ? fill_row(state) : row;
  }
  uint32_t next(uint32_t state, uint8_t byte) { return next_[row_of(state) + class_of_[byte]]; }
  struct ByteRange {
    uint8_t first, last;
  };
  // Every sequence of bytes in these ranges leads to the same state, which is `to` unless that is kUnknown.
  bool all_lead(uint32_t from, std::span<const ByteRange> bytes, uint32_t& to);
  // Plain tokens (vocabulary_trie.h) may follow, whichever they are: inside a string, for instance.
  bool takes_plain_tokens(uint32_t state);
  void walk(uint32_t state, const std::vector<VocabularyTrie::Node>& nodes, TokenMask& mask);
  uint32_t next_token(uint32_t state, uint32_t token);
  void enter(Place& place);  // into the tables as they are now
  void leave(Place& place, uint32_t state);
  void clear();
  std::shared_ptr<const TokenMask> make_mask(uint32_t state, const VocabularyTrie& vocabulary);

  // The grammar, packed.
  struct ByteEdge {
    uint16_t first, last;  // classes of bytes
    uint32_t to;
  };
  struct FreeEdge {
    uint32_t rule, to;  // rule kNoReturn: an empty edge
  };
  template <class T>
  struct Packed {  // of each state
    std::vector<uint32_t> begin;
    std::vector<T> all;
    std::span<const T> of(uint32_t state) const {
      return std::span(all).subspan(begin[state], begin[state + 1] - begin[state]);
    }
  };
  Packed<ByteEdge> byte_edges_;
  Packed<FreeEdge> free_edges_;
  Packed<std::pair<uint32_t, uint32_t>> token_edges_;  // token, to
  std::vector<int32_t> height_;
  std::vector<bool> is_end_;
  std::vector<uint32_t> rule_start_;
  std::vector<std::string> tokens_;
  uint32_t root_;
  ConstraintLimits limits_;
  std::array<uint16_t, 256> class_of_{};  // bytes that no edge tells apart
  uint32_t num_classes_ = 0;

  // What was met so far.
  uint64_t epoch_ = 1;
  std::vector<Frame> frames_;
  std::unordered_map<uint64_t, uint32_t> frame_ids_;
  std::vector<StateFacts> states_;
  std::unordered_map<std::vector<uint64_t>, uint32_t, Key> state_ids_;
  size_t kept_ways_ = 0;        // of all states
  std::vector<uint32_t> next_;  // rows of num_classes_
  std::unordered_map<uint32_t, std::shared_ptr<const TokenMask>> masks_;
  std::shared_ptr<const VocabularyTrie> masks_of_;
};

}  // namespace hadal
