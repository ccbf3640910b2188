// Sparse attention: the lightning indexer scores all keys that a token sees and chooses those that it attends
// to (architecture spec 16). Factors that are the same for all keys of a token, 1/sqrt(X) and 1/sqrt(Y),
// change no order and are left out.
#include "hadal/network/indexer.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "hadal/kernels/half.h"
#include "hadal/network/rotation.h"
#include "hadal/network/step.h"

namespace hadal {
namespace {

constexpr double kNormEps = 1e-6;  // of the LayerNorm, whatever rms_norm_eps says

void layer_norm(float* x, const float* gain, const float* bias, int64_t n) {
  double mean = 0, variance = 0;
  for (int64_t i = 0; i < n; ++i) mean += x[i];
  mean /= static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
  const double scale = 1 / std::sqrt(variance / static_cast<double>(n) + kNormEps);
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>((x[i] - mean) * scale) * gain[i] + bias[i];
}

}  // namespace

void choose_keys(const float* score, int64_t n, int64_t k, float* order, int32_t* chosen) {
  const auto value = [](float x) { return std::isnan(x) ? -std::numeric_limits<float>::infinity() : x; };
  for (int64_t i = 0; i < n; ++i) order[i] = value(score[i]);
  std::nth_element(order, order + k - 1, order + n, std::greater<float>());
  const float least = order[k - 1];
  int64_t equal = std::count(order, order + k, least);  // of those that are the least one, the first so many
  for (int64_t i = 0; i < n; ++i) {
    const float x = value(score[i]);
    if (x > least || (x == least && equal-- > 0)) *chosen++ = static_cast<int32_t>(i);
  }
}

void Network::reserve_indexer(const Step& step) {
  const std::optional<IndexerConfig>& indexer = weights_.config.mla.indexer;
  if (!indexer) return;
  const int64_t X = indexer->num_heads, Y = indexer->head_dim, T = step.T;
  Workspace& ws = *ws_;
  ws.index_key.ensure(T * Y);
  if (step.longest == 0) return;
  ws.index_query.ensure(T * X * Y), ws.index_weight.ensure(T * X);
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16})
    ws.index_rows.ensure(T * X * infer_kernels().prepared_bytes(format, Y));
  ws.index_bf16.ensure(T * X * Y);
  ws.chosen.ensure(T * indexer->top_k);
  if (step.by_split) ws.index_score.ensure(static_cast<int64_t>(step.groups.size()) * step.longest);
  for (WorkerScratch& own : ws.worker) {
    own.index_score.ensure(step.longest), own.index_order.ensure(step.longest);
    own.index_product.ensure(X * kPageTokens), own.index_row.ensure(X);
    own.index_units.ensure(kPageTokens * Y);
  }
}

// The step's index keys, normed and rotated, go to the pages.
void Network::write_index_keys(const IndexerView& indexer, int64_t index, const Step& step,
                               LatentPages& pages, int worker) {
  const int64_t Y = weights_.config.mla.indexer->head_dim, R = weights_.config.mla.rope_dim;
  const WorkRange rows = split_work(step.T, 1, worker, pool_.size());
  for (int64_t t = rows.first; t < rows.last; ++t) {
    float* key = ws_->index_key.data() + t * Y;
    layer_norm(key, indexer.key_norm, indexer.key_bias, Y);
    rotate_halves(key, ws_->cos.data() + t * R / 2, ws_->sin.data() + t * R / 2, R);
    pages.write_index_key(index, step.page[static_cast<size_t>(t)], step.offset[static_cast<size_t>(t)], key);
  }
}

// The worker's index heads of all tokens, from the query latents: rotated, and prepared as rows [X, T] or
// rounded.
void Network::index_queries(const IndexerView& indexer, const Step& step, const PreparedRows& latents,
                            const LatentPages& pages, int worker) {
  const int64_t X = weights_.config.mla.indexer->num_heads, Y = weights_.config.mla.indexer->head_dim;
  const int64_t T = step.T, R = weights_.config.mla.rope_dim;
  const WorkRange heads = split_work(X, 1, worker, pool_.size());
  float* query = ws_->index_query.data();
  multiply(indexer.query, latents, nullptr, T, query, X * Y, {heads.first * Y, heads.last * Y}, worker);
  const bool rounded = attends_on_bf16(pages.format());
  const WeightFormat format = pages.index_format();
  for (int64_t x = heads.first; x < heads.last; ++x) {
    for (int64_t t = 0; t < T; ++t) {
      const int64_t at = (t * X + x) * Y;
      rotate_halves(query + at, ws_->cos.data() + t * R / 2, ws_->sin.data() + t * R / 2, R);
      if (rounded) half_kernels(HalfFormat::kBf16).round(query + at, 1, ws_->index_bf16.data() + at, Y);
    }
    if (!rounded)
      infer_kernels().prepare_rows(
          format, query + x * Y, X * Y, T, Y,
          ws_->index_rows.data() + x * T * infer_kernels().prepared_bytes(format, Y));
  }
}

// product [X, kPageTokens] of a row's index heads with keys: of bf16 where attention is.
void Network::index_products(int64_t row, const WeightView& keys, bool rounded, const Step& step,
                             int worker) {
  const int64_t X = weights_.config.mla.indexer->num_heads, Y = keys.K;
  WorkerScratch& own = ws_->worker[static_cast<size_t>(worker)];
  float* product = own.index_product.data();
  if (rounded) {
    const HalfKernels& half = half_kernels(HalfFormat::kBf16);
    half.pack_rows(static_cast<const uint16_t*>(keys.data), Y, own.index_units.data(), keys.N, Y);
    half.multiply({.M = X,
                   .N = keys.N,
                   .K = Y,
                   .a = ws_->index_bf16.data() + row * X * Y,
                   .a_row = Y,
                   .a_k = 1,
                   .b = own.index_units.data(),
                   .b_unit = kHalfUnit * Y,
                   .b_k = kHalfUnit,
                   .c = product,
                   .c_row = kPageTokens,
                   .alpha = 1,
                   .add = false});
    return;
  }
  for (int64_t x = 0; x < X; ++x) own.index_row.data()[x] = static_cast<int32_t>(x * step.T + row);
  infer_kernels().dot_rows(keys, ws_->index_rows.data(), own.index_row.data(), X, product, kPageTokens, 0,
                           keys.N, own.dot.data());
}

// score[j] = sum_x weight_x relu(query_x . key_j) of row t for the keys [first, last), first at a page's
// start.
void Network::score_keys(const AttentionGroup& group, WorkRange keys, int64_t index, const Step& step,
                         const LatentPages& pages, int worker, float* score) {
  const int64_t X = weights_.config.mla.indexer->num_heads;
  float* product = ws_->worker[static_cast<size_t>(worker)].index_product.data();
  const bool rounded = attends_on_bf16(pages.format());
  const std::span<const int32_t> page = step.sequences[group.sequence].pages;
  for (int64_t key = keys.first; key < keys.last; key += kPageTokens) {
    const int64_t count = std::min(kPageTokens, keys.last - key);
    index_products(group.row, pages.index_keys(index, page[static_cast<size_t>(key / kPageTokens)], count),
                   rounded, step, worker);
    for (int64_t x = 0; x < X; ++x)
      for (int64_t i = 0; i < count; ++i) {
        float& value = product[x * kPageTokens + i];
        value = value > 0 ? value : 0;
      }
    infer_kernels().weighted_rows(ws_->index_weight.data() + group.row * X, X, product, kPageTokens, 1, X,
                                  count, score + key, count, /*add=*/false);
  }
}

// The keys of all groups that choose. Where groups are few, workers share out the keys of each; else the
// groups. Ends with a barrier.
void Network::choose_keys_of(int64_t index, const Step& step, const LatentPages& pages, int worker) {
  const int64_t k = weights_.config.mla.indexer->top_k;
  WorkerScratch& own = ws_->worker[static_cast<size_t>(worker)];
  int64_t task = 0;
  if (step.by_split) {
    for (size_t g = 0; g < step.groups.size(); ++g) {
      const int64_t n = step.groups[g].chooses_from;
      for (int64_t first = 0; first < n; first += kSplitKeys)
        if (task++ % pool_.size() == worker)
          score_keys(step.groups[g], {first, std::min(n, first + kSplitKeys)}, index, step, pages, worker,
                     ws_->index_score.data() + static_cast<int64_t>(g) * step.longest);
    }
    pool_.barrier();
  }
  task = 0;
  for (size_t g = 0; g < step.groups.size(); ++g) {
    const AttentionGroup& group = step.groups[g];
    if (group.chooses_from == 0 || task++ % pool_.size() != worker) continue;
    float* score = own.index_score.data();
    if (step.by_split)
      score = ws_->index_score.data() + static_cast<int64_t>(g) * step.longest;
    else
      score_keys(group, {0, group.chooses_from}, index, step, pages, worker, score);
    choose_keys(score, group.chooses_from, k, own.index_order.data(), ws_->chosen.data() + group.row * k);
  }
  pool_.barrier();
}

std::span<const int32_t> Network::chosen_keys(int64_t row) const {
  const auto k = static_cast<size_t>(weights_.config.mla.indexer->top_k);
  return {ws_->chosen.data() + row * static_cast<int64_t>(k), k};
}

}  // namespace hadal
