// The whole network: embedding, layers of latent attention and FFN or MoE, final norm, head, MTP modules.
#pragma once
#include <vector>

#include "hadal/config.h"
#include "hadal/model/latent_cache.h"
#include "hadal/model/mla.h"
#include "hadal/model/moe.h"
#include "hadal/model/weights.h"

namespace hadal {

// Which form attention takes. kAuto: expanded without a cache or for long inputs, absorbed for decoding.
enum class MlaForm { kAuto, kExpanded, kAbsorbed };

// What one layer did, for comparisons, balance losses and load counts.
struct LayerTrace {
  int64_t layer = 0;
  Tensor hidden_BSD;  // residual stream after the layer
  LatentRow row;
  bool is_moe = false;
  Tensor logit_TE;  // with is_moe; T = B*S
  Routing routing;
};
struct Trace {
  bool keep_rows = true;  // of the cache; off, the fp32 pass without a cache takes the fused attention
  Tensor embedded_BSD;
  std::vector<LayerTrace> layers;
};

class Transformer {
 public:
  // REQUIRES: weights hold every tensor of weight_specs(config), or of the stages in weights.part; of `share`
  // their parts.
  Transformer(ModelConfig config, ModelWeights weights, const WeightShare& share = {});

  // Hidden states after the final norm, [B, S, D], of ids_BS (int64) at positions cache->length() onwards
  // (0 without a cache). With a cache the new rows are appended to it. Differentiable without a cache.
  // `pass` other than the default: fp32 without a cache only.
  // Throws invalid_argument for an id outside the vocabulary, exhausted for a full cache.
  Tensor forward(const Tensor& ids_BS, LatentCache* cache = nullptr, Trace* trace = nullptr,
                 MlaForm form = MlaForm::kAuto, const TrainingPass& pass = {}) const;

  // forward() without a cache in pieces: the embedding, [B, S, D]; main layers [first, last); final_norm().
  Tensor embed(const Tensor& ids_BS) const;
  Tensor layers(int64_t first, int64_t last, Tensor x_BSD, Trace* trace, const TrainingPass& pass) const;
  Tensor final_norm(const Tensor& x_BSD) const;

  // Output of MTP module `depth` (0-based), [B, S, D] after its own final norm: position i joins hidden i
  // (the previous module's output, or forward's) with the embedding of the token depth+1 further on.
  Tensor mtp(int64_t depth, const Tensor& hidden_BSD, const Tensor& next_ids_BS, Trace* trace = nullptr,
             const TrainingPass& pass = {}) const;
  Tensor mtp_embedded(int64_t depth, const Tensor& hidden_BSD, const Tensor& next_BSD, Trace* trace,
                      const TrainingPass& pass) const;

  // [..., D] -> [..., W]
  Tensor logits(const Tensor& hidden) const;

  const ModelConfig& config() const { return config_; }
  const WeightShare& share() const { return share_; }
  ModelWeights& weights() { return weights_; }
  const ModelWeights& weights() const { return weights_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

 private:
  // What all layers of a pass share.
  struct Pass {
    const RopeAngles& angles;
    LatentCache* cache;
    MlaForm form;
    const TrainingPass& training;
  };
  // Attention of one layer before the output projection, [B, S, H*V].
  Tensor attention(int64_t index, const Tensor& normed_BSD, const Pass& pass, LatentRow* row,
                   Discarded& discarded) const;
  Tensor layer(int64_t index, const Tensor& x_BSD, const Pass& pass, Trace* trace) const;
  // The layer itself; fills `record`, with `row` its latent row too. chosen_TA as in route().
  Tensor layer_body(int64_t index, Tensor x_BSD, const Pass& pass, LayerTrace& record, LatentRow* row,
                    const Tensor& chosen_TA = {}) const;
  Tensor recomputed_layer(int64_t index, const Tensor& x_BSD, const Pass& pass, LayerTrace& record) const;

  RopeAngles angles(int64_t begin, int64_t end) const;

  ModelConfig config_;
  WeightShare share_;
  MlaConfig mla_;  // with the heads of the share
  ModelWeights weights_;
  at::ScalarType dtype_ = at::kFloat;
  at::Device device_ = at::kCPU;
};

}  // namespace hadal
