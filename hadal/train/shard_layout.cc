#include "hadal/train/shard_layout.h"

namespace hadal {

ShardLayout::ShardLayout(std::span<const int64_t> sizes, int64_t ranks, std::span<const int64_t> rows,
                         int64_t block)
    : sizes_(sizes.begin(), sizes.end()),
      parts_(static_cast<size_t>(ranks)),
      flat_sizes_(static_cast<size_t>(ranks)) {
  int64_t total = 0, before = 0;
  for (const int64_t size : sizes) total += size;
  for (size_t t = 0; t < sizes.size(); ++t)
    for_each_block(0, sizes[t], rows.empty() ? sizes[t] : rows[t], block, [&](int64_t begin, int64_t size) {
      // The rank in whose share the block's middle lies.
      const int64_t rank = std::min(ranks - 1, (before + size / 2) * ranks / total);
      before += size;
      std::vector<Part>& parts = parts_[static_cast<size_t>(rank)];
      const auto tensor = static_cast<int64_t>(t);
      if (!parts.empty() && parts.back().tensor == tensor) {
        parts.back().end = begin + size;
      } else {
        parts.push_back({tensor, begin, begin + size, 0});
      }
    });
  for (size_t r = 0; r < parts_.size(); ++r)
    for (Part& part : parts_[r]) {
      part.offset = flat_sizes_[r];
      flat_sizes_[r] += (part.size() + 15) / 16 * 16;
    }
}

}  // namespace hadal
