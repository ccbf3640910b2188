// Queries of a head that attend together, and the keys that any of them sees: those before their documents
// are left out.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace hadal {

// The first key that any of queries [first, end) sees, or one before it at a multiple of `unit`.
// segment_start [S]: the first that each query sees; null: all see the keys from 0 on.
inline int64_t first_key(const int64_t* segment_start, int64_t first, int64_t end, int64_t unit) {
  if (!segment_start) return 0;
  return *std::min_element(segment_start + first, segment_start + end) / unit * unit;
}

// Queries [first, end) and the keys [begin, end).
class QueryBlock {
 public:
  QueryBlock(const int64_t* segment_start, int64_t begin, int64_t first, int64_t n)
      : begin_(begin), first_(first), end_(first + n) {
    for (int64_t i = 0; segment_start && i < n; ++i) starts_.push_back(segment_start[first + i] - begin);
  }
  int64_t begin() const { return begin_; }
  int64_t first() const { return first_; }
  int64_t rows() const { return end_ - first_; }
  int64_t keys() const { return end_ - begin_; }
  // As the kernels ask, counted from `begin` on: the first key of each query, null for 0; how many the first
  // query sees.
  const int64_t* starts() const { return starts_.empty() ? nullptr : starts_.data(); }
  int64_t visible() const { return first_ + 1 - begin_; }

 private:
  int64_t begin_, first_, end_;
  std::vector<int64_t> starts_;
};

}  // namespace hadal
