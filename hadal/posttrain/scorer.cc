#include "hadal/posttrain/scorer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hadal/base/check.h"
#include "hadal/engine/sampler.h"

namespace hadal {
namespace {

constexpr int64_t kBatchTokens = 1024;  // of one forward pass
constexpr int64_t kLogitRows = 256;     // whose logits are in memory at once

double log_probability(std::span<const float> logits, int32_t id, double temperature) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float x : logits) total += std::exp((x - largest) / temperature);
  return (static_cast<double>(logits[static_cast<size_t>(id)]) - largest) / temperature - std::log(total);
}

}  // namespace

ScoredSample as_sampled(const Sample& sample, const ScoredSample& sibling) {
  HADAL_CHECK(sample.written.empty()) << sample.ids.size();
  ScoredSample out{.logp = sample.logp, .at_temperature = {sample.logp.begin(), sample.logp.end()}};
  const size_t layers = sibling.experts.size(), before = sample.prompt->size() - 1, n = sample.ids.size();
  if (layers == 0) return out;
  const size_t A = sample.experts.size() / (n * layers);
  HADAL_CHECK(A > 0) << "experts were not asked for";
  for (size_t layer = 0; layer < layers; ++layer) {
    const auto prompt = sibling.experts[layer].begin();
    std::vector<int32_t> experts(prompt, prompt + static_cast<std::ptrdiff_t>(before * A));
    for (size_t t = 0; t < n; ++t) {
      const auto chosen = sample.experts.begin() + static_cast<std::ptrdiff_t>((t * layers + layer) * A);
      experts.insert(experts.end(), chosen, chosen + static_cast<std::ptrdiff_t>(A));
    }
    out.experts.push_back(std::move(experts));
  }
  return out;
}

Scorer::Scorer(NetworkWeights weights, int threads) : pool_(threads), network_(std::move(weights), pool_) {}

std::vector<ScoredSample> Scorer::score(std::span<const Sample* const> samples, double temperature) {
  std::vector<ScoredSample> out(samples.size());
  for (size_t begin = 0; begin < samples.size();) {
    int64_t tokens = 0;
    size_t end = begin;
    do {
      tokens += std::ssize(*samples[end]->prompt) + std::ssize(samples[end]->ids) - 1;
      ++end;
    } while (end < samples.size() && tokens < kBatchTokens);
    score_some(samples.subspan(begin, end - begin), temperature, std::span(out).subspan(begin, end - begin));
    begin = end;
  }
  return out;
}

void Scorer::score_some(std::span<const Sample* const> samples, double temperature,
                        std::span<ScoredSample> out) {
  const ModelConfig& model = network_.config();
  std::vector<int32_t> ids, pages, rows, targets;
  std::vector<int64_t> first_row, first_page;
  for (const Sample* sample : samples) {
    first_row.push_back(std::ssize(ids)), first_page.push_back(std::ssize(pages));
    ids.insert(ids.end(), sample->prompt->begin(), sample->prompt->end());
    for (const int32_t id : sample->ids) {
      rows.push_back(static_cast<int32_t>(ids.size()) - 1), targets.push_back(id);
      ids.push_back(id);
    }
    ids.pop_back();  // nothing comes after the last one
    const int64_t count = std::ssize(ids) - first_row.back();
    pages.resize(pages.size() + static_cast<size_t>((count + kPageTokens - 1) / kPageTokens));
  }
  std::iota(pages.begin(), pages.end(), 0);
  first_row.push_back(std::ssize(ids)), first_page.push_back(std::ssize(pages));
  std::vector<SequenceRows> sequences;
  for (size_t i = 0; i < samples.size(); ++i)
    sequences.push_back({0, first_row[i + 1] - first_row[i],
                         std::span(pages).subspan(static_cast<size_t>(first_page[i]),
                                                  static_cast<size_t>(first_page[i + 1] - first_page[i]))});
  LatentPages storage(model.mla, model.num_layers, std::ssize(pages), CacheFormat::kF32);
  const float* hidden = network_.forward(ids, sequences, storage);
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    if (!model.is_moe(layer)) continue;
    const std::span<const int32_t> chosen = network_.chosen_experts(layer);
    for (size_t i = 0; i < samples.size(); ++i)
      out[i].experts.emplace_back(chosen.begin() + first_row[i] * model.moe.top_k,
                                  chosen.begin() + first_row[i + 1] * model.moe.top_k);
  }
  const auto W = static_cast<size_t>(model.vocab_size);
  std::vector<float> logits(static_cast<size_t>(kLogitRows) * W);
  size_t sample = 0;
  for (size_t at = 0; at < rows.size(); at += kLogitRows) {
    const auto some = std::span(rows).subspan(at, std::min<size_t>(kLogitRows, rows.size() - at));
    network_.logits(hidden, some, logits.data());
    for (size_t k = 0; k < some.size(); ++k) {
      while (some[k] >= first_row[sample + 1]) ++sample;
      const auto row = std::span(logits).subspan(k * W, W);
      const float logp = logprobs(row, targets[at + k], 0).front().logprob;
      out[sample].logp.push_back(logp);
      out[sample].at_temperature.push_back(
          temperature == 1 ? logp : log_probability(row, targets[at + k], temperature));
    }
  }
}

}  // namespace hadal
