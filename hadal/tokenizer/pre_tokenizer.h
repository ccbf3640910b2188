// The pre-tokenizer of tokenizer.json: cuts text into the pieces that BPE never merges across.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/tokenizer/regex.h"

namespace hadal {

// What happens to a match; the text between matches is always kept.
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitStep {
  Regex regex;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // the gaps are the matches
};

struct Piece {
  size_t begin, end;
};

// Cuts each piece in turn; empty results vanish.
void split_pieces(const SplitStep& step, std::string_view text, std::vector<Piece>& pieces,
                  uint64_t* steps = nullptr);

struct PreTokenizer {
  std::vector<SplitStep> splits;      // in order
  bool prefix_space = false;          // ByteLevel: then each piece gets a leading space unless it has one
  std::vector<SplitStep> byte_level;  // ByteLevel: and is cut once more by its own pattern (none or one)
  std::vector<std::string> patterns;  // of `splits`, for display

  // The pieces of `text` after `splits`.
  std::vector<Piece> pieces(std::string_view text, uint64_t* steps = nullptr) const;
};

// The pattern of ByteLevel with use_regex (GPT-2's), and the set of Digits.
extern const char* const kByteLevelPattern;
extern const char* const kDigitsPattern;

}  // namespace hadal
