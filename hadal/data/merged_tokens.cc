#include "hadal/data/merged_tokens.h"

#include <string>

#include "hadal/base/random.h"
#include "hadal/data/document_forms.h"
#include "hadal/tokenizer/unicode.h"

namespace hadal {
namespace {

// Blanks, if any, then nothing but punctuation and symbols.
bool is_punctuation(std::string_view text) {
  static const KindMask kinds = *kinds_of_category("P") | *kinds_of_category("S");
  size_t at = text.find_first_not_of(' ');
  if (at >= text.size()) return false;
  while (at < text.size()) {
    const Utf8Char character = utf8_at(text, at);
    if (!(bit(char_kind(character.code)) & kinds)) return false;
    at += character.length;
  }
  return true;
}

bool is_utf8(std::string_view text) {
  std::string valid;
  return append_lossy_utf8(valid, text) == 0 && valid == text;
}

}  // namespace

MergedTokens::MergedTokens(const Tokenizer& tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_token(id) || tokenizer.is_special(id)) continue;
    const std::string bytes = tokenizer.token_bytes(id);
    const size_t end = bytes.find_last_not_of("\r\n") + 1;
    const std::string marks = bytes.substr(0, end), breaks = bytes.substr(end);
    if (marks.empty() || breaks.empty() || !is_utf8(bytes) || !is_punctuation(marks)) continue;
    std::vector<int32_t> parts = tokenizer.encode(marks, /*parse_special=*/false);
    for (const int32_t part : tokenizer.encode(breaks, /*parse_special=*/false)) parts.push_back(part);
    std::string whole;
    for (const int32_t part : parts) whole += tokenizer.token_bytes(part);
    if (whole == bytes) parts_[id] = parts;
  }
}

std::vector<int32_t> MergedTokens::split(std::vector<int32_t> ids, double rate, uint64_t seed,
                                         uint64_t document) const {
  if (rate <= 0 || parts_.empty()) return ids;
  const uint64_t stream = substream(stream_id("data.split_merged"), document);
  std::vector<int32_t> out;
  out.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto found = parts_.find(ids[i]);
    if (found != parts_.end() && uniform(seed, stream, i) <= rate)
      out.insert(out.end(), found->second.begin(), found->second.end());
    else
      out.push_back(ids[i]);
  }
  return out;
}

}  // namespace hadal
