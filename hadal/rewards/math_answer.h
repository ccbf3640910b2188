// Are two answers to a question of mathematics the same? By exact arithmetic where that decides, by
// evaluation at fixed points elsewhere; every step is counted against a budget, so that no text takes long.
#pragma once
#include <string_view>

#include "hadal/rewards/answer_text.h"

namespace hadal {

enum class MathVerdict {
  kRight,
  kWrong,
  kUnreadable,    // the prediction is no mathematics that hadal reads
  kBadReference,  // nor is the reference: the sample cannot be scored
  kTooLarge       // the budget ran out: towers of powers, huge numbers
};
const char* name(MathVerdict verdict);  // "right", "wrong", "unreadable", "bad_reference", "too_large"

struct MathOptions {
  AnswerProfile profile = AnswerProfile::kReward;
  int places = 6;                 // decimals that must agree where one side is a rounded decimal
  bool relation_for_set = false;  // an inequality may answer for an interval; else only the other way round
  bool any_names = false;         // f(x) and f(y) are the same
};

// The first of these that can be read as mathematics; none: an empty text.
std::string first_readable(const std::vector<std::string>& candidates);

// `reference` and `prediction`: answers without box or tag. Not symmetric: docs/rewards.md.
MathVerdict judge_math(std::string_view reference, std::string_view prediction,
                       const MathOptions& options = {});

}  // namespace hadal
