// Token ids fed to a network in any pieces, for tests that hold the results against each other.
#pragma once
#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "hadal/network/network.h"

namespace hadal {

using Ids = std::vector<int32_t>;

// Sequences with pages of their own, fed in any pieces.
class Sequences {
 public:
  Sequences(Network& network, int64_t count, int64_t capacity, CacheFormat format = CacheFormat::kF32)
      : network_(network),
        pages_(network.config().mla, network.config().num_layers + network.config().mtp_depth,
               count * page_count(capacity), format),
        ids_of_(static_cast<size_t>(count), Ids(static_cast<size_t>(page_count(capacity)))),
        length_(static_cast<size_t>(count), 0) {
    int32_t next = static_cast<int32_t>(count * page_count(capacity));
    for (Ids& ids : ids_of_)
      for (int32_t& id : ids) id = --next;  // neither ascending nor together
  }

  // Appends ids[i] to sequence which[i]; hidden states of all of them, [T, D].
  std::vector<float> feed(const std::vector<size_t>& which, const std::vector<Ids>& ids) {
    Ids flat;
    const std::vector<SequenceRows> rows = rows_of_step(which, ids, &flat);
    const float* hidden = network_.forward(flat, rows, pages_);
    for (size_t i = 0; i < which.size(); ++i) length_[which[i]] += rows[i].count;
    return {hidden, hidden + static_cast<int64_t>(flat.size()) * network_.config().width};
  }
  std::vector<float> mtp(const std::vector<float>& hidden, const Ids& next) {
    const SequenceRows rows{0, static_cast<int64_t>(next.size()), ids_of_[0]};
    const float* out = network_.mtp(0, hidden.data(), next, {&rows, 1}, pages_);
    return {out, out + static_cast<int64_t>(next.size()) * network_.config().width};
  }
  std::vector<float> logits(const std::vector<float>& hidden) {
    Ids rows(hidden.size() / static_cast<size_t>(network_.config().width));
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<float> out(rows.size() * static_cast<size_t>(network_.config().vocab_size));
    network_.logits(hidden.data(), rows, out.data());
    return out;
  }
  std::vector<float> cached(size_t sequence, int64_t layer, bool key) const {
    const int64_t C = network_.config().mla.kv_latent, R = network_.config().mla.rope_dim;
    std::vector<float> out, scratch(static_cast<size_t>(kPageTokens * (C + R)));
    for (int64_t t = 0; t < length_[sequence]; ++t) {
      const int32_t page = ids_of_[sequence][static_cast<size_t>(t / kPageTokens)];
      const float* row = pages_.read(layer, page, kPageTokens, scratch.data()) + t % kPageTokens * (C + R);
      out.insert(out.end(), key ? row + C : row, key ? row + C + R : row + C);
    }
    return out;
  }

 private:
  static int64_t page_count(int64_t capacity) { return (capacity + kPageTokens - 1) / kPageTokens; }
  std::vector<SequenceRows> rows_of_step(const std::vector<size_t>& which, const std::vector<Ids>& ids,
                                         Ids* flat) {
    std::vector<SequenceRows> rows;
    for (size_t i = 0; i < which.size(); ++i) {
      rows.push_back({length_[which[i]], static_cast<int64_t>(ids[i].size()), ids_of_[which[i]]});
      flat->insert(flat->end(), ids[i].begin(), ids[i].end());
    }
    return rows;
  }

  Network& network_;
  LatentPages pages_;
  std::vector<Ids> ids_of_;
  std::vector<int64_t> length_;
};

inline std::vector<Ids> rows_of(const Ids& flat, const std::vector<int64_t>& shape) {
  std::vector<Ids> rows;
  for (int64_t b = 0; b < shape.at(0); ++b)
    rows.emplace_back(flat.begin() + b * shape.at(1), flat.begin() + (b + 1) * shape.at(1));
  return rows;
}

inline std::vector<size_t> all_of(const std::vector<Ids>& rows) {
  std::vector<size_t> which(rows.size());
  std::iota(which.begin(), which.end(), size_t{0});
  return which;
}

inline int32_t argmax(std::span<const float> x) {
  return static_cast<int32_t>(std::max_element(x.begin(), x.end()) - x.begin());
}

}  // namespace hadal
