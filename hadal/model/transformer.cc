#include "hadal/model/transformer.h"

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/config/weight_specs.h"
#include "hadal/ops/rms_norm.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"

namespace hadal {
namespace {

// New tokens from which expanding every cached key costs less than absorbing every query:
// (N*C + V*C) / ((2C + R) - (K + V)) per head, about 171 for the published sizes (architecture spec 4.4).
bool expanded_is_cheaper(const MlaConfig& mla, int64_t S) {
  const int64_t once = (mla.nope_dim + mla.value_dim) * mla.kv_latent;
  const int64_t saved = 2 * mla.kv_latent + mla.rope_dim - mla.key_dim() - mla.value_dim;
  return saved > 0 && S * saved >= once;
}

}  // namespace

Transformer::Transformer(ModelConfig config, ModelWeights weights)
    : config_(std::move(config)), weights_(std::move(weights)) {
  for_each_weight(config_, weights_, [](const WeightSpec& spec, Tensor& tensor) {
    HADAL_CHECK(tensor.defined() && tensor.sizes().equals(spec.shape)) << spec.name;
  });
}

Tensor Transformer::embed(const Tensor& ids_BS) const {
  const int64_t B = ids_BS.size(0), S = ids_BS.size(1), D = config_.width;
  HADAL_SHAPE(ids_BS, B, S);
  const Tensor bad = ids_BS.lt(0).logical_or(ids_BS.ge(config_.vocab_size));
  if (bad.any().item<bool>()) {
    throw Error(ErrorCode::kInvalidArgument,
                cat("[model.forward] token id ", ids_BS.masked_select(bad)[0].item<int64_t>(),
                    " is outside the vocabulary: need 0 to ", config_.vocab_size - 1,
                    ". Was the text encoded with another model's tokenizer?"));
  }
  return weights_.embedding_WD.index_select(0, ids_BS.flatten()).view({B, S, D});
}

Tensor Transformer::attention(int64_t index, const Tensor& normed_BSD, const RopeAngles& angles,
                              LatentCache* cache, LatentRow* row, MlaForm form,
                              const Tensor& segment_start_BS) const {
  const MlaWeights& w = weights_.layers[static_cast<size_t>(index)].mla;
  const MlaConfig& mla = config_.mla;
  const int64_t B = normed_BSD.size(0), S = normed_BSD.size(1), D = config_.width;
  HADAL_SHAPE(normed_BSD, B, S, D);
  const double scale = config_.softmax_scale();
  if (!cache && !row && form == MlaForm::kAuto && dtype() == at::kFloat)
    return mla_training(mla, w, normed_BSD, angles, scale, segment_start_BS);
  HADAL_CHECK(!segment_start_BS.defined()) << "documents are masked in fp32 training only";
  const MlaQuery query = project_query(mla, w, normed_BSD, angles);
  LatentRow fresh = project_latent(mla, w, normed_BSD, angles);
  LatentCache::Rows keys{fresh.latent_BSC, fresh.rope_key_BSR};
  if (cache) keys = cache->append(index, fresh.latent_BSC, fresh.rope_key_BSR);
  if (row) *row = std::move(fresh);
  if (form == MlaForm::kAuto)
    form = !cache || expanded_is_cheaper(mla, S) ? MlaForm::kExpanded : MlaForm::kAbsorbed;
  const auto attend = form == MlaForm::kExpanded ? mla_expanded : mla_absorbed;
  return attend(mla, w, query, keys.latent_BLC, keys.rope_key_BLR, scale).flatten(-2);
}

Tensor Transformer::layer(int64_t index, Tensor x_BSD, const RopeAngles& angles, LatentCache* cache,
                          Trace* trace, MlaForm form, const Tensor& segment_start_BS) const {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(index)];
  LayerTrace record{.layer = index};
  LatentRow* row = trace && trace->keep_rows ? &record.row : nullptr;
  const Tensor normed_BSD = rms_norm(x_BSD, w.attention_norm, config_.norm_eps);
  x_BSD =
      x_BSD + attention(index, normed_BSD, angles, cache, row, form, segment_start_BS).matmul(w.mla.out.t());

  const Tensor ffn_in_BSD = rms_norm(x_BSD, w.ffn_norm, config_.norm_eps);
  record.is_moe = config_.is_moe(index);
  if (record.is_moe) {
    MoeOutput moe = moe_block(config_.moe, w.moe, ffn_in_BSD.flatten(0, 1));
    x_BSD = x_BSD + moe.y_TD.view(x_BSD.sizes());
    record.logit_TE = moe.logit_TE;
    record.routing = std::move(moe.routing);
  } else {
    x_BSD = x_BSD + mlp(w.mlp, ffn_in_BSD);
  }
  if (trace) {
    record.hidden_BSD = x_BSD;
    trace->layers.push_back(std::move(record));
  }
  return x_BSD;
}

Tensor Transformer::forward(const Tensor& ids_BS, LatentCache* cache, Trace* trace, MlaForm form,
                            const Tensor& segment_start_BS) const {
  const int64_t B = ids_BS.size(0), S = ids_BS.size(1), past = cache ? cache->length() : 0;
  HADAL_SHAPE(ids_BS, B, S);
  if (past + S > config_.max_positions)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[model.forward] ", past + S, " tokens, the model's context is ", config_.max_positions,
                    ". Shorten the prompt."));
  const RopeAngles angles = rope_angles(config_.mla, arange(past, past + S));
  Tensor x_BSD = embed(ids_BS);
  if (trace) trace->embedded_BSD = x_BSD;
  for (int64_t i = 0; i < config_.num_layers; ++i)
    x_BSD = layer(i, x_BSD, angles, cache, trace, form, segment_start_BS);
  if (cache) cache->advance(S);
  return rms_norm(x_BSD, weights_.final_norm, config_.norm_eps);
}

Tensor Transformer::mtp(int64_t depth, const Tensor& hidden_BSD, const Tensor& next_ids_BS, Trace* trace,
                        const Tensor& segment_start_BS) const {
  HADAL_CHECK(depth < config_.mtp_depth) << depth;
  const int64_t index = config_.num_layers + depth;
  const int64_t B = next_ids_BS.size(0), S = next_ids_BS.size(1), D = config_.width;
  HADAL_SHAPE(hidden_BSD, B, S, D);
  const LayerWeights& w = weights_.layers[static_cast<size_t>(index)];
  const Tensor joined = concat({rms_norm(embed(next_ids_BS), w.mtp.embedding_norm, config_.norm_eps),
                                rms_norm(hidden_BSD, w.mtp.hidden_norm, config_.norm_eps)},
                               -1);
  const RopeAngles angles = rope_angles(config_.mla, arange(0, S));  // those of the hidden states
  const Tensor x_BSD = layer(index, joined.matmul(w.mtp.project.t()), angles, nullptr, trace, MlaForm::kAuto,
                             segment_start_BS);
  return rms_norm(x_BSD, w.mtp.final_norm, config_.norm_eps);
}

Tensor Transformer::logits(const Tensor& hidden) const {
  return hidden.matmul(weights_.head_WD.t());
}

}  // namespace hadal
