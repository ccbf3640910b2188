#include "hadal/engine/constraint.h"

#include "hadal/base/text.h"
#include "hadal/engine/constraint_automaton.h"
#include "hadal/error.h"

namespace hadal {

Constraint::Constraint(const Grammar& grammar, Rule root, const ConstraintLimits& limits) {
  if (grammar.left_recursive_rule())
    throw Error(
        ErrorCode::kInvalidArgument,
        "[engine.constraint] a rule calls itself before it takes a byte. Put something before the call.");
  const int32_t height = grammar.heights()[grammar.start(root)];
  if (height > limits.max_depth)
    throw Error(ErrorCode::kInvalidArgument,
                height == Grammar::kNever
                    ? "[engine.constraint] no finite text matches. Give the rules a way to end."
                    : cat("[engine.constraint] every text nests ", height, " rules, need at most ",
                          limits.max_depth, ". Nest less."));
  automaton_ = std::make_unique<Automaton>(grammar, root, limits);
}

Constraint::~Constraint() = default;

struct ConstraintCursor::Place : Constraint::Automaton::Place {};

ConstraintCursor::ConstraintCursor(std::shared_ptr<const Constraint> constraint,
                                   std::shared_ptr<const VocabularyTrie> vocabulary)
    : constraint_(std::move(constraint)), vocabulary_(std::move(vocabulary)) {
  Constraint::Automaton& automaton = *constraint_->automaton_;
  for (const std::string& token : automaton.tokens())
    if (vocabulary_->added_id(token) < 0)
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[engine.constraint] the answer must contain the token \"", token,
                      "\", which this tokenizer does not have. Use the chat format of this model."));
  const std::lock_guard held(automaton.lock);
  place_ = std::make_unique<Place>(Place{automaton.start()});
  mask_ = automaton.mask(*place_, vocabulary_);
  if (mask_->num_tokens == 0 && (!mask_->ends || vocabulary_->end_ids().empty()))
    throw Error(ErrorCode::kInvalidArgument,
                "[engine.constraint] no token of this vocabulary begins an answer that is allowed. Use a "
                "tokenizer that has a token for every byte.");
  if (constraint_->make_guard_) guard_ = constraint_->make_guard_();
}

ConstraintCursor::~ConstraintCursor() = default;
ConstraintCursor::ConstraintCursor(ConstraintCursor&&) noexcept = default;
ConstraintCursor& ConstraintCursor::operator=(ConstraintCursor&&) noexcept = default;

bool ConstraintCursor::refuses(int32_t token) const {
  const std::string_view bytes = vocabulary_->bytes(token);
  return guard_ && !bytes.empty() && !guard_->copy()->push(bytes);
}

void ConstraintCursor::push(int32_t token) {
  const std::string_view bytes = vocabulary_->bytes(token);
  if (guard_ && !bytes.empty()) guard_->push(bytes);
  Constraint::Automaton& automaton = *constraint_->automaton_;
  const std::lock_guard held(automaton.lock);
  if (bytes.empty())
    automaton.push_added(*place_, *vocabulary_, token);
  else
    automaton.push(*place_, bytes);
  mask_ = automaton.mask(*place_, vocabulary_);
}

}  // namespace hadal
