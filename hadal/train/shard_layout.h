// Who updates which weights when the optimizer's state is shared out over ranks (ZeRO-1, training spec 12).
// Torch-free.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace hadal {

// Of the norm's partial sums and of the cuts between ranks: the sum of squares of a tensor is that of its
// blocks in order, whoever took which. A block ends where an expert does, for others may be elsewhere.
constexpr int64_t kShardBlock = int64_t{1} << 14;

// f(first, size) for each block of elements [begin, end), of which every `row`-th begins a row.
void for_each_block(int64_t begin, int64_t end, int64_t row, int64_t block, auto&& f) {
  for (int64_t at = begin; at < end;) {
    const int64_t row_end = (at / row + 1) * row, next = std::min({at + block, row_end, end});
    f(at, next - at);
    at = next;
  }
}

class ShardLayout {
 public:
  // Elements [begin, end) of tensor `tensor`; they stand at `offset` in the rank's flat buffer.
  struct Part {
    int64_t tensor, begin, end, offset;
    int64_t size() const { return end - begin; }
  };

  // Contiguous shares of all elements in the tensors' order, as equal as cuts between blocks allow.
  // rows[t]: elements of a row of tensor t, where blocks end too; empty: a tensor is one.
  ShardLayout(std::span<const int64_t> sizes, int64_t ranks, std::span<const int64_t> rows = {},
              int64_t block = kShardBlock);

  int64_t ranks() const { return static_cast<int64_t>(parts_.size()); }
  const std::vector<Part>& parts(int64_t rank) const { return parts_[static_cast<size_t>(rank)]; }
  int64_t num_tensors() const { return static_cast<int64_t>(sizes_.size()); }
  int64_t tensor_size(int64_t tensor) const { return sizes_[static_cast<size_t>(tensor)]; }
  // Of the rank's flat buffer, in elements; parts begin at multiples of 16.
  int64_t flat_size(int64_t rank) const { return flat_sizes_[static_cast<size_t>(rank)]; }

 private:
  std::vector<int64_t> sizes_;
  std::vector<std::vector<Part>> parts_;
  std::vector<int64_t> flat_sizes_;
};

}  // namespace hadal
