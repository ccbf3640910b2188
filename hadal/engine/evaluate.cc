#include "hadal/engine/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr int64_t kStepTokens = 512;  // of rows that run together, about
constexpr int64_t kLogitRows = 64;    // computed at a time

int64_t pages_of(int64_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

int32_t argmax(std::span<const float> values) {
  return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

double cross_entropy(std::span<const float> logits, int32_t target) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - most);
  return most + std::log(sum) - static_cast<double>(logits[static_cast<size_t>(target)]);
}

double max_violation(const std::vector<int64_t>& load) {
  const double mean = static_cast<double>(std::accumulate(load.begin(), load.end(), int64_t{0})) /
                      static_cast<double>(load.size());
  return (static_cast<double>(*std::max_element(load.begin(), load.end())) - mean) / mean;
}

}  // namespace

TextEvaluation::TextEvaluation(Network& network, CacheFormat format, int64_t max_tokens,
                               std::span<const int64_t> token_bytes)
    : network_(network),
      pages_(network.config().mla, network.config().num_layers + network.config().mtp_depth,
             pages_of(max_tokens) + kStepTokens, format),
      token_bytes_(token_bytes),
      agreed_(static_cast<size_t>(network.config().mtp_depth)),
      guessed_(agreed_.size()),
      load_(static_cast<size_t>(pages_.layers())) {}

void TextEvaluation::add(std::vector<int32_t> ids) {
  const int64_t T = std::ssize(ids) - 1 - network_.config().mtp_depth;
  if (T < 1) return;
  Row row{.ids = std::move(ids), .first = waiting_, .T = T};
  for (int64_t i = 0; i < pages_of(T); ++i) row.pages.push_back(static_cast<int32_t>(used_pages_++));
  waiting_ += T;
  rows_.push_back(std::move(row));
  if (waiting_ >= kStepTokens) flush();
}

void TextEvaluation::count_load(int64_t layer) {
  for (const int32_t expert : network_.chosen_experts(layer)) {
    std::vector<int64_t>& load = load_[static_cast<size_t>(layer)];
    load.resize(static_cast<size_t>(network_.config().moe.num_experts));
    ++load[static_cast<size_t>(expert)];
  }
}

const float* TextEvaluation::logits_of(const std::vector<float>& hidden, int64_t first, int64_t count) {
  std::vector<int32_t> rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), static_cast<int32_t>(first));
  logits_.resize(static_cast<size_t>(count * network_.config().vocab_size));
  network_.logits(hidden.data(), rows, logits_.data());
  return logits_.data();
}

void TextEvaluation::flush() {
  const ModelConfig& config = network_.config();
  std::vector<int32_t> ids;
  std::vector<SequenceRows> sequences;
  for (const Row& row : rows_) {
    ids.insert(ids.end(), row.ids.begin(), row.ids.begin() + row.T);
    sequences.push_back({0, row.T, row.pages});
  }
  if (ids.empty()) return;
  const size_t size = ids.size() * static_cast<size_t>(config.width);
  const float* out = network_.forward(ids, sequences, pages_);
  std::vector<float> hidden(out, out + size);
  for (int64_t layer = 0; layer < config.num_layers; ++layer)
    if (config.is_moe(layer)) count_load(layer);
  for (Row& row : rows_) score(row, hidden);
  for (int64_t k = 0; k < config.mtp_depth; ++k) {
    std::vector<int32_t> next;
    for (const Row& row : rows_)
      next.insert(next.end(), row.ids.begin() + k + 1, row.ids.begin() + k + 1 + row.T);
    out = network_.mtp(k, hidden.data(), next, sequences, pages_);
    hidden.assign(out, out + size);
    if (config.is_moe(config.num_layers + k)) count_load(config.num_layers + k);
    for (const Row& row : rows_) guess(k, row, hidden);
  }
  rows_.clear();
  waiting_ = used_pages_ = 0;
}

void TextEvaluation::score(Row& row, const std::vector<float>& hidden) {
  const auto W = static_cast<size_t>(network_.config().vocab_size), T = static_cast<size_t>(row.T);
  loss_at_.resize(std::max(loss_at_.size(), T)), rows_at_.resize(loss_at_.size());
  for (int64_t at = 0; at < row.T; at += kLogitRows) {
    const int64_t count = std::min(kLogitRows, row.T - at);
    const float* logits = logits_of(hidden, row.first + at, count);
    for (int64_t i = 0; i < count; ++i) {
      const std::span<const float> of(logits + static_cast<size_t>(i) * W, W);
      const int32_t target = row.ids[static_cast<size_t>(at + i + 1)];
      const double loss = cross_entropy(of, target);
      const auto position = static_cast<size_t>(at + i);
      loss_ += loss, loss_at_[position] += loss, ++rows_at_[position];
      row.choice.push_back(argmax(of));
      if (!token_bytes_.empty()) bytes_ += token_bytes_[static_cast<size_t>(target)];
    }
  }
  targets_ += row.T;
  if (!std::isfinite(loss_))
    throw Error(ErrorCode::kInternal,
                "[engine.evaluate] the loss is not finite: the weights or their arithmetic are broken. Run "
                "hadal inspect on the model.");
}

// Module k at i and the main model at i + 1 + k both predict token i + 2 + k.
void TextEvaluation::guess(int64_t depth, const Row& row, const std::vector<float>& hidden) {
  const auto W = static_cast<size_t>(network_.config().vocab_size);
  const int64_t both = row.T - 1 - depth;
  for (int64_t at = 0; at < both; at += kLogitRows) {
    const int64_t count = std::min(kLogitRows, both - at);
    const float* logits = logits_of(hidden, row.first + at, count);
    for (int64_t i = 0; i < count; ++i)
      agreed_[static_cast<size_t>(depth)] += argmax({logits + static_cast<size_t>(i) * W, W}) ==
                                             row.choice[static_cast<size_t>(at + i + 1 + depth)];
    guessed_[static_cast<size_t>(depth)] += count;
  }
}

TextScore TextEvaluation::result() {
  flush();
  TextScore out{.targets = targets_, .bytes = bytes_};
  out.loss = loss_ / static_cast<double>(std::max<int64_t>(1, targets_));
  if (bytes_ > 0) out.bits_per_byte = loss_ / std::numbers::ln2 / static_cast<double>(bytes_);
  for (size_t k = 0; k < agreed_.size(); ++k)
    out.mtp_acceptance.push_back(static_cast<double>(agreed_[k]) /
                                 static_cast<double>(std::max<int64_t>(1, guessed_[k])));
  double violation = 0, layers = 0;
  for (const std::vector<int64_t>& load : load_)
    if (!load.empty()) violation += max_violation(load), ++layers;
  if (layers > 0) out.max_vio = violation / layers;
  return out;
}

std::vector<PositionLoss> TextEvaluation::by_position(int64_t parts) {
  flush();
  const int64_t longest = std::ssize(loss_at_), step = (longest + parts - 1) / parts;
  std::vector<PositionLoss> out;
  for (int64_t begin = 0; begin < longest; begin += step) {
    const int64_t end = std::min(begin + step, longest);
    double loss = 0, rows = 0;
    for (int64_t i = begin; i < end; ++i)
      loss += loss_at_[static_cast<size_t>(i)], rows += static_cast<double>(rows_at_[static_cast<size_t>(i)]);
    out.push_back({begin + 1, end + 1, loss / rows});
  }
  return out;
}

}  // namespace hadal
