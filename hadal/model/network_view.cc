#include "hadal/model/network_view.h"

#include "hadal/base/check.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

WeightView view(const Tensor& matrix) {
  if (!matrix.defined()) return {};
  HADAL_CHECK(matrix.is_contiguous() && matrix.dim() == 2) << "a matrix must be contiguous";
  const bool wide = matrix.scalar_type() == at::kFloat;
  HADAL_CHECK(wide || matrix.scalar_type() == at::kBFloat16) << "a matrix must be fp32 or bf16";
  return {wide ? WeightFormat::kF32 : WeightFormat::kBF16, matrix.size(0), matrix.size(1),
          matrix.const_data_ptr()};
}

MlpView view(const MlpWeights& w) {
  return {view(w.gate), view(w.up), view(w.down)};
}

class Viewer {
 public:
  explicit Viewer(const ModelConfig& config) { out_.config = config; }

  NetworkWeights view_all(const ModelWeights& weights) {
    out_.embedding = view(weights.embedding_WD), out_.head = view(weights.head_WD);
    out_.final_norm = vector(weights.final_norm), out_.score = vector(weights.score_XD);
    for (size_t i = 0; i < weights.layers.size(); ++i)
      out_.layers.push_back(layer(weights.layers[i], out_.config.is_moe(static_cast<int64_t>(i))));
    keep(weights.embedding_WD), keep(weights.head_WD);
    return std::move(out_);
  }

 private:
  void keep(const Tensor& tensor) { out_.owner.push_back(std::make_shared<const Tensor>(tensor)); }

  const float* vector(const Tensor& tensor) {
    if (!tensor.defined()) return nullptr;
    const Tensor wide = tensor.detach().to(at::kFloat).contiguous();
    keep(wide);
    return wide.const_data_ptr<float>();
  }

  LayerView layer(const LayerWeights& w, bool is_moe) {
    LayerView out;
    out.attention_norm = vector(w.attention_norm), out.ffn_norm = vector(w.ffn_norm);
    out.mla = {view(w.mla.query),   view(w.mla.q_down),    view(w.mla.q_up),  vector(w.mla.q_norm),
               view(w.mla.kv_down), vector(w.mla.kv_norm), view(w.mla.kv_up), view(w.mla.out)};
    out.is_moe = is_moe;
    if (is_moe) {
      out.moe.router = view(w.moe.router_ED), out.moe.balance_bias = vector(w.moe.balance_bias_E);
      for (int64_t e = 0; e < out_.config.moe.num_experts; ++e)
        out.moe.experts.push_back({view(w.moe.experts.gate_EMD[e]), view(w.moe.experts.up_EMD[e]),
                                   view(w.moe.experts.down_EDM[e])});
      out.moe.shared = view(w.moe.shared);
    } else {
      out.mlp = view(w.mlp);
    }
    out.mtp = {vector(w.mtp.embedding_norm), vector(w.mtp.hidden_norm), view(w.mtp.project),
               vector(w.mtp.final_norm)};
    for (const Tensor* tensor :
         {&w.mla.query, &w.mla.q_down, &w.mla.q_up, &w.mla.kv_down, &w.mla.kv_up, &w.mla.out, &w.mlp.gate,
          &w.mlp.up, &w.mlp.down, &w.moe.router_ED, &w.moe.experts.gate_EMD, &w.moe.experts.up_EMD,
          &w.moe.experts.down_EDM, &w.moe.shared.gate, &w.moe.shared.up, &w.moe.shared.down, &w.mtp.project})
      if (tensor->defined()) keep(*tensor);
    return out;
  }

  NetworkWeights out_;
};

}  // namespace

NetworkWeights network_view(const ModelConfig& config, const ModelWeights& weights) {
  return Viewer(config).view_all(weights);
}

}  // namespace hadal
