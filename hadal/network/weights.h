// Views of a model's weights where they lie, in a checkpoint's map or in the trainer's tensors, each in the
// format it is stored in. Shapes: config/weight_specs.h. The views do not own: `owner` keeps the memory
// alive.
#pragma once
#include <array>
#include <memory>
#include <vector>

#include "hadal/config.h"
#include "hadal/kernels/infer.h"

namespace hadal {

struct IndexerView {
  WeightView query;                                      // [X*Y, Q]: X heads of Y
  WeightView key;                                        // [Y, D]
  const float *key_norm = nullptr, *key_bias = nullptr;  // [Y], of a LayerNorm
  WeightView weights;                                    // [X, D]
};

struct MlaView {
  WeightView query;         // [H*K, D], instead of the next two where query_latent is 0
  WeightView q_down, q_up;  // [Q, D], [H*K, Q]
  const float* q_norm = nullptr;
  WeightView kv_down;  // [C+R, D]
  const float* kv_norm = nullptr;
  WeightView kv_up;       // [H*(N+V), C]: per head k_up [N, C], then v_up [V, C]
  WeightView out;         // [D, H*V]
  IndexerView indexer{};  // N = 0 where there is none
};

// All of them; N is 0 of those that a model does not have.
inline std::array<const WeightView*, 9> matrices_of(const MlaView& mla) {
  return {&mla.query, &mla.q_down,        &mla.q_up,        &mla.kv_down,        &mla.kv_up,
          &mla.out,   &mla.indexer.query, &mla.indexer.key, &mla.indexer.weights};
}

struct MlpView {
  WeightView gate, up, down;  // [F, D], [F, D], [D, F]
};

struct MoeView {
  WeightView router;                    // [E, D]
  const float* balance_bias = nullptr;  // [E]; null where the gate has none
  std::vector<MlpView> experts;         // E
  MlpView shared;                       // N = 0 where there is none
};

struct MtpView {
  const float *embedding_norm = nullptr, *hidden_norm = nullptr;  // [D]
  WeightView project;                                             // [D, 2D], embedding half first
  const float* final_norm = nullptr;                              // [D]
};

struct LayerView {
  const float *attention_norm = nullptr, *ffn_norm = nullptr;  // [D]
  MlaView mla;
  bool is_moe = false;
  MlpView mlp;  // dense layers
  MoeView moe;  // MoE layers
  MtpView mtp;  // MTP modules
};

struct NetworkWeights {
  ModelConfig config;
  WeightView embedding;           // [W, D]
  std::vector<LayerView> layers;  // main layers, then MTP modules
  const float* final_norm = nullptr;
  WeightView head;               // [W, D]; N = 0 in a reward model
  const float* score = nullptr;  // [D], of a reward model alone
  std::vector<std::shared_ptr<const void>> owner;
};

}  // namespace hadal
