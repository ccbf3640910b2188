// One split of absorbed attention as products of bf16 (kernels/half.h), for caches that are no fp32.
#include <algorithm>

#include "hadal/kernels/half.h"
#include "hadal/network/step.h"

namespace hadal {

// As attend_split(). Each score is one sum over C+R, each output one sum over the keys, in ascending order,
// whatever rows are computed together.
void Network::attend_split_bf16(const AttentionGroup& group, int64_t split, int64_t index, const Step& step,
                                const LatentPages& pages, int worker, float* max, float* sum, float* out) {
  const int64_t H = weights_.config.mla.num_heads, C = weights_.config.mla.kv_latent;
  const HalfKernels& half = half_kernels(HalfFormat::kBf16);
  WorkerScratch& own = ws_->worker[static_cast<size_t>(worker)];
  const SplitRows r = split_rows(group, split, own.visible.data());
  const int64_t width = pages.row_stride();
  const uint16_t* rows[kSplitKeys / kPageTokens];
  float* score = own.score.data();
  for (int64_t key = 0, p = 0; key < r.L; key += kPageTokens, ++p) {
    const int64_t count = std::min(kPageTokens, r.L - key);
    prefetch_keys(group, split, key, index, step, pages);
    rows[p] = key_rows_bf16(group, r.first_key + key, count, index, step, pages,
                            own.keys.data() + key * width, own.cached.data() + key * width);
    half.pack_rows(rows[p], width, own.key_units.data(), count, width);
    half.multiply({.M = r.M,
                   .N = count,
                   .K = width,
                   .a = ws_->query_bf16.data() + (group.row * H + r.skip) * width,
                   .a_row = width,
                   .a_k = 1,
                   .b = own.key_units.data(),
                   .b_unit = kHalfUnit * width,
                   .b_k = kHalfUnit,
                   .c = score + key,
                   .c_row = kSplitKeys,
                   .alpha = 1,
                   .add = false});
  }
  infer_kernels().softmax_rows(score, kSplitKeys, own.visible.data(), softmax_scale_, r.M, r.L, max + r.skip,
                               sum + r.skip);
  for (int64_t m = 0; m < r.M; ++m)
    half.round(score + m * kSplitKeys, 1, own.prob.data() + m * kSplitKeys, r.L);
  for (int64_t key = 0, p = 0; key < r.L; key += kPageTokens, ++p)
    half.multiply({.M = r.M,
                   .N = C,
                   .K = std::min(kPageTokens, r.L - key),
                   .a = own.prob.data() + key,
                   .a_row = kSplitKeys,
                   .a_k = 1,
                   .b = rows[p],
                   .b_unit = kHalfUnit,
                   .b_k = width,
                   .c = out + r.skip * C,
                   .c_row = C,
                   .alpha = 1,
                   .add = key > 0});
}

}  // namespace hadal
