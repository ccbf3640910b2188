// Tokens and their bytes, without a heap object per token, and the alphabet that tokenizer.json spells bytes
// in.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace hadal {

// GPT-2's alphabet: each byte has a printable character; space is U+0120. "Ġt" <-> " t".
std::string spell_bytes(std::string_view bytes);
// The bytes, or nothing if a character is outside the alphabet. `out` is overwritten.
bool unspell_bytes(std::string_view spelled, std::string& out);

uint64_t hash_bytes(std::string_view bytes);

class Vocabulary {
 public:
  void reserve(size_t tokens, size_t bytes);

  enum class Added { kOk, kSameSpelling, kSameId };
  // REQUIRES: 0 <= id.
  Added add(std::string_view spelled, int32_t id);

  // Tokens by spelling ("Ġt"), or by bytes (" t") of tokens that are spelled in the alphabet.
  std::optional<int32_t> find(std::string_view spelled) const;
  std::optional<int32_t> find_bytes(std::string_view bytes) const;

  int64_t size() const { return static_cast<int64_t>(spans_.size()); }  // largest id + 1
  int64_t count() const { return count_; }
  bool has(int64_t id) const {
    return id >= 0 && id < size() && spans_[static_cast<size_t>(id)].begin != kHole;
  }
  // What the token adds to a text: its bytes, or its spelling if that is not in the alphabet. REQUIRES:
  // has(id).
  std::string_view bytes(int32_t id) const {
    const Span& span = spans_[static_cast<size_t>(id)];
    return std::string_view(arena_).substr(span.begin, span.length);
  }
  std::string spelling(int32_t id) const;

 private:
  static constexpr uint32_t kHole = UINT32_MAX;
  struct Span {
    uint32_t begin = kHole;
    uint32_t length : 31 = 0;
    uint32_t literal : 1 = 0;  // spelled outside the alphabet: bytes are the spelling
  };
  struct Slot {
    uint32_t tag = 0, id_plus_one = 0;
  };
  void grow(size_t slots);
  Slot* slot_of(std::string_view bytes, uint64_t hash);

  std::string arena_;
  std::vector<Span> spans_;
  std::vector<Slot> slots_;                            // open addressing, a power of two
  std::unordered_map<std::string, int32_t> literals_;  // spellings outside the alphabet
  int64_t count_ = 0;
  std::string scratch_;
};

}  // namespace hadal
