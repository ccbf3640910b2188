// How large a model is and what a token costs, from its configuration alone. PUBLIC, torch-free, allocates no
// weights. All counts are exact and follow the list of weights (hadal/config/weight_specs.h).
#pragma once
#include <cstdint>

#include "hadal/config.h"

namespace hadal {

// Trained values by purpose. The balance bias is not trained and not in here.
struct WeightCounts {
  int64_t embedding = 0;
  int64_t attention = 0;  // projections; the latent norms are under norms
  int64_t indexer = 0;    // of sparse attention, without its norms
  int64_t dense_mlp = 0;  // FFN of the dense layers
  int64_t routed_experts = 0;
  int64_t shared_experts = 0;
  int64_t router = 0;
  int64_t norms = 0;
  int64_t mtp_project = 0;  // joins embedding and hidden state, MTP only
  int64_t head = 0;         // 0 if the head is the embedding
  int64_t total() const;
};

struct ModelSize {
  WeightCounts main;    // without MTP
  WeightCounts active;  // of main, the part one token uses: top_k of the routed experts, all of the rest. The
                        // embedding counts as the whole table; subtract it for the count without
  WeightCounts mtp;     // all MTP modules, without the embedding and head they share with main
  WeightCounts mtp_active;
  int64_t mtp_copies = 0;    // values of embedding and head that a published checkpoint stores again for MTP
  int64_t balance_bias = 0;  // values, F32, MTP included

  int64_t cache_bytes = 0;  // per token in BF16: latent and rope key of the main layers, indexer's key
  int64_t expanded_cache_bytes = 0;  // the same token as keys and values of every head (MHA)

  int64_t bf16_bytes = 0,
          bf16_tensors = 0;  // published checkpoint: tensor data with MTP and its copies, no headers
  int64_t fp8_bytes = 0,
          fp8_tensors = 0;  // matrices in 128x128 block FP8 with F32 scales, the rest as in BF16
};

ModelSize model_size(const ModelConfig& config);

// Floating-point operations of the main model for one token, a multiply-add counting two: every matrix
// product, router included. Not counted: norms, RoPE, softmax, activations, the choice of experts.
struct TokenFlops {
  int64_t layers = 0;     // 2 * active weights of all matrices in the layers
  int64_t head = 0;       // 2 * W * D
  int64_t attention = 0;  // scores and weighted sum over the keys
  int64_t total() const { return layers + head + attention; }
};

// One decode step in the absorbed form, the token attending to `context` keys, its own included:
// attention = 2 * layers * H * context * ((C + R) + C). Sparse attention of X index heads of Y, with more
// keys than top_k: top_k instead of context, and 2 * layers * X * Y * context for choosing.
TokenFlops decode_flops(const ModelConfig& config, int64_t context);

// A prompt of `context` tokens in the expanded form, mean over its tokens, logits for each. Token t attends
// to t keys, so attention = 2 * layers * H * (K + V) * (context + 1) / 2; sparse attention to top_k at most,
// and choosing is counted as in decode_flops().
TokenFlops prefill_flops(const ModelConfig& config, int64_t context);

}  // namespace hadal
