// Which keys of many: what an indexer's scores come to.
#pragma once
#include <cstdint>

namespace hadal {

// chosen [k]: the positions of the k largest of n > k scores, ascending; of equal scores the lower positions.
// NaN counts as -infinity. order [n] is scratch.
void choose_keys(const float* score, int64_t n, int64_t k, float* order, int32_t* chosen);

}  // namespace hadal
