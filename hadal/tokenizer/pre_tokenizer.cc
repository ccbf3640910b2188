#include "hadal/tokenizer/pre_tokenizer.h"

#include <algorithm>

namespace hadal {

const char* const kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// Rust's numeric characters are of Unicode 17: one digit block and three signs newer than the tables.
const char* const kDigitsPattern = R"([\p{N}\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6}])";

namespace {

struct Part {
  Piece piece;
  bool match;
};

void merge_parts(SplitBehavior behavior, std::vector<Part>& parts, std::vector<Piece>& out) {
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  const size_t first = out.size();
  bool previous_match = false;
  for (const Part& part : parts) {
    const bool merge =
        behavior == SplitBehavior::kContiguous ? part.match == previous_match : part.match && !previous_match;
    previous_match = part.match;
    if (!merge || out.size() == first)
      out.push_back(part.piece);
    else if (backwards)
      out.back().begin = part.piece.begin;
    else
      out.back().end = part.piece.end;
  }
  if (backwards) std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
}

}  // namespace

void split_pieces(const SplitStep& step, std::string_view text, std::vector<Piece>& pieces, uint64_t* steps) {
  std::vector<Piece> out;
  out.reserve(pieces.size());
  std::vector<Regex::Match> matches;
  std::vector<Part> parts;
  for (const Piece& piece : pieces) {
    matches.clear();
    step.regex.find_all(text.substr(piece.begin, piece.end - piece.begin), matches, steps);
    if (matches.empty() && !step.invert) {
      out.push_back(piece);
      continue;
    }
    parts.clear();
    size_t done = piece.begin;
    for (const Regex::Match& match : matches) {
      const Piece found{piece.begin + match.begin, piece.begin + match.end};
      if (done < found.begin) parts.push_back({{done, found.begin}, step.invert});
      parts.push_back({found, !step.invert});
      done = found.end;
    }
    if (done < piece.end) parts.push_back({{done, piece.end}, step.invert});
    if (step.behavior == SplitBehavior::kIsolated || step.behavior == SplitBehavior::kRemoved) {
      for (const Part& part : parts)
        if (!part.match || step.behavior == SplitBehavior::kIsolated) out.push_back(part.piece);
    } else {
      merge_parts(step.behavior, parts, out);
    }
  }
  std::erase_if(out, [](const Piece& piece) { return piece.begin == piece.end; });
  pieces = std::move(out);
}

std::vector<Piece> PreTokenizer::pieces(std::string_view text, uint64_t* steps) const {
  if (text.empty()) return {};
  std::vector<Piece> all{{0, text.size()}};
  for (const SplitStep& step : splits) split_pieces(step, text, all, steps);
  return all;
}

}  // namespace hadal
