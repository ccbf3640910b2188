// Added tokens: texts that become one id before the split patterns see anything.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

// One entry of tokenizer.json's added_tokens.
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;      // decode can skip it
  bool normalized = false;   // looked for after those that are not (there is no normalizer to do more)
  bool lstrip = false;       // swallows white space before it
  bool rstrip = false;       // and after it
  bool single_word = false;  // only if no word character touches it
};

// A stretch of text: one added token, or plain text (id -1).
struct Segment {
  size_t begin, end;
  int32_t id;
};

// A prefix tree over bytes that finds the leftmost, then longest token.
class TokenTrie {
 public:
  void add(std::string_view content, int32_t token);
  // The longest token that starts at text[at], or -1.
  int32_t longest_at(std::string_view text, size_t at) const;
  bool starts(char byte) const { return roots_[static_cast<unsigned char>(byte)] >= 0; }
  bool empty() const { return nodes_.empty(); }

 private:
  struct Node {
    char byte;
    int32_t child = -1, sibling = -1, token = -1;
  };
  std::array<int32_t, 256> roots_ = [] {
    std::array<int32_t, 256> none;
    none.fill(-1);
    return none;
  }();
  std::vector<Node> nodes_;
};

class AddedTokens {
 public:
  void add(AddedToken token);
  const std::vector<AddedToken>& tokens() const { return tokens_; }  // in file order

  // Cuts `text` at every token: first those with normalized = false, then the others in what is left between.
  std::vector<Segment> split(std::string_view text) const;

 private:
  void split(const TokenTrie& trie, std::string_view text, size_t offset, std::vector<Segment>& out) const;
  std::vector<AddedToken> tokens_;
  TokenTrie raw_, normalized_;
};

}  // namespace hadal
