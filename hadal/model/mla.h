// Multi-head latent attention (V2 report 2.1; architecture spec 4): keys and values are up-projections of one
// normed latent a token, plus one rotated key shared by all heads.
#pragma once
#include "hadal/config.h"
#include "hadal/model/training_pass.h"
#include "hadal/model/weights.h"
#include "hadal/ops/recompute.h"
#include "hadal/ops/rope.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

// What a token leaves in the cache.
struct LatentRow {
  Tensor latent_BSC;    // normed
  Tensor rope_key_BSR;  // rotated
};
LatentRow project_latent(const MlaConfig& mla, const MlaWeights& w, const Tensor& x_BSD,
                         const RopeAngles& angles);

struct MlaQuery {
  Tensor q_nope_BSHN;
  Tensor q_rope_BSHR;  // rotated
};
MlaQuery project_query(const MlaConfig& mla, const MlaWeights& w, const Tensor& x_BSD,
                       const RopeAngles& angles);

// Causal attention of S new tokens, the last of L cached ones, over all L: token i sees keys 0 .. L-S+i.
// Softmax in fp32. Both return the heads' outputs before the output projection, [B, S, H, V].
//
// Expanded: keys and values are up-projected from the latents first. Cheaper from about 170 new tokens on.
Tensor mla_expanded(const MlaConfig& mla, const MlaWeights& w, const MlaQuery& q, const Tensor& latent_BLC,
                    const Tensor& rope_key_BLR, double scale);
// Absorbed: W^UK moves into the query and W^UV behind the sum, so keys and values are never expanded.
Tensor mla_absorbed(const MlaConfig& mla, const MlaWeights& w, const MlaQuery& q, const Tensor& latent_BLC,
                    const Tensor& rope_key_BLR, double scale);

// The same for whole sequences without a cache, in fp32, by fused_attention: never S x S. `discarded` gets
// what is computed again before the gradient of the result goes on. [B, S, H*V]
Tensor mla_training(const MlaConfig& mla, const MlaWeights& w, const Tensor& x_BSD, const RopeAngles& angles,
                    double scale, const TrainingPass& pass, Discarded& discarded);

}  // namespace hadal
