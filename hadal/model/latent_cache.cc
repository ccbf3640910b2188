#include "hadal/model/latent_cache.h"

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {

LatentCache::LatentCache(const ModelConfig& config, int64_t B, int64_t capacity, at::ScalarType dtype)
    : capacity_(capacity) {
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    latent_.push_back(empty({B, capacity, config.mla.kv_latent}, dtype));
    rope_key_.push_back(empty({B, capacity, config.mla.rope_dim}, dtype));
  }
}

int64_t LatentCache::size_bytes() const {
  int64_t total = 0;
  for (size_t i = 0; i < latent_.size(); ++i)
    total += static_cast<int64_t>(latent_[i].nbytes() + rope_key_[i].nbytes());
  return total;
}

LatentCache::Rows LatentCache::append(int64_t layer, const Tensor& latent_BSC, const Tensor& rope_key_BSR) {
  const auto& space = latent_.at(static_cast<size_t>(layer));
  const int64_t B = space.size(0), S = latent_BSC.size(1), C = space.size(2);
  const int64_t R = rope_key_[static_cast<size_t>(layer)].size(2);
  HADAL_SHAPE(latent_BSC, B, S, C);
  HADAL_SHAPE(rope_key_BSR, B, S, R);
  if (length_ + S > capacity_)
    throw Error(ErrorCode::kExhausted, cat("[model.cache] ", length_, " cached tokens and ", S,
                                           " new ones do not fit in a context of ", capacity_,
                                           ". Shorten the prompt or ask for fewer new tokens."));
  const auto i = static_cast<size_t>(layer);
  latent_[i].narrow(1, length_, S).copy_(latent_BSC);
  rope_key_[i].narrow(1, length_, S).copy_(rope_key_BSR);
  return {latent_[i].narrow(1, 0, length_ + S), rope_key_[i].narrow(1, 0, length_ + S)};
}

void LatentCache::reserve(int64_t capacity) {
  if (capacity <= capacity_) return;
  for (auto* rows : {&latent_, &rope_key_}) {
    for (Tensor& old : *rows) {
      Tensor grown = empty({old.size(0), capacity, old.size(2)}, old.scalar_type());
      grown.narrow(1, 0, length_).copy_(old.narrow(1, 0, length_));
      old = grown;
    }
  }
  capacity_ = capacity;
}

void LatentCache::truncate(int64_t length) {
  HADAL_CHECK(0 <= length && length <= length_) << length << " of " << length_;
  length_ = length;
}

LatentCache::Rows LatentCache::rows(int64_t layer) const {
  const auto i = static_cast<size_t>(layer);
  return {latent_[i].narrow(1, 0, length_), rope_key_[i].narrow(1, 0, length_)};
}

}  // namespace hadal
