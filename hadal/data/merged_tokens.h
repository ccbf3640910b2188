// Tokens that join punctuation and line breaks, split at random in training data. Torch-free.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "hadal/tokenizer.h"

namespace hadal {

// V3's pre-tokenizer lets punctuation and the line breaks after it become one token (".\n"), so a prompt that
// ends without its line break ends in tokens that training text hardly shows: "token boundary bias". A share
// of such tokens is therefore split in training (V3 report 4.1; the share is not stated).
class MergedTokens {
 public:
  explicit MergedTokens(const Tokenizer& tokenizer);

  // Tokens of the vocabulary that may be split: punctuation or symbols, then carriage returns and line feeds.
  int64_t size() const { return static_cast<int64_t>(parts_.size()); }

  // `ids`, one document, with each such token replaced, with probability `rate`, by the tokens of its
  // punctuation and those of its line breaks: the text stays the same. A function of (ids, rate, seed,
  // document).
  std::vector<int32_t> split(std::vector<int32_t> ids, double rate, uint64_t seed, uint64_t document) const;

 private:
  std::unordered_map<int32_t, std::vector<int32_t>> parts_;
};

}  // namespace hadal
