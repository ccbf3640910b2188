// Tokens and their bytes, without a heap object per token, and the alphabet that tokenizer.json spells bytes
// in.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hadal/tokenizer/huge_pages.h"

namespace hadal {

// GPT-2's alphabet: each byte has a printable character; space is U+0120. "Ġt" <-> " t".
std::string spell_bytes(std::string_view bytes);
// Writes the bytes to `out`, which has room for spelled.size(). Returns how many, or kNotSpelled if a
// character is outside the alphabet.
inline constexpr size_t kNotSpelled = SIZE_MAX;
size_t unspell_bytes(std::string_view spelled, char* out);

uint64_t hash_bytes(std::string_view bytes);

class Vocabulary {
 public:
  void reserve(size_t tokens, size_t bytes);

  // Adds a token that find() will not know before build_index(). False: the id is taken. REQUIRES: 0 <= id.
  bool append(std::string_view spelled, int32_t id);
  // Indexes what was appended. Returns the id of a token spelled like an earlier one, if there is one.
  std::optional<int32_t> build_index();

  // Tokens by spelling ("Ġt"), or by bytes (" t") of tokens that are spelled in the alphabet.
  std::optional<int32_t> find(std::string_view spelled) const;
  std::optional<int32_t> find_bytes(std::string_view bytes) const;

  // find_bytes of up to kBatch texts, -1 for none: three times as fast, since the cache misses overlap.
  static constexpr size_t kBatch = 64;
  void find_batch(std::span<const std::string_view> wanted, std::span<int32_t> ids) const;

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
  static uint32_t tag(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }
  // Index of the slot that holds these bytes, or of the free one where they belong.
  size_t slot_of(std::string_view bytes, uint64_t hash) const;

  using Pending = std::pair<int32_t, uint64_t>;
  std::string arena_;
  std::vector<Span, HugePageAllocator<Span>> spans_;
  std::vector<Slot, HugePageAllocator<Slot>> slots_;          // open addressing, a power of two
  std::unordered_map<std::string, int32_t> literals_;         // spellings outside the alphabet
  std::vector<Pending, HugePageAllocator<Pending>> pending_;  // appended, not indexed: id and hash
  std::optional<int32_t> same_literal_;
  int64_t count_ = 0;
};

}  // namespace hadal
