#include "hadal/posttrain/chat_rows.h"

#include <algorithm>
#include <numeric>

#include "hadal/base/check.h"
#include "hadal/data/packed_rows.h"
#include "hadal/data/permutation.h"

namespace hadal {

ChatRows::ChatRows(std::vector<TrainedTokens> samples, int64_t length, int64_t extra, uint64_t seed)
    : samples_(std::move(samples)), length_(length), extra_(extra), seed_(seed) {
  std::vector<uint32_t> order(samples_.size());
  std::iota(order.begin(), order.end(), 0);
  const auto size = [&](uint32_t i) { return std::ssize(samples_[i].ids); };
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return size(a) > size(b); });
  std::vector<int64_t> sizes;
  for (const uint32_t i : order) sizes.push_back(size(i));
  HADAL_CHECK(sizes.empty() || (sizes.front() <= length + 1 && sizes.back() > 0)) << sizes.front();
  const std::vector<uint32_t> bin = best_fit_decreasing(sizes, length + 1);
  for (size_t k = 0; k < order.size(); ++k) {
    if (bin[k] >= bins_.size()) bins_.resize(bin[k] + 1);
    bins_[bin[k]].push_back(order[k]);
  }
}

double ChatRows::filled() const {
  int64_t tokens = 0;
  for (const TrainedTokens& sample : samples_) tokens += std::ssize(sample.ids);
  const int64_t places = rows_per_epoch() * (length_ + 1);
  return places > 0 ? static_cast<double>(tokens) / static_cast<double>(places) : 0;
}

void ChatRows::fill(int64_t bin, int64_t row, ChatRowBatch& out) const {
  const int64_t X = out.length;
  int64_t at = row * X;
  for (const uint32_t i : bins_[static_cast<size_t>(bin)]) {
    const TrainedTokens& sample = samples_[i];
    std::copy(sample.ids.begin(), sample.ids.end(), out.ids.begin() + at);
    std::copy(sample.trained.begin(), sample.trained.end(), out.trained.begin() + at);
    const int64_t end = at + std::ssize(sample.ids);
    std::fill(out.segment_start.begin() + at, out.segment_start.begin() + end,
              static_cast<int32_t>(at - row * X));
    at = end;
  }
  for (; at < (row + 1) * X; ++at)
    out.segment_start[static_cast<size_t>(at)] = static_cast<int32_t>(at - row * X);
}

ChatRowBatch ChatRows::empty_rows(int64_t n) const {
  ChatRowBatch out{.rows = n, .length = length_ + 1 + extra_};
  const auto places = static_cast<size_t>(n * out.length);
  out.ids.resize(places), out.segment_start.resize(places), out.trained.resize(places);
  return out;
}

ChatRowBatch ChatRows::read_plain(int64_t first, int64_t n) const {
  ChatRowBatch out = empty_rows(n);
  for (int64_t i = 0; i < n; ++i) fill(first + i, i, out);
  return out;
}

ChatRowBatch ChatRows::read(int64_t first, int64_t n) const {
  ChatRowBatch out = empty_rows(n);
  const int64_t rows = rows_per_epoch();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t epoch = (first + i) / rows;
    const Permutation order(rows, seed_, static_cast<uint64_t>(epoch));
    fill(order((first + i) % rows), i, out);
  }
  return out;
}

}  // namespace hadal
