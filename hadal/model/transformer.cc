#include "hadal/model/transformer.h"

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/config/weight_specs.h"
#include "hadal/ops/fused.h"
#include "hadal/ops/linear.h"
#include "hadal/ops/rms_norm.h"
#include "hadal/ops/tensor_sum.h"
#include "hadal/tensor/device.h"
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

void check_context(const ModelConfig& config, int64_t positions) {
  if (positions > config.max_positions)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[model.forward] ", positions, " tokens, the model's context is ", config.max_positions,
                    ". Shorten the prompt."));
}

}  // namespace

Transformer::Transformer(ModelConfig config, ModelWeights weights, const WeightShare& share)
    : config_(std::move(config)), share_(share), mla_(config_.mla), weights_(std::move(weights)) {
  mla_.num_heads /= share.tensor_ranks;
  for_each_weight(config_, weights_, [&](const WeightSpec& spec, Tensor& tensor) {
    HADAL_CHECK(tensor.defined()) << spec.name;
    // Experts may have one more dimension, for gradients by sender: ops/fused.h.
    const std::vector<int64_t> shape = shape_of(spec, share);
    const bool by_sender = spec.split == WeightSplit::kExperts && tensor.dim() == 4;
    HADAL_CHECK(tensor.sizes().slice(by_sender ? 1 : 0).equals(shape)) << spec.name;
    if (spec.role != WeightRole::kBalanceBias) dtype_ = tensor.scalar_type();
    device_ = tensor.device();
  });
}

RopeAngles Transformer::angles(int64_t begin, int64_t end) const {
  return rope_angles(config_.mla, on_device(arange(begin, end), device_));
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

Tensor Transformer::attention(int64_t index, const Tensor& normed_BSD, const Pass& pass, LatentRow* row,
                              Discarded& discarded) const {
  const MlaWeights& w = weights_.layers[static_cast<size_t>(index)].mla;
  const MlaConfig& mla = mla_;
  const int64_t B = normed_BSD.size(0), S = normed_BSD.size(1), D = config_.width;
  HADAL_SHAPE(normed_BSD, B, S, D);
  const double scale = config_.softmax_scale();
  LatentCache* cache = pass.cache;
  MlaForm form = pass.form;
  if (!cache && !row && form == MlaForm::kAuto && dtype() == at::kFloat)
    return mla_training(mla, w, normed_BSD, pass.angles, scale, pass.training, discarded);
  HADAL_CHECK(!pass.training.segment_start_BS.defined()) << "documents are masked in fp32 training only";
  HADAL_CHECK(share_.tensor_ranks == 1) << "heads are shared out in training only";
  const MlaQuery query = project_query(mla, w, normed_BSD, pass.angles);
  LatentRow fresh = project_latent(mla, w, normed_BSD, pass.angles);
  LatentCache::Rows keys{fresh.latent_BSC, fresh.rope_key_BSR};
  if (cache) keys = cache->append(index, fresh.latent_BSC, fresh.rope_key_BSR);
  if (row) *row = std::move(fresh);
  if (form == MlaForm::kAuto)
    form = !cache || expanded_is_cheaper(mla, S) ? MlaForm::kExpanded : MlaForm::kAbsorbed;
  const auto attend = form == MlaForm::kExpanded ? mla_expanded : mla_absorbed;
  return attend(mla, w, query, keys.latent_BLC, keys.rope_key_BLR, scale).flatten(-2);
}

Tensor Transformer::layer_body(int64_t index, Tensor x_BSD, const Pass& pass, LayerTrace& record,
                               LatentRow* row, const Tensor& chosen_TA) const {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(index)];
  const TrainingPass& training = pass.training;
  const bool selective = training.recompute == Recompute::kSelective;
  const auto norm_again = [eps = config_.norm_eps](const Tensor& x, const Tensor& gain) {
    return [x = x.detach(), gain = gain.detach(), eps] { return rms_norm(x, gain, eps); };
  };
  const Tensor normed_BSD = rms_norm(x_BSD, w.attention_norm, config_.norm_eps);
  Discarded before_attention(selective), before_ffn(selective);
  before_attention.add(normed_BSD, norm_again(x_BSD, w.attention_norm));
  const Tensor heads = attention(index, normed_BSD, pass, row, before_attention);
  before_attention.free_until_gradient_of({heads});
  const Tensor attended_BSD =
      out_of_parts(project(training, heads, w.mla.out, Fp8Input::kAttention), training.tensor_sum);
  Tensor ffn_in_BSD;
  if (dtype() == at::kFloat) {
    SumAndNorm both = fused_add_rms_norm(x_BSD, attended_BSD, w.ffn_norm, config_.norm_eps);
    x_BSD = both.sum, ffn_in_BSD = both.normed;
  } else {
    x_BSD = x_BSD + attended_BSD;
    ffn_in_BSD = rms_norm(x_BSD, w.ffn_norm, config_.norm_eps);
  }
  before_ffn.add(ffn_in_BSD, norm_again(x_BSD, w.ffn_norm));
  Tensor y;
  if (record.is_moe) {
    const auto& given = training.chosen_TA;
    const bool replay = !chosen_TA.defined() && index < std::ssize(given);
    MoeOutput moe = moe_block(config_.moe, w.moe, ffn_in_BSD.flatten(0, 1), training,
                              replay ? given[static_cast<size_t>(index)] : chosen_TA);
    y = moe.y_TD.view(x_BSD.sizes());
    before_ffn.free_until_gradient_of({y, moe.logit_TE});
    record.logit_TE = moe.logit_TE;
    record.routing = std::move(moe.routing);
  } else {
    y = mlp(w.mlp, ffn_in_BSD, training);
    before_ffn.free_until_gradient_of({y});
  }
  return x_BSD + y;
}

// Outputs that gradients come from: the hidden state and the affinities, for the balance losses.
Tensor Transformer::recomputed_layer(int64_t index, const Tensor& x_BSD, const Pass& pass,
                                     LayerTrace& record) const {
  const int64_t B = x_BSD.size(0), S = x_BSD.size(1), D = config_.width;
  HADAL_SHAPE(x_BSD, B, S, D);
  auto chosen_TA = std::make_shared<Tensor>();  // by the first run
  const RopeAngles angles = pass.angles;
  const TrainingPass training = pass.training;
  auto first = std::make_shared<LayerTrace>(record);
  const std::vector<Tensor> out = recomputed(
      [this, index, angles, training, chosen_TA, first, is_moe = record.is_moe](const Tensor& x) {
        LayerTrace again{.layer = index, .is_moe = is_moe};
        const Tensor y =
            layer_body(index, x, {angles, nullptr, MlaForm::kAuto, training}, again, nullptr, *chosen_TA);
        if (is_moe && !chosen_TA->defined()) *chosen_TA = again.routing.expert_TA, *first = again;
        return is_moe ? std::vector<Tensor>{y, again.routing.affinity_TE} : std::vector<Tensor>{y};
      },
      x_BSD);
  record = *first;
  *first = {};  // only the choice is kept
  if (record.is_moe) record.routing.affinity_TE = out[1];
  return out[0];
}

Tensor Transformer::layer(int64_t index, const Tensor& x_BSD, const Pass& pass, Trace* trace) const {
  const int64_t B = x_BSD.size(0), S = x_BSD.size(1), D = config_.width;
  HADAL_SHAPE(x_BSD, B, S, D);
  LayerTrace record{.layer = index, .is_moe = config_.is_moe(index)};
  LatentRow* row = trace && trace->keep_rows ? &record.row : nullptr;
  const bool again = pass.training.recompute == Recompute::kFull && x_BSD.requires_grad();
  Tensor y_BSD =
      again ? recomputed_layer(index, x_BSD, pass, record) : layer_body(index, x_BSD, pass, record, row);
  if (trace) {
    record.hidden_BSD = y_BSD;
    trace->layers.push_back(std::move(record));
  }
  return y_BSD;
}

Tensor Transformer::forward(const Tensor& ids_BS, LatentCache* cache, Trace* trace, MlaForm form,
                            const TrainingPass& pass) const {
  const int64_t B = ids_BS.size(0), S = ids_BS.size(1), past = cache ? cache->length() : 0;
  HADAL_SHAPE(ids_BS, B, S);
  check_context(config_, past + S);
  const RopeAngles angles = this->angles(past, past + S);
  Tensor x_BSD = embed(ids_BS);
  if (trace) trace->embedded_BSD = x_BSD;
  for (int64_t i = 0; i < config_.num_layers; ++i)
    x_BSD = layer(i, x_BSD, {angles, cache, form, pass}, trace);
  if (cache) cache->advance(S);
  return final_norm(x_BSD);
}

Tensor Transformer::layers(int64_t first, int64_t last, Tensor x_BSD, Trace* trace,
                           const TrainingPass& pass) const {
  const int64_t B = x_BSD.size(0), S = x_BSD.size(1), D = config_.width;
  HADAL_SHAPE(x_BSD, B, S, D);
  check_context(config_, S);
  const RopeAngles angles = this->angles(0, S);
  for (int64_t i = first; i < last; ++i)
    x_BSD = layer(i, x_BSD, {angles, nullptr, MlaForm::kAuto, pass}, trace);
  return x_BSD;
}

Tensor Transformer::final_norm(const Tensor& x_BSD) const {
  return rms_norm(x_BSD, weights_.final_norm, config_.norm_eps);
}

Tensor Transformer::mtp(int64_t depth, const Tensor& hidden_BSD, const Tensor& next_ids_BS, Trace* trace,
                        const TrainingPass& pass) const {
  return mtp_embedded(depth, hidden_BSD, embed(next_ids_BS), trace, pass);
}

Tensor Transformer::mtp_embedded(int64_t depth, const Tensor& hidden_BSD, const Tensor& next_BSD,
                                 Trace* trace, const TrainingPass& pass) const {
  HADAL_CHECK(depth < config_.mtp_depth) << depth;
  const int64_t index = config_.num_layers + depth;
  const int64_t B = next_BSD.size(0), S = next_BSD.size(1), D = config_.width;
  HADAL_SHAPE(hidden_BSD, B, S, D);
  HADAL_SHAPE(next_BSD, B, S, D);
  const LayerWeights& w = weights_.layers[static_cast<size_t>(index)];
  const Tensor joined = concat({rms_norm(next_BSD, w.mtp.embedding_norm, config_.norm_eps),
                                rms_norm(hidden_BSD, w.mtp.hidden_norm, config_.norm_eps)},
                               -1);
  const RopeAngles angles = this->angles(0, S);  // those of the hidden states
  const Tensor x_BSD = layer(index, linear(joined, w.mtp.project, pass.products).to(joined.scalar_type()),
                             {angles, nullptr, MlaForm::kAuto, pass}, trace);
  return rms_norm(x_BSD, w.mtp.final_norm, config_.norm_eps);
}

Tensor Transformer::logits(const Tensor& hidden) const {
  return hidden.matmul(weights_.head_WD.t());
}

}  // namespace hadal
