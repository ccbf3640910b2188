// What absorbed attention costs, for plans and benches.
#pragma once
#include "hadal/config.h"

namespace hadal {

// Multiply-adds of one token in one layer: scores and weighted sum of `keys` keys that it sees (their mean,
// of many tokens), or of those that an indexer chooses and what it chooses by.
inline double attention_products(const MlaConfig& mla, double keys) {
  const auto per_key = static_cast<double>(mla.num_heads * (mla.cache_dim() + mla.kv_latent));
  if (!mla.indexer || keys <= static_cast<double>(mla.indexer->top_k)) return per_key * keys;
  return per_key * static_cast<double>(mla.indexer->top_k) +
         static_cast<double>(mla.indexer->num_heads * mla.indexer->head_dim) * keys;
}

}  // namespace hadal
