#include "hadal/posttrain/policy_rows.h"

#include <algorithm>
#include <numeric>

#include "hadal/data/packed_rows.h"

namespace hadal {
namespace {

// The last token of an answer is not read: nothing comes after it.
int64_t length_of(const PolicySample& s) {
  return std::ssize(*s.sample->prompt) + std::ssize(s.sample->ids) - 1;
}

// Which samples share a row.
std::vector<std::vector<size_t>> pack(std::span<const PolicySample> samples, int64_t capacity) {
  std::vector<size_t> order(samples.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return length_of(samples[a]) > length_of(samples[b]); });
  std::vector<int64_t> sizes;
  for (const size_t i : order) sizes.push_back(length_of(samples[i]));
  const std::vector<uint32_t> bin = best_fit_decreasing(sizes, capacity);
  std::vector<std::vector<size_t>> rows;
  for (size_t k = 0; k < order.size(); ++k) {
    if (bin[k] >= rows.size()) rows.resize(bin[k] + 1);
    rows[bin[k]].push_back(order[k]);
  }
  return rows;
}

// Experts of filler: any that differ.
std::vector<int32_t> filler_experts(int64_t places, int64_t A) {
  std::vector<int32_t> out(static_cast<size_t>(places * A));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int32_t>(i % static_cast<size_t>(A));
  return out;
}

}  // namespace

PolicyRows pack_policy_rows(const ModelConfig& model, std::span<const PolicySample> samples,
                            int64_t row_tokens, bool with_experts) {
  int64_t longest = 1;
  for (const PolicySample& s : samples) longest = std::max(longest, length_of(s));
  PolicyRows out;
  out.samples_of = pack(samples, std::max(longest, std::min(row_tokens, model.max_positions)));
  out.rows = std::ssize(out.samples_of);
  for (const std::vector<size_t>& row : out.samples_of) {
    int64_t used = 0;
    for (const size_t i : row) used += length_of(samples[i]);
    out.length = std::max(out.length, used);
  }
  out.first_place.resize(samples.size());
  const int64_t places = out.rows * out.length, A = model.moe.top_k;
  out.real.resize(static_cast<size_t>(places));
  out.ids.resize(static_cast<size_t>(places)), out.segment_start.resize(static_cast<size_t>(places));
  for (int64_t layer = 0; with_experts && layer < model.num_layers; ++layer)
    out.experts.push_back(model.is_moe(layer) ? filler_experts(places, A) : std::vector<int32_t>());
  for (int64_t row = 0; row < out.rows; ++row) {
    int64_t at = 0;
    for (const size_t i : out.samples_of[static_cast<size_t>(row)]) {
      const Sample& sample = *samples[i].sample;
      const int64_t place = row * out.length + at, n = length_of(samples[i]);
      std::copy(sample.prompt->begin(), sample.prompt->end(), out.ids.begin() + place);
      std::copy(sample.ids.begin(), sample.ids.end() - 1,
                out.ids.begin() + place + std::ssize(*sample.prompt));
      std::fill_n(out.real.begin() + place, n, 1);
      std::fill_n(out.segment_start.begin() + place, n, static_cast<int32_t>(at));
      out.first_place[i] = at;
      size_t next = 0;
      for (auto& experts : out.experts)
        if (!experts.empty()) {
          const std::vector<int32_t>& chosen = samples[i].old->experts[next++];
          std::copy(chosen.begin(), chosen.end(), experts.begin() + place * A);
        }
      at += n;
    }
    for (; at < out.length; ++at)
      out.segment_start[static_cast<size_t>(row * out.length + at)] = static_cast<int32_t>(at);
  }
  return out;
}

}  // namespace hadal
