// A grammar (grammar.h) put to work: which tokens may come next. Torch-free.
//
// All ways that a text can be read are followed at once; a way is a state and the stack of rules it is inside
// of. Sets of ways become the states of an automaton without choice, made as they are met, so that a byte
// costs one table look-up and a mask one walk over the vocabulary (vocabulary_trie.h). Tables and masks are
// kept within a bound and thrown away together when they outgrow it.
//
// Every way that is followed can be finished within max_depth calls, and a set too large loses its last ways,
// never all of them: so bytes never run into a dead end, whatever is chosen. A vocabulary that lacks bytes
// may.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "hadal/engine/grammar.h"
#include "hadal/engine/vocabulary_trie.h"

namespace hadal {

struct ConstraintLimits {
  int32_t max_depth = 62;     // calls open at the same time
  int64_t max_ways = 1024;    // followed at once
  int64_t max_states = 8192;  // kept
  int64_t max_masks = 192;    // kept, of vocabulary size / 8 bytes each
};

// What a grammar cannot say, such as that no key occurs twice. One per answer; sees every text of it.
class TextGuard {
 public:
  virtual ~TextGuard() = default;
  virtual std::unique_ptr<TextGuard> copy() const = 0;
  // False: the text may not come next. It must always leave a way on.
  virtual bool push(std::string_view bytes) = 0;
};

// Tokens that may come next.
struct TokenMask {
  std::vector<uint64_t> bits;  // bit i: token i
  int64_t num_tokens = 0;      // that go on
  bool ends = false;           // the text may end here: the end tokens are among the bits
};

// Shared by the requests that want it; threads may use it at the same time (they wait for one another while a
// mask is made).
class Constraint {
 public:
  using Rule = Grammar::Rule;
  // Throws invalid_argument if root can match nothing or a rule calls itself before it takes a byte.
  Constraint(const Grammar& grammar, Rule root, const ConstraintLimits& limits = {});
  ~Constraint();
  void set_guard(std::function<std::unique_ptr<TextGuard>()> make) { make_guard_ = std::move(make); }

 private:
  friend class ConstraintCursor;
  class Automaton;
  std::unique_ptr<Automaton> automaton_;
  std::function<std::unique_ptr<TextGuard>()> make_guard_;
};

// Where one answer is. Its masks depend on the text so far only.
class ConstraintCursor {
 public:
  // Throws invalid_argument if the vocabulary lacks an added token that the constraint names, or cannot even
  // begin.
  ConstraintCursor(std::shared_ptr<const Constraint> constraint,
                   std::shared_ptr<const VocabularyTrie> vocabulary);
  ~ConstraintCursor();
  ConstraintCursor(ConstraintCursor&&) noexcept;
  ConstraintCursor& operator=(ConstraintCursor&&) noexcept;

  // Tokens that may come next. Empty (no bit): the vocabulary has no way on.
  const TokenMask& allowed() const { return *mask_; }
  // True if the guard refuses a token of the mask.
  bool refuses(int32_t token) const;
  // REQUIRES: token is in allowed() and does not end the answer.
  void push(int32_t token);

 private:
  struct Place;
  std::shared_ptr<const Constraint> constraint_;
  std::shared_ptr<const VocabularyTrie> vocabulary_;
  std::unique_ptr<Place> place_;
  std::unique_ptr<TextGuard> guard_;
  std::shared_ptr<const TokenMask> mask_;
};

}  // namespace hadal
