// Tokens by id and by spelling, without a heap object per token, and the alphabet that tokenizer.json spells
// bytes in.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hadal/tokenizer/huge_pages.h"

namespace hadal {

// GPT-2's alphabet: each byte has a printable character; space is U+0120. "Ġt" <-> " t".
std::string spell_bytes(std::string_view bytes);
// Appends the bytes that `spelled` stands for; false, with `out` as it was, if a character is outside the
// alphabet.
bool append_spelled(std::string& out, std::string_view spelled);

uint64_t hash_bytes(std::string_view bytes);

class Vocabulary {
 public:
  void reserve(size_t tokens, size_t bytes);

  // Adds a token that find() will not know before build_index(). False: the id is taken. REQUIRES: 0 <= id.
  bool append(std::string_view spelled, int32_t id);
  // Indexes what was appended. Returns the id of a token spelled like an earlier one, if there is one.
  std::optional<int32_t> build_index();

  std::optional<int32_t> find(std::string_view spelled) const;  // "Ġt"
  // find() of up to kBatch spellings, -1 for none; several times as fast, since the cache misses overlap.
  static constexpr size_t kBatch = 64;
  void find_batch(std::span<const std::string_view> spelled, std::span<int32_t> ids) const;

  int64_t size() const { return static_cast<int64_t>(spans_.size()); }  // largest id + 1
  int64_t count() const { return count_; }
  bool has(int64_t id) const {
    return id >= 0 && id < size() && spans_[static_cast<size_t>(id)].begin != kHole;
  }
  std::string_view spelling(int32_t id) const {  // REQUIRES: has(id)
    const Span& span = spans_[static_cast<size_t>(id)];
    return std::string_view(arena_).substr(span.begin, span.length);
  }
  // Appends what the token adds to a text: its bytes, or its spelling if that is not in the alphabet, as in
  // HF. REQUIRES: has(id).
  void append_bytes(std::string& out, int32_t id) const {
    if (!append_spelled(out, spelling(id))) out += spelling(id);
  }

 private:
  static constexpr uint32_t kHole = UINT32_MAX;
  struct Span {
    uint32_t begin = kHole, length = 0;
  };
  struct Slot {
    uint32_t tag = 0, id_plus_one = 0;
  };
  static uint32_t tag(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }
  // Index of the slot that holds this spelling, or of the free one where it belongs.
  size_t slot_of(std::string_view spelled, uint64_t hash) const;
  void grow_index();

  using Pending = std::pair<int32_t, uint64_t>;
  std::string arena_;
  std::vector<Span, HugePageAllocator<Span>> spans_;
  std::vector<Slot, HugePageAllocator<Slot>> slots_;          // open addressing, a power of two
  std::vector<Pending, HugePageAllocator<Pending>> pending_;  // appended, not indexed: id and hash
  int64_t count_ = 0;
};

}  // namespace hadal
