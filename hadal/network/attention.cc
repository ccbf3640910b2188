// Absorbed latent attention over pages (architecture spec 4.3).
#include <algorithm>

#include "hadal/kernels/half.h"
#include "hadal/network/rotation.h"
#include "hadal/network/step.h"

namespace hadal {
void Network::attention(const LayerView& view, int64_t index, const Step& step, LatentPages& pages,
                        int worker) {
  const ModelConfig& config = weights_.config;
  const MlaView& w = view.mla;
  const int64_t T = step.T, D = config.width, H = config.mla.num_heads, Q = config.mla.query_latent;
  const int64_t K = config.mla.key_dim(), V = config.mla.value_dim;
  const float* x = normed(step, worker, ws_->x.data(), D, view.attention_norm, D);
  const PreparedRows* input = &prepare(step, worker, &WorkerScratch::input, x, D, T, D,
                                       {&w.q_down, &w.kv_down, &w.query, &w.indexer.key, &w.indexer.weights});
  multiply(w.kv_down, *input, nullptr, T, ws_->kv.data(), w.kv_down.N, share(w.kv_down, worker), worker);
  if (Q > 0) multiply(w.q_down, *input, nullptr, T, ws_->q_latent.data(), Q, share(w.q_down, worker), worker);
  const bool indexed = config.mla.indexer.has_value(), chooses = step.longest > 0;
  if (indexed)
    multiply(w.indexer.key, *input, nullptr, T, ws_->index_key.data(), w.indexer.key.N,
             share(w.indexer.key, worker), worker);
  if (chooses)
    multiply(w.indexer.weights, *input, nullptr, T, ws_->index_weight.data(), w.indexer.weights.N,
             share(w.indexer.weights, worker), worker);
  pool_.barrier();

  write_rows(w, index, step, pages, worker);
  if (indexed) write_index_keys(w.indexer, index, step, pages, worker);
  if (Q > 0) {
    const float* latent = normed(step, worker, ws_->q_latent.data(), Q, w.q_norm, Q);
    input = &prepare(step, worker, &WorkerScratch::second, latent, Q, T, Q, {&w.q_up, &w.indexer.query});
  }
  if (chooses) index_queries(w.indexer, step, *input, pages, worker);
  // A worker owns heads: their queries, and later their values, stay with it.
  const WorkRange heads = split_work(H, 1, worker, pool_.size());
  multiply(Q > 0 ? w.q_up : w.query, *input, nullptr, T, ws_->query.data(), H * K,
           {heads.first * K, heads.last * K}, worker);
  const bool rounded = attends_on_bf16(pages.format());
  for (int64_t h = heads.first; h < heads.last; ++h) absorb(w, step, h, rounded, worker);
  pool_.barrier();
  if (chooses) choose_keys_of(index, step, pages, worker);

  attend(index, step, pages, worker);
  pool_.barrier();
  for (int64_t h = heads.first; h < heads.last; ++h) {
    if (step.by_split) join_parts(step, h);
    value_head(w, step, h, worker);
  }
  pool_.barrier();

  const PreparedRows& joined =
      prepare(step, worker, &WorkerScratch::second, ws_->heads.data(), H * V, T, H * V, {&w.out});
  const WorkRange d = share(w.out, worker);
  multiply(w.out, joined, nullptr, T, ws_->product.data(), D, d, worker);
  add_to_stream(step, ws_->product.data(), d);
  pool_.barrier();
}

// The step's latents, normed, and keys, rotated, go to the pages.
void Network::write_rows(const MlaView& mla, int64_t index, const Step& step, LatentPages& pages,
                         int worker) {
  const int64_t C = weights_.config.mla.kv_latent, R = weights_.config.mla.rope_dim;
  const WorkRange rows = split_work(step.T, 1, worker, pool_.size());
  for (int64_t t = rows.first; t < rows.last; ++t) {
    float* row = ws_->kv.data() + t * (C + R);
    infer_kernels().rms_norm(row, C, mla.kv_norm, row, C, 1, C, eps());
    rotate_neighbours(row + C, ws_->cos.data() + t * R / 2, ws_->sin.data() + t * R / 2, R);
    pages.write(index, step.page[static_cast<size_t>(t)], step.offset[static_cast<size_t>(t)], row, row + C);
  }
}

// The head's query rows against latent and key: [W^UK^T q_nope ; RoPE(q_rope)], [T, C+R], prepared or
// rounded.
void Network::absorb(const MlaView& mla, const Step& step, int64_t head, bool rounded, int worker) {
  const MlaConfig& config = weights_.config.mla;
  const int64_t T = step.T, H = config.num_heads, N = config.nope_dim, R = config.rope_dim,
                C = config.kv_latent;
  const int64_t K = N + R, V = config.value_dim;
  WorkerScratch& own = ws_->worker[static_cast<size_t>(worker)];
  const InferKernels& kernels = infer_kernels();
  const WeightView k_up = rows_of(mla.kv_up, head * (N + V), N);
  const float* k_up_NC = static_cast<const float*>(k_up.data);
  if (k_up.format != WeightFormat::kF32) {
    kernels.decode_rows(k_up, 0, N, own.keys.data(), C);
    k_up_NC = own.keys.data();
  }
  float* query = ws_->query.data() + head * K;  // rows H*K apart
  float* row = own.product.data();              // [T, C+R]
  kernels.weighted_rows(query, H * K, k_up_NC, C, T, N, C, row, C + R, /*add=*/false);
  for (int64_t t = 0; t < T; ++t) {
    float* key = row + t * (C + R) + C;
    std::copy_n(query + t * H * K + N, R, key);
    rotate_neighbours(key, ws_->cos.data() + t * R / 2, ws_->sin.data() + t * R / 2, R);
  }
  if (rounded) {
    for (int64_t t = 0; t < T; ++t)
      half_kernels(HalfFormat::kBf16)
          .round(row + t * (C + R), 1, ws_->query_bf16.data() + (t * H + head) * (C + R), C + R);
    return;
  }
  const int64_t bytes = kernels.prepared_bytes(WeightFormat::kF32, C + R);
  kernels.prepare_rows(WeightFormat::kF32, row, C + R, T, C + R, ws_->query_rows.data() + head * T * bytes);
}

void Network::attend(int64_t index, const Step& step, const LatentPages& pages, int worker) {
  const int64_t H = weights_.config.mla.num_heads, C = weights_.config.mla.kv_latent;
  WorkerScratch& own = ws_->worker[static_cast<size_t>(worker)];
  int64_t task = 0;
  for (const AttentionGroup& group : step.groups) {
    const int64_t rows = group.tokens * H;
    if (step.by_split) {
      for (int64_t split = 0; split < group.splits; ++split) {
        if (task++ % pool_.size() != worker) continue;
        const int64_t part = group.first_part + split * rows;
        attend_split(group, split, index, step, pages, worker, ws_->part_max.data() + part,
                     ws_->part_sum.data() + part, ws_->part_out.data() + part * C);
      }
      continue;
    }
    // Later groups of a prompt see more keys: dealt out like cards, the shares are about equal.
    if (task++ % pool_.size() != worker) continue;
    float *max = own.max.data(), *sum = own.sum.data(), *out = ws_->latent_out.data() + group.row * H * C;
    attend_split(group, 0, index, step, pages, worker, max, sum, out);
    for (int64_t split = 1; split < group.splits; ++split) {
      float *next_max = max + rows, *next_sum = sum + rows, *next_out = own.out.data();
      attend_split(group, split, index, step, pages, worker, next_max, next_sum, next_out);
      // Tokens before the split see none of it.
      const int64_t skip = std::max<int64_t>(0, split * kSplitKeys - group.position) * H;
      infer_kernels().merge_splits(max + skip, sum + skip, out + skip * C, C, next_max + skip,
                                   next_sum + skip, next_out + skip * C, C, rows - skip, C);
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < C; ++c) out[r * C + c] /= sum[r];
  }
}

Network::SplitRows Network::split_rows(const AttentionGroup& group, int64_t split, int64_t* visible) const {
  const int64_t H = weights_.config.mla.num_heads, first_key = split * kSplitKeys;
  const int64_t L = std::min(kSplitKeys, group.position + group.tokens - first_key);
  const int64_t skip = std::max<int64_t>(0, first_key - group.position) * H;
  const int64_t M = group.tokens * H - skip;
  for (int64_t m = 0; m < M; ++m) visible[m] = std::min(L, group.position + (skip + m) / H + 1 - first_key);
  return {first_key, L, skip, M};
}

// Before page `key` of a split is read: the page that this worker reads after it, of this split or of its
// next.
void Network::prefetch_keys(const AttentionGroup& group, int64_t split, int64_t key, int64_t index,
                            const Step& step, const LatentPages& pages) const {
  if (group.chooses_from > 0) return;
  int64_t next = split * kSplitKeys + key + kPageTokens;
  if (next % kSplitKeys == 0 && step.by_split) next += (pool_.size() - 1) * kSplitKeys;
  const int64_t count = std::min(kPageTokens, group.position + group.tokens - next);
  if (count > 0)
    pages.prefetch(index, step.sequences[group.sequence].pages[static_cast<size_t>(next / kPageTokens)],
                   count);
}

const float* Network::key_rows(const AttentionGroup& group, int64_t first, int64_t count, int64_t index,
                               const Step& step, const LatentPages& pages, float* scratch) const {
  const std::span<const int32_t> page = step.sequences[group.sequence].pages;
  if (group.chooses_from == 0)
    return pages.read(index, page[static_cast<size_t>(first / kPageTokens)], count, scratch);
  pages.gather(index, page,
               chosen_keys(group.row).subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
               scratch);
  return scratch;
}

const uint16_t* Network::key_rows_bf16(const AttentionGroup& group, int64_t first, int64_t count,
                                       int64_t index, const Step& step, const LatentPages& pages,
                                       float* scratch, uint16_t* rounded) const {
  const std::span<const int32_t> page = step.sequences[group.sequence].pages;
  if (group.chooses_from == 0)
    return pages.read_bf16(index, page[static_cast<size_t>(first / kPageTokens)], count, scratch, rounded);
  pages.gather_bf16(index, page,
                    chosen_keys(group.row).subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
                    scratch, rounded);
  return rounded;
}

// One split of keys for the rows (token, head) of a group: max, sum [tokens*H], out [tokens*H, C]. Rows whose
// token sees no key of the split are left alone.
void Network::attend_split(const AttentionGroup& group, int64_t split, int64_t index, const Step& step,
                           const LatentPages& pages, int worker, float* max, float* sum, float* out) {
  if (attends_on_bf16(pages.format()))
    return attend_split_bf16(group, split, index, step, pages, worker, max, sum, out);
  const MlaConfig& config = weights_.config.mla;
  const int64_t H = config.num_heads, C = config.kv_latent;
  const InferKernels& kernels = infer_kernels();
  WorkerScratch& own = ws_->worker[static_cast<size_t>(worker)];
  int64_t* visible = own.visible.data();
  const auto [first_key, L, skip, M] = split_rows(group, split, visible);
  int32_t* query = own.query_index.data();
  for (int64_t m = 0; m < M; ++m)
    query[m] = static_cast<int32_t>((skip + m) % H * step.T + group.row + (skip + m) / H);
  const int64_t width = pages.row_stride();
  const float* rows[kSplitKeys / kPageTokens];
  float* score = own.score.data();
  for (int64_t key = 0, p = 0; key < L; key += kPageTokens, ++p) {
    const int64_t count = std::min(kPageTokens, L - key);
    prefetch_keys(group, split, key, index, step, pages);
    rows[p] = key_rows(group, first_key + key, count, index, step, pages, own.keys.data() + key * width);
    kernels.dot_rows({WeightFormat::kF32, count, width, rows[p]}, ws_->query_rows.data(), query, M,
                     score + key, kSplitKeys, 0, count, own.dot.data());
  }
  kernels.softmax_rows(score, kSplitKeys, visible, softmax_scale_, M, L, max + skip, sum + skip);
  for (int64_t key = 0, p = 0; key < L; key += kPageTokens, ++p)
    kernels.weighted_rows(score + key, kSplitKeys, rows[p], width, M, std::min(kPageTokens, L - key), C,
                          out + skip * C, C, /*add=*/key > 0);
}

// Joins the splits of one head in ascending order, as attend does for whole groups.
void Network::join_parts(const Step& step, int64_t head) {
  const int64_t H = weights_.config.mla.num_heads, C = weights_.config.mla.kv_latent;
  float *max = ws_->part_max.data(), *sum = ws_->part_sum.data(), *out = ws_->part_out.data();
  for (const AttentionGroup& group : step.groups)
    for (int64_t t = 0; t < group.tokens; ++t) {
      const int64_t part = group.first_part + t * H + head;
      const int64_t splits = (group.position + t + kSplitKeys) / kSplitKeys;
      for (int64_t split = 1; split < splits; ++split) {
        const int64_t next = part + split * group.tokens * H;
        infer_kernels().merge_splits(max + part, sum + part, out + part * C, C, max + next, sum + next,
                                     out + next * C, C, 1, C);
      }
      float* to = ws_->latent_out.data() + ((group.row + t) * H + head) * C;
      for (int64_t c = 0; c < C; ++c) to[c] = out[part * C + c] / sum[part];
    }
}

// W^UV of a head behind the sum: [T, V] of the joined heads.
void Network::value_head(const MlaView& mla, const Step& step, int64_t head, int worker) {
  const MlaConfig& config = weights_.config.mla;
  const int64_t H = config.num_heads, N = config.nope_dim, C = config.kv_latent, V = config.value_dim;
  WorkerScratch& own = ws_->worker[static_cast<size_t>(worker)];
  const InferKernels& kernels = infer_kernels();
  const WeightView v_up = rows_of(mla.kv_up, head * (N + V) + N, V);
  kernels.prepare_rows(v_up.format, ws_->latent_out.data() + head * C, H * C, step.T, C,
                       own.head_rows.data());
  kernels.dot_rows(v_up, own.head_rows.data(), nullptr, step.T, ws_->heads.data() + head * V, H * V, 0, V,
                   own.dot.data());
}

}  // namespace hadal
