#include "hadal/train/adamw.h"

#include <algorithm>
#include <cmath>

#include "hadal/base/check.h"
#include "hadal/config/weight_specs.h"
#include "hadal/kernels/train.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/tensor_lists.h"

namespace hadal {

namespace {

float* floats(const Tensor& x, int64_t at) {
  return static_cast<float*>(x.data_ptr()) + at;
}

// squares[i]: of block i of g, blocks of fixed size: the same for any number of threads and ranks.
void block_squares(const Tensor& g, double* squares) {
  const int64_t n = g.numel(), blocks = (n + kShardBlock - 1) / kShardBlock;
  parallel_for(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      squares[b] =
          train_kernels().sum_squares(floats(g, b * kShardBlock), std::min(kShardBlock, n - b * kShardBlock));
  });
}

int64_t num_blocks(const ShardLayout::Part& part) {
  return (part.size() + kShardBlock - 1) / kShardBlock;
}

std::vector<Tensor> trained_weights(Transformer& model) {
  std::vector<Tensor> weights;
  for_each_weight(model.config(), model.weights(), [&](const WeightSpec& spec, Tensor& weight) {
    if (spec.role != WeightRole::kBalanceBias) weights.push_back(weight);
  });
  return weights;
}

ShardLayout layout_of(const std::vector<Tensor>& weights, int64_t ranks) {
  std::vector<int64_t> sizes;
  for (const Tensor& weight : weights) sizes.push_back(weight.numel());
  return {sizes, ranks};
}

// update(m, v, first value, n) on fp32 copies of bf16 moments [begin, end), a few at a time: no whole copy of
// a tensor ever exists. Rounded to nearest even.
void update_wide(const Tensor& m, const Tensor& v, int64_t begin, int64_t end, auto&& update) {
  constexpr int64_t kPiece = 1024;
  float wide[2][kPiece];
  at::BFloat16* const kept[2] = {static_cast<at::BFloat16*>(m.data_ptr()),
                                 static_cast<at::BFloat16*>(v.data_ptr())};
  for (int64_t at = begin; at < end; at += kPiece) {
    const int64_t n = std::min(kPiece, end - at);
    for (int k : {0, 1}) std::copy_n(kept[k] + at, n, wide[k]);
    update(wide[0], wide[1], at, n);
    for (int k : {0, 1}) std::copy_n(wide[k], n, kept[k] + at);
  }
}

}  // namespace

AdamWConfig adamw_config(const OptimizerSection& o) {
  return {.beta1 = o.beta1,
          .beta2 = o.beta2,
          .eps = o.eps,
          .weight_decay = o.weight_decay,
          .clip = o.clip,
          .bf16_moments = o.bf16_moments};
}

AdamW::AdamW(Transformer& model, const AdamWConfig& config, OptimizerShare share)
    : config_(config),
      weights_(trained_weights(model)),
      layout_(layout_of(weights_, share.ranks)),
      share_(share) {
  for_each_weight(model.config(), model.weights(), [&](const WeightSpec& spec, Tensor&) {
    if (spec.role != WeightRole::kBalanceBias) names_.push_back(spec.name);
  });
  for (const Tensor& weight : weights_) weight.requires_grad_(true);
  const auto type = moment_type();
  for (const ShardLayout::Part& part : layout_.parts(share.rank)) {
    const Tensor& weight = weights_[static_cast<size_t>(part.tensor)];
    const std::vector<int64_t> whole = weight.sizes().vec();
    const std::vector<int64_t> shape =
        part.size() == weight.numel() ? whole : std::vector<int64_t>{part.size()};
    moments_.push_back({names_[static_cast<size_t>(part.tensor)], whole, part.begin,
                        weight.new_zeros(shape, type), weight.new_zeros(shape, type)});
  }
}

std::vector<double> AdamW::block_squares(const std::vector<Tensor>& gradients) const {
  std::vector<double> squares;
  const std::vector<ShardLayout::Part>& parts = layout_.parts(share_.rank);
  // All of a tensor stands for its first block: a device has an order of addition of its own.
  const bool plain = computes_plainly();
  const std::vector<double> whole = plain ? sums_of_squares(gradients) : std::vector<double>();
  for (size_t i = 0; i < parts.size(); ++i) {
    const size_t at = squares.size();
    squares.resize(at + static_cast<size_t>(num_blocks(parts[i])));
    if (plain) {
      squares[at] = whole[i];
      continue;
    }
    if (gradients[i].defined()) hadal::block_squares(gradients[i], squares.data() + at);
  }
  return squares;
}

std::vector<double> AdamW::tensor_squares(std::span<const double> squares) const {
  std::vector<double> of_tensor(weights_.size());
  size_t at = 0;
  for (int64_t r = 0; r < layout_.ranks(); ++r)
    for (const ShardLayout::Part& part : layout_.parts(r))
      for (int64_t b = 0; b < num_blocks(part); ++b)
        of_tensor[static_cast<size_t>(part.tensor)] += squares[at++];
  return of_tensor;
}

double global_norm(std::span<const double> tensor_squares) {
  double sum = 0;
  for (const double each : tensor_squares) sum += each;
  return std::sqrt(sum);
}

void AdamW::update(double learning_rate, double norm, const std::vector<Tensor>& gradients) {
  if (!std::isfinite(norm)) return;
  NoGrad no_grad;
  const double scale = std::min(1.0, config_.clip / (norm + 1e-6));
  ++steps_;
  if (computes_plainly()) return update_plain(learning_rate, scale, gradients);
  const double correct1 = 1 - std::pow(config_.beta1, static_cast<double>(steps_));
  const double correct2 = 1 - std::pow(config_.beta2, static_cast<double>(steps_));
  const std::vector<ShardLayout::Part>& parts = layout_.parts(share_.rank);
  for (size_t i = 0; i < parts.size(); ++i) {
    const Moments& moments = moments_[i];
    const Tensor& weight = weights_[static_cast<size_t>(parts[i].tensor)];
    const int64_t begin = parts[i].begin;
    const Tensor g = gradients[i].defined() ? gradients[i] : zeros({parts[i].size()});
    const bool decays = moments.shape.size() >= 2;
    const auto update = [&](float* m, float* v, int64_t b, int64_t n) {
      train_kernels().adamw(floats(weight, begin + b), m, v, floats(g, b), static_cast<float>(scale),
                            static_cast<float>(config_.beta1), static_cast<float>(config_.beta2),
                            static_cast<float>(learning_rate), static_cast<float>(correct1),
                            static_cast<float>(correct2), static_cast<float>(config_.eps),
                            decays ? static_cast<float>(config_.weight_decay) : 0.0f, n);
    };
    parallel_for(parts[i].size(), 16384, [&](int64_t b, int64_t e) {
      if (config_.bf16_moments) {
        update_wide(moments.m, moments.v, b, e, update);
      } else {
        update(floats(moments.m, b), floats(moments.v, b), b, e - b);
      }
    });
  }
}

bool AdamW::computes_plainly() const {
  return !weights_.empty() && is_plain(weights_.front());
}

void AdamW::update_plain(double learning_rate, double scale, const std::vector<Tensor>& gradients) {
  HADAL_CHECK(share_.ranks == 1) << "a device has all of the moments";
  for (const bool decays : {false, true}) {
    std::vector<Tensor> weights, g, m, v;
    std::vector<const Moments*> kept;
    for (size_t i = 0; i < moments_.size(); ++i) {
      if (decays != (moments_[i].shape.size() >= 2)) continue;
      weights.push_back(weights_[i]), kept.push_back(&moments_[i]);
      g.push_back(gradients[i].defined() ? gradients[i] : weights_[i].new_zeros(weights_[i].sizes()));
      m.push_back(moments_[i].m.to(at::kFloat)), v.push_back(moments_[i].v.to(at::kFloat));
    }
    adamw_update({.learning_rate = learning_rate,
                  .beta1 = config_.beta1,
                  .beta2 = config_.beta2,
                  .eps = config_.eps,
                  .weight_decay = decays ? config_.weight_decay : 0.0,
                  .gradient_scale = scale,
                  .step = steps_},
                 weights, g, m, v);
    if (config_.bf16_moments)
      for (size_t i = 0; i < kept.size(); ++i) kept[i]->m.copy_(m[i]), kept[i]->v.copy_(v[i]);
  }
}

double AdamW::step(double learning_rate) {
  NoGrad no_grad;
  HADAL_CHECK(share_.ranks == 1) << "the other ranks' shares are missing";
  std::vector<Tensor> gradients;
  for (const Tensor& weight : weights_)
    gradients.push_back(weight.grad().defined() ? weight.grad().contiguous() : Tensor());
  const double global = global_norm(tensor_squares(block_squares(gradients)));
  update(learning_rate, global, gradients);
  // The next backward hands its own tensors over: nothing to zero, nothing to add.
  for (Tensor& weight : weights_) weight.mutable_grad().reset();
  return global;
}

void update_balance_bias(Transformer& model, const std::vector<ExpertLoad>& loads, double gamma) {
  NoGrad no_grad;
  for (const ExpertLoad& load : loads) {
    Tensor& bias_E = model.weights().layers[static_cast<size_t>(load.layer)].moe.balance_bias_E;
    if (!bias_E.defined()) continue;
    const Tensor count_E = load.count_E.to(at::kDouble);
    bias_E.add_((count_E.mean() - count_E).sign().to(at::kFloat).to(bias_E.device()), gamma);
  }
}

double max_violation(const std::vector<ExpertLoad>& loads) {
  double total = 0;
  for (const ExpertLoad& load : loads) {
    const Tensor count_E = load.count_E.to(at::kDouble);
    const double mean = count_E.mean().item<double>();
    total += (count_E.max().item<double>() - mean) / mean;
  }
  return loads.empty() ? 0.0 : total / static_cast<double>(loads.size());
}

}  // namespace hadal
