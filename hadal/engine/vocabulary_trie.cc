#include "hadal/engine/vocabulary_trie.h"

#include <algorithm>

#include "hadal/base/text.h"

namespace hadal {
namespace {

constexpr size_t kMaxTokenBytes = 4096;  // longer ones are never chosen under a constraint

bool is_plain(std::string_view text) {
  const auto characters = std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
  return characters <= VocabularyTrie::kPlainCharacters && is_utf8(text) &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\'; });
}

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
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    const int order = this->bytes(a).compare(this->bytes(b));
    return order != 0 ? order < 0 : a < b;
  });
  nodes_ = build(ids);
  plain_bits_.resize(static_cast<size_t>(size_ + 63) / 64, 0);
  std::erase_if(ids, [&](int32_t id) {
    if (!is_plain(this->bytes(id))) return false;
    plain_bits_[static_cast<size_t>(id / 64)] |= uint64_t{1} << id % 64;
    ++num_plain_;
    return true;
  });
  nodes_of_others_ = build(ids);
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
std::vector<VocabularyTrie::Node> VocabularyTrie::build(const std::vector<int32_t>& sorted_ids) const {
  std::vector<Node> nodes;
  std::vector<uint32_t> path;  // nodes of the token before
  std::string_view before;
  const auto leave = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back())
      nodes[path.back()].after = static_cast<uint32_t>(nodes.size());
  };
  for (const int32_t id : sorted_ids) {
    const std::string_view text = bytes(id);
    const auto differs = std::mismatch(text.begin(), text.end(), before.begin(), before.end()).first;
    leave(std::min(static_cast<size_t>(differs - text.begin()), text.size() - 1));
    for (size_t i = path.size(); i < text.size(); ++i) {
      path.push_back(static_cast<uint32_t>(nodes.size()));
      nodes.push_back({.depth = static_cast<uint16_t>(i), .byte = static_cast<uint8_t>(text[i])});
    }
    nodes.back().token = id;
    before = text;
  }
  leave(0);
  return nodes;
}

}  // namespace hadal
