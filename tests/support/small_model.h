// A model small enough for a test of milliseconds, with every feature of V3 in it.
#pragma once
#include "hadal/config.h"

namespace hadal {

// One dense and one MoE layer with two groups of experts, query compression, MTP.
inline ModelConfig small_model(int64_t mtp_depth = 1) {
  ModelConfig c;
  c.vocab_size = 128, c.width = 32, c.num_layers = 2, c.dense_dim = 64, c.max_positions = 64;
  c.mtp_depth = mtp_depth;
  c.init_std = 0.06;
  c.mla = {.num_heads = 2, .query_latent = 16, .kv_latent = 16, .nope_dim = 8, .rope_dim = 8, .value_dim = 8};
  c.moe = {.num_experts = 8,
           .num_shared = 1,
           .top_k = 2,
           .expert_dim = 16,
           .num_groups = 2,
           .num_groups_kept = 1,
           .first_layer = 1,
           .scoring = Scoring::kSigmoid,
           .choice = Choice::kGroupTopTwo,
           .normalize = true,
           .scale = 2.5};
  return c;
}

}  // namespace hadal
