#include "hadal/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "hadal/tokenizer/unicode.h"

namespace hadal {
namespace {

// The \w of single_word: not the Latin-1 fractions, but the joiners.
bool is_word(uint32_t code) {
  constexpr KindMask kKinds = kWordKinds & ~bit(CharKind::kNoWord);
  return (kKinds >> static_cast<int>(char_kind(code)) & 1) || code == 0x200C || code == 0x200D;
}

bool is_space(uint32_t code) {
  return kSpaceKinds >> static_cast<int>(char_kind(code)) & 1;
}

bool word_touches(std::string_view text, size_t begin, size_t end) {
  return (begin > 0 && is_word(utf8_at(text, utf8_before(text, begin)).code)) ||
         (end < text.size() && is_word(utf8_at(text, end).code));
}

}  // namespace

void TokenTrie::add(std::string_view content, int32_t token) {
  int32_t node = -1;
  for (const char byte : content) {
    int32_t* link =
        node < 0 ? &roots_[static_cast<unsigned char>(byte)] : &nodes_[static_cast<size_t>(node)].child;
    while (*link >= 0 && nodes_[static_cast<size_t>(*link)].byte != byte)
      link = &nodes_[static_cast<size_t>(*link)].sibling;
    if (*link < 0) {
      *link = static_cast<int32_t>(nodes_.size());  // before push_back moves what link points to
      node = *link;
      nodes_.push_back({byte});
    } else {
      node = *link;
    }
  }
  if (node >= 0) nodes_[static_cast<size_t>(node)].token = token;
}

int32_t TokenTrie::longest_at(std::string_view text, size_t at) const {
  int32_t best = -1;
  int32_t node = roots_[static_cast<unsigned char>(text[at])];
  while (node >= 0) {
    const Node& here = nodes_[static_cast<size_t>(node)];
    if (here.token >= 0) best = here.token;
    if (++at == text.size()) break;
    node = here.child;
    while (node >= 0 && nodes_[static_cast<size_t>(node)].byte != text[at])
      node = nodes_[static_cast<size_t>(node)].sibling;
  }
  return best;
}

void AddedTokens::add(AddedToken token) {
  const auto index = static_cast<int32_t>(tokens_.size());
  (token.normalized ? normalized_ : raw_).add(token.content, index);
  tokens_.push_back(std::move(token));
}

std::vector<Segment> AddedTokens::split(std::string_view text) const {
  std::vector<Segment> first, all;
  split(raw_, text, 0, first);
  if (normalized_.empty()) return first;
  for (const Segment& segment : first) {
    if (segment.id >= 0)
      all.push_back(segment);
    else
      split(normalized_, text.substr(segment.begin, segment.end - segment.begin), segment.begin, all);
  }
  return all;
}

void AddedTokens::split(const TokenTrie& trie, std::string_view text, size_t offset,
                        std::vector<Segment>& out) const {
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const int32_t index = trie.starts(text[at]) ? trie.longest_at(text, at) : -1;
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = at, end = at + token.content.size();
    at = end;  // a refused match is passed over whole, as in HF
    if (token.single_word && word_touches(text, begin, end)) continue;
    if (token.lstrip) {
      while (begin > done && is_space(utf8_at(text, utf8_before(text, begin)).code))
        begin = utf8_before(text, begin);
      begin = std::max(begin, done);  // `done` is beyond it if the token before swallowed this one
    }
    if (token.rstrip)
      while (end < text.size() && is_space(utf8_at(text, end).code)) end += utf8_at(text, end).length;
    if (done < begin) out.push_back({offset + done, offset + begin, -1});
    if (begin < end) out.push_back({offset + begin, offset + end, token.id});
    done = end;
  }
  if (done < text.size()) out.push_back({offset + done, offset + text.size(), -1});
}

}  // namespace hadal
