// A vocabulary as an automaton over bytes sees it. Torch-free, immutable: threads may share it.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "hadal/tokenizer.h"

namespace hadal {

class VocabularyTrie {
 public:
  // Tokens by their bytes, added tokens by their spelling only: markup is never part of a text. end_ids:
  // tokens that end an answer; those outside the vocabulary are passed over.
  VocabularyTrie(const Tokenizer& tokenizer, const std::vector<int64_t>& end_ids);

  // Nodes in the order of a depth-first walk, children behind their parent. The root is not among them.
  struct Node {
    int32_t token = -1;  // whose bytes end here
    uint32_t after = 0;  // the next node that is not below this one
    uint16_t depth = 0;  // 0: a first byte
    uint8_t byte = 0;
  };
  const std::vector<Node>& nodes() const { return nodes_; }

  // Plain tokens: up to 16 whole UTF-8 characters, none of them a control character, a quote or a backslash.
  // They are nearly all, and where a grammar takes any such text they need no walk, only their bits; then the
  // nodes of the others do.
  static constexpr int64_t kPlainCharacters = 16;
  const std::vector<uint64_t>& plain_bits() const { return plain_bits_; }
  int64_t num_plain() const { return num_plain_; }
  const std::vector<Node>& nodes_of_others() const { return nodes_of_others_; }

  const std::vector<int32_t>& end_ids() const { return end_ids_; }
  int64_t size() const { return size_; }  // tokens, holes too: bits of a mask
  // What a token adds to a text; empty for added tokens and holes.
  std::string_view bytes(int32_t id) const;
  int32_t added_id(std::string_view spelling) const;  // -1: no such added token

 private:
  std::vector<Node> build(const std::vector<int32_t>& sorted_ids) const;

  std::vector<Node> nodes_, nodes_of_others_;
  std::vector<uint64_t> plain_bits_;
  int64_t num_plain_ = 0;
  std::string arena_;
  std::vector<std::pair<uint32_t, uint32_t>> spans_;  // of each id in arena_: begin, length
  std::unordered_map<std::string, int32_t> added_;
  std::vector<int32_t> end_ids_;
  int64_t size_;
};

}  // namespace hadal
