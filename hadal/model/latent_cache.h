// What decoding keeps of the past: per layer the normed latent and the rotated key, nothing per head.
// The key is stored after RoPE: a token's rotation depends on its own position only, which never changes.
#pragma once
#include <vector>

#include "hadal/config.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

class LatentCache {
 public:
  // Room for B sequences of `capacity` tokens.
  LatentCache(const ModelConfig& config, int64_t B, int64_t capacity, at::ScalarType dtype);

  int64_t length() const { return length_; }  // tokens complete in every main layer
  int64_t capacity() const { return capacity_; }
  int64_t size_bytes() const;

  struct Rows {
    Tensor latent_BLC, rope_key_BLR;  // views, the new tokens included
  };
  // Writes S new rows of one layer after the past ones. Throws exhausted when they do not fit.
  Rows append(int64_t layer, const Tensor& latent_BSC, const Tensor& rope_key_BSR);
  // Marks S tokens complete, after every layer has appended them.
  void advance(int64_t S) { length_ += S; }
  // Makes room for at least `capacity` tokens in all, keeping the rows.
  void reserve(int64_t capacity);
  // Forgets tokens from `length` on.
  void truncate(int64_t length);

  Rows rows(int64_t layer) const;

 private:
  std::vector<Tensor> latent_, rope_key_;  // per layer [B, capacity, C], [B, capacity, R]
  int64_t length_ = 0, capacity_ = 0;
};

}  // namespace hadal
