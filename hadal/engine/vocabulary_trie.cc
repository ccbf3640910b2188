#include "hadal/engine/vocabulary_trie.h"

#include <algorithm>

namespace hadal {
namespace {

constexpr size_t kMaxTokenBytes = 4096;  // longer ones are never chosen under a constraint

}  // namespace

VocabularyTrie::VocabularyTrie(const Tokenizer& tokenizer, const std::vector<int64_t>& end_ids)
    : spans_(static_cast<size_t>(tokenizer.vocab_size())), size_(tokenizer.vocab_size()) {
  for (const int64_t id : end_ids)
    if (id >= 0 && id < size_) end_ids_.push_back(static_cast<int32_t>(id));
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < size_; ++id) {
    if (!tokenizer.is_token(id)) continue;
    if (tokenizer.is_added(id)) {
      added_.emplace(tokenizer.token(id), id);
      continue;
    }
    if (std::find(end_ids_.begin(), end_ids_.end(), id) != end_ids_.end()) continue;
    const std::string bytes = tokenizer.token_bytes(id);
    if (bytes.empty() || bytes.size() > kMaxTokenBytes) continue;
    spans_[static_cast<size_t>(id)] = {static_cast<uint32_t>(arena_.size()),
                                       static_cast<uint32_t>(bytes.size())};
    arena_ += bytes;
    ids.push_back(id);
  }
  build(std::move(ids));
}

std::string_view VocabularyTrie::bytes(int32_t id) const {
  if (id < 0 || id >= size_) return {};
  const auto& [begin, length] = spans_[static_cast<size_t>(id)];
  return std::string_view(arena_).substr(begin, length);
}

int32_t VocabularyTrie::added_id(std::string_view spelling) const {
  const auto found = added_.find(std::string(spelling));
  return found == added_.end() ? -1 : found->second;
}

// Sorted by bytes, tokens come in the order of the walk. Of tokens with equal bytes each has a last node.
void VocabularyTrie::build(std::vector<int32_t> ids) {
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    const int order = bytes(a).compare(bytes(b));
    return order != 0 ? order < 0 : a < b;
  });
  std::vector<uint32_t> path;  // nodes of the token before
  std::string_view before;
  const auto leave = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back())
      nodes_[path.back()].after = static_cast<uint32_t>(nodes_.size());
  };
  for (const int32_t id : ids) {
    const std::string_view text = bytes(id);
    const auto differs = std::mismatch(text.begin(), text.end(), before.begin(), before.end()).first;
    leave(std::min(static_cast<size_t>(differs - text.begin()), text.size() - 1));
    for (size_t i = path.size(); i < text.size(); ++i) {
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({.depth = static_cast<uint16_t>(i), .byte = static_cast<uint8_t>(text[i])});
    }
    nodes_.back().token = id;
    max_depth_ = std::max(max_depth_, static_cast<int64_t>(text.size()));
    before = text;
  }
  leave(0);
}

}  // namespace hadal
