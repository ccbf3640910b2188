// The rewards by rule; each function makes one from its options. docs/rewards.md says what they give.
#pragma once
#include <memory>

#include "hadal/rewards/reward.h"

namespace hadal {

// Judges of an answer, 1 or 0; NaN for a task with another verifier or a reference they cannot read.
std::unique_ptr<Reward> maths_reward(const Json& options);      // verifier "math"
std::unique_ptr<Reward> choice_reward(const Json& options);     // verifier "choice"
std::unique_ptr<Reward> exact_reward(const Json& options);      // verifier "exact"
std::unique_ptr<Reward> countdown_reward(const Json& options);  // verifier "countdown"
// verifier "code": compiled and run in the sandbox, which must be there (throws unsupported). Options scale
// (pass_fail, partial, weighted) and workers (boxes at a time).
std::unique_ptr<Reward> code_reward(const Json& options);
// The judge that the task's verifier names; every verifier among builtin_reward_kinds() is one.
std::unique_ptr<Reward> accuracy_reward(const Json& options);

std::unique_ptr<Reward> format_reward(const Json& options);      // 1 or 0; with style "tags" in quarters
std::unique_ptr<Reward> language_reward(const Json& options);    // 0 to 1: words of the target language
std::unique_ptr<Reward> overlong_reward(const Json& options);    // 0 to -1 (DAPO, soft overlong punishment)
std::unique_ptr<Reward> cosine_reward(const Json& options);      // accuracy, worth less the longer (TRL)
std::unique_ptr<Reward> repetition_reward(const Json& options);  // 0 to the penalty: repeated n-grams (TRL)

}  // namespace hadal
