// Sets of real numbers as pieces between two ends: intervals, points, unions of them, what an inequality
// says.
#pragma once
#include <optional>
#include <vector>

#include "hadal/rewards/math_tree.h"

namespace hadal {

// From low to high. The ends are nodes of the tree; what they are worth decides the order.
struct MathPiece {
  int low = -1, high = -1;
  long double low_value = 0, high_value = 0;  // may be infinite
  bool low_closed = false, high_closed = false;
};
using MathPieces = std::vector<MathPiece>;

// Intervals, sets of numbers, unions, intersections and differences of them, in order and joined where they
// touch. None: something else, or ends without a real value.
std::optional<MathPieces> pieces_of_set(MathTree& tree, int id);

// The numbers that an inequality lets its one name be: "x < 3", "1 <= |z| < 2", "0 < f(x) < 1", "x != 2".
std::optional<MathPieces> pieces_of_relation(MathTree& tree, int id);

}  // namespace hadal
