// Are two expressions the same number, or the same function of their symbols?
#pragma once
#include "hadal/rewards/math_tree.h"

namespace hadal {

// Exactly where both are rational; to 45 digits where roots, pi or functions are in them; at eight points
// where symbols are. If one was written as a decimal with at least `places` decimals, it may be rounded
// there.
bool equal_numbers(MathTree& tree, int places, int a, int b);

// Is a = c b for a constant c that is not 0 (`positive`: above 0), neither being constant?
bool proportional(MathTree& tree, int a, int b, bool positive);

}  // namespace hadal
