// Byte-pair encoding of one piece: merges by rank, leftmost first among equals. O(n log n) in the piece.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "hadal/tokenizer/huge_pages.h"

namespace hadal {

// (left id, right id) -> (rank, merged id); flat, open addressing.
class MergeTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Merge {
    uint32_t rank = kNone;
    int32_t id = -1;
  };

  void reserve(size_t merges);
  // A pair that is there already gets the new rank, as in HF. REQUIRES: at most the reserved number of pairs.
  void set(int32_t left, int32_t right, Merge merge);
  Merge find(int32_t left, int32_t right) const { return slots_[slot_of(key_of(left, right))].merge; }
  void prefetch(int32_t left, int32_t right) const {
    __builtin_prefetch(&slots_[hash(key_of(left, right)) & (slots_.size() - 1)], 1);
  }

 private:
  struct Slot {
    uint64_t key = UINT64_MAX;
    Merge merge;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  static uint64_t hash(uint64_t key) {
    key *= 0x9E3779B97F4A7C15;
    return key ^ key >> 32;
  }
  size_t slot_of(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    for (size_t i = hash(key) & mask;; i = (i + 1) & mask)
      if (slots_[i].key == key || slots_[i].key == UINT64_MAX) return i;
  }
  std::vector<Slot, HugePageAllocator<Slot>> slots_ = decltype(slots_)(4);
};

// Appends the ids of `piece` to `out`. byte_ids: the token of each byte, -1 for none (such bytes vanish, as
// in HF).
void bpe_encode(const MergeTable& merges, const std::array<int32_t, 256>& byte_ids, std::string_view piece,
                std::vector<int32_t>& out);

}  // namespace hadal
