// The weights of a model: plain structs of tensors, each listed once in fields(). Loading, saving, counting,
// the optimiser and gradient checks all walk for_each_weight(). Shapes: config/weight_specs.h; where ranks
// share a model out, those of their parts (config/weight_share.h).
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "hadal/config.h"
#include "hadal/config/stage.h"
#include "hadal/config/weight_share.h"
#include "hadal/tensor/tensor.h"

namespace hadal {

struct MlaWeights {
  Tensor query;                 // [H*K, D], instead of the next three where query_latent is 0
  Tensor q_down, q_norm, q_up;  // [Q, D], [Q], [H*K, Q]
  Tensor kv_down, kv_norm;      // [C+R, D], [C]
  Tensor kv_up;                 // [H*(N+V), C]: per head k_up [N, C], then v_up [V, C]
  Tensor out;                   // [D, H*V]
  void fields(auto&& f) {
    f("query", query), f("q_down", q_down), f("q_norm", q_norm), f("q_up", q_up);
    f("kv_down", kv_down), f("kv_norm", kv_norm), f("kv_up", kv_up), f("out", out);
  }
};

struct MlpWeights {
  Tensor gate, up, down;  // [F, D], [F, D], [D, F]
  void fields(auto&& f) { f("gate", gate), f("up", up), f("down", down); }
};

// Of ranks that share out experts each has its own, and e of them: gate_EMD is then [e, M, D].
struct ExpertWeights {
  Tensor gate_EMD, up_EMD, down_EDM;
  void fields(auto&& f) { f("gate", gate_EMD), f("up", up_EMD), f("down", down_EDM); }
};

struct MoeWeights {
  Tensor router_ED;
  Tensor balance_bias_E;  // fp32, steers the choice only; undefined where the gate has none
  ExpertWeights experts;
  MlpWeights shared;  // undefined tensors where there is no shared expert
  void fields(auto&& f) { f("router", router_ED), f("balance_bias", balance_bias_E); }
};

struct MtpWeights {
  Tensor embedding_norm, hidden_norm;  // [D]
  Tensor project;                      // [D, 2D], embedding half first
  Tensor final_norm;                   // [D]
  void fields(auto&& f) {
    f("embedding_norm", embedding_norm), f("hidden_norm", hidden_norm), f("project", project);
    f("final_norm", final_norm);
  }
};

struct LayerWeights {
  Tensor attention_norm, ffn_norm;  // [D]
  MlaWeights mla;
  MlpWeights mlp;  // dense layers
  MoeWeights moe;  // MoE layers
  MtpWeights mtp;  // MTP modules
  void fields(auto&& f) { f("attention_norm", attention_norm), f("ffn_norm", ffn_norm); }
};

struct ModelWeights {
  Tensor embedding_WD;
  std::vector<LayerWeights> layers;  // main layers, then MTP modules
  Tensor final_norm;                 // [D]
  Tensor head_WD;                    // the embedding itself where tied; undefined in a reward model
  Tensor score_XD;                   // X: 1; of a reward model alone
  std::vector<Stage> part;           // what is here of the network, the rest is undefined; empty: all
  void fields(auto&& f) {
    f("embedding", embedding_WD), f("final_norm", final_norm), f("head", head_WD), f("score", score_XD);
  }
};

// Calls f(name, tensor) for every slot, defined or not, with the names of weight_specs().
void for_each_slot(ModelWeights& weights, auto&& f) {
  const auto under = [&](const std::string& prefix) {
    return [&f, prefix](const char* field, Tensor& tensor) { f(prefix + field, tensor); };
  };
  weights.fields(under(""));
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    LayerWeights& layer = weights.layers[i];
    const std::string prefix = "layers." + std::to_string(i) + ".";
    layer.fields(under(prefix));
    layer.mla.fields(under(prefix + "mla."));
    layer.mlp.fields(under(prefix + "mlp."));
    layer.moe.fields(under(prefix + "moe."));
    layer.moe.experts.fields(under(prefix + "moe.experts."));
    layer.moe.shared.fields(under(prefix + "moe.shared."));
    layer.mtp.fields(under(prefix + "mtp."));
  }
}

// Calls f(spec, tensor) for the weights of this configuration that are here (weights.part), in weight_specs()
// order. Fills slots: f may assign the tensor. Sizes `layers` first.
using WeightVisitor = std::function<void(const WeightSpec&, Tensor&)>;
void for_each_weight(const ModelConfig& config, ModelWeights& weights, const WeightVisitor& f);

// Random weights: every matrix normal(0, init_std), norms 1, balance bias 0. Each tensor draws from a
// counter-based stream keyed by (seed, name), by the place of a value in the whole tensor, so the start does
// not depend on layout or threads. With a share or stages (empty: all) only what those hold.
ModelWeights random_weights(const ModelConfig& config, uint64_t seed, const WeightShare& share = {},
                            const std::vector<Stage>& stages = {});

// The same on a device.
ModelWeights on_device(const ModelConfig& config, const ModelWeights& weights, at::Device device);

// Of whole weights what a share has: tensors of their own, or the same ones where it has all of them.
ModelWeights cut_to(const ModelConfig& config, const ModelWeights& weights, const WeightShare& share);

// Of some of the stages that are here: the same tensors.
ModelWeights part_of(const ModelConfig& config, const ModelWeights& weights, const std::vector<Stage>& part);

}  // namespace hadal
