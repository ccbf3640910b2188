// Rewards that models give, beside those by rule: parts of a RewardSet as any other. Torch-free.
#pragma once
#include "hadal/rewards/reward.h"

namespace hadal {

// builtin_reward_kinds() and
//   "rm"      {path, normalise = 1}    a reward model's score of prompt, reasoning and answer, in deviations
//                                      from its mean; normalise 0: as it is. NaN if it is too long for it
//   "judge"   {path, votes = 4, temperature = 1, max_tokens = 256}
//             what judgements of the model in `path` say together. A task with the verifier "genrm" and an
//             answer: 1 if most say that it matches, else 0; other tasks: (mean score - 5.5) / 4.5, from -1
//             to
//             1. NaN if none of them is valid, or as many say yes as no
//   "verdict" {}                       of a judge in training (verifier "verdict"): 1 if the answer is a
//   valid
//                                      judgement and right, else -1
// Models are opened when a reward is made; `threads` as in RewardModel::open(). One answer is scored at a
// time.
RewardKinds reward_kinds(int threads);

}  // namespace hadal
