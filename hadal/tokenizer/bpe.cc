#include "hadal/tokenizer/bpe.h"

#include <queue>

namespace hadal {
namespace {

constexpr size_t kShort = 40;  // up to here a scan for the best pair beats a heap

// Repeatedly merges the first pair of lowest rank. n^2, for short pieces.
void merge_short(const MergeTable& merges, std::array<int32_t, kShort>& ids, size_t n,
                 std::vector<int32_t>& out) {
  std::array<MergeTable::Merge, kShort> pair;  // pair[i]: merge of ids[i], ids[i + 1]
  for (size_t i = 0; i + 1 < n; ++i) pair[i] = merges.find(ids[i], ids[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (pair[i].rank < pair[best].rank) best = i;
    if (pair[best].rank == MergeTable::kNone) break;
    ids[best] = pair[best].id;
    for (size_t i = best + 1; i + 1 < n; ++i) ids[i] = ids[i + 1];
    for (size_t i = best + 1; i + 2 < n; ++i) pair[i] = pair[i + 1];
    --n;
    if (best > 0) pair[best - 1] = merges.find(ids[best - 1], ids[best]);
    if (best + 1 < n) pair[best] = merges.find(ids[best], ids[best + 1]);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n));
}

struct Candidate {
  uint32_t rank;
  uint32_t at;  // index of the left symbol
  int32_t left, right, merged;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : at > other.at;
  }
};

struct Symbol {
  int32_t id;
  uint32_t previous, next;
};

// A linked list of symbols and a heap of pairs; entries whose pair has changed meanwhile are skipped.
void merge_long(const MergeTable& merges, std::vector<Symbol>& symbols, std::vector<int32_t>& out) {
  const auto end = static_cast<uint32_t>(symbols.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap;
  const auto consider = [&](uint32_t at) {
    if (at == end || symbols[at].next == end) return;
    const int32_t left = symbols[at].id, right = symbols[symbols[at].next].id;
    const auto merge = merges.find(left, right);
    if (merge.rank != MergeTable::kNone) heap.push({merge.rank, at, left, right, merge.id});
  };
  for (uint32_t i = 0; i < end; ++i) consider(i);
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    Symbol& left = symbols[best.at];
    if (left.id != best.left || left.next == end || symbols[left.next].id != best.right) continue;
    symbols[left.next].id = -1;  // gone
    left.id = best.merged;
    left.next = symbols[left.next].next;
    if (left.next != end) symbols[left.next].previous = best.at;
    consider(best.at);
    consider(left.previous);
  }
  for (uint32_t i = 0; i != end; i = symbols[i].next) out.push_back(symbols[i].id);
}

}  // namespace

void MergeTable::reserve(size_t merges) {
  size_t slots = 4;
  while (slots < 2 * merges) slots *= 2;
  slots_.assign(slots, Slot{});
}

void MergeTable::set(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = key_of(left, right);
  slots_[slot_of(key)] = {key, merge};
}

void bpe_encode(const MergeTable& merges, const std::array<int32_t, 256>& byte_ids, std::string_view piece,
                std::vector<int32_t>& out) {
  if (piece.size() <= kShort) {
    std::array<int32_t, kShort> ids;
    size_t n = 0;
    for (const char c : piece)
      if (const int32_t id = byte_ids[static_cast<unsigned char>(c)]; id >= 0) ids[n++] = id;
    merge_short(merges, ids, n, out);
    return;
  }
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (const char c : piece)
    if (const int32_t id = byte_ids[static_cast<unsigned char>(c)]; id >= 0) symbols.push_back({id, 0, 0});
  const auto end = static_cast<uint32_t>(symbols.size());
  for (uint32_t i = 0; i < end; ++i) {
    symbols[i].previous = i == 0 ? end : i - 1;
    symbols[i].next = i + 1;
  }
  merge_long(merges, symbols, out);
}

}  // namespace hadal
