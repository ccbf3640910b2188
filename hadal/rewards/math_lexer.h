// The words of an answer: LaTeX or plain text without its spacing, styles and currency signs.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "hadal/rewards/answer_text.h"
#include "hadal/rewards/math_tree.h"

namespace hadal {

enum class MathTokenKind {
  kEnd,
  kNumber,     // text: digits without separators of thousands, "12.5"; value
  kWord,       // a run of letters of plain text, "xy", "cm", "sin"
  kName,       // one symbol: "\alpha", "R" of \mathbb{R} (text "\R")
  kText,       // content of \text{}
  kCommand,    // "frac", "sqrt", "binom", "begin", "end", "function" (value in text after a colon)
  kMark,       // operators and brackets: "+", "<=", "\{", "cup" ...
  kSeparator,  // "," ";" or "and", "or" (text ",")
  kRow,        // "\\" in a matrix
};

struct MathToken {
  MathTokenKind kind = MathTokenKind::kEnd;
  std::string text;
  Rational value = 0;    // kNumber
  bool decimal = false;  // kNumber: has a point
  bool spaced = false;   // white space before it
};

// Ends with kEnd. Throws MathUnreadable for "...", an unknown byte; MathTooLarge for a number of too many
// digits.
std::vector<MathToken> read_math_tokens(std::string_view text, AnswerProfile profile);

// The tokens without spaces, small letters if it is one word: for answers that are no mathematics.
std::string bare_math_text(const std::vector<MathToken>& tokens);

}  // namespace hadal
