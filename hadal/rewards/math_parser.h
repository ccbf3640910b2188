// Tokens of an answer to its expression.
#pragma once
#include <vector>

#include "hadal/rewards/math_lexer.h"
#include "hadal/rewards/math_tree.h"

namespace hadal {

// Reads one answer into the tree: an expression, relation, tuple, set, interval ... or a list of them. Throws
// MathUnreadable, MathTooLarge.
int parse_math(std::vector<MathToken> tokens, AnswerProfile profile, MathTree& tree);

// Is this what an answer is called, "x", "f(x)", "AB", "|AB|", "(x, y)", "A : B", rather than a value? It has
// letters, and no numbers and no sum.
bool is_math_name(const MathTree& tree, int id);

}  // namespace hadal
