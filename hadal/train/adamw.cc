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

// First element and size of each block of elements [begin, end) of a weight.
std::vector<std::pair<int64_t, int64_t>> blocks_of(const TrainedWeight& weight, int64_t begin, int64_t end) {
  std::vector<std::pair<int64_t, int64_t>> blocks;
  for_each_block(begin, end, weight.row, kShardBlock,
                 [&](int64_t first, int64_t size) { blocks.emplace_back(first, size); });
  return blocks;
}

ShardLayout layout_of(const std::vector<TrainedWeight>& weights, int64_t ranks) {
  std::vector<int64_t> sizes, rows;
  for (const TrainedWeight& weight : weights)
    sizes.push_back(weight.values.numel()), rows.push_back(weight.row);
  return {sizes, ranks, rows};
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

std::vector<TrainedWeight> trained_weights(Transformer& model) {
  std::vector<TrainedWeight> weights;
  const WeightShare& share = model.share();
  for_each_weight(model.config(), model.weights(), [&](const WeightSpec& spec, Tensor& weight) {
    if (spec.role == WeightRole::kBalanceBias) return;
    const bool cut = share.tensor_ranks > 1 && spec.cut();
    const int64_t leading = spec.shape[0];
    const int64_t row = cut ? weight.numel() : spec.num_values() / (spec.stacked() ? leading : 1);
    const int64_t begin = cut ? 0 : part_of(spec, share).begin * (spec.num_values() / leading);
    weights.push_back({spec.name, weight, spec.shape, begin, row, cut});
  });
  return weights;
}

AdamW::AdamW(std::vector<TrainedWeight> weights, const AdamWConfig& config, OptimizerShare share)
    : config_(config),
      weights_(std::move(weights)),
      layout_(layout_of(weights_, share.ranks)),
      share_(share) {
  for (const TrainedWeight& weight : weights_) weight.values.requires_grad_(true);
  const auto type = moment_type();
  for (const ShardLayout::Part& part : layout_.parts(share.rank)) {
    const TrainedWeight& weight = weights_[static_cast<size_t>(part.tensor)];
    int64_t whole = 1;
    for (const int64_t size : weight.shape) whole *= size;
    const std::vector<int64_t> shape =
        part.size() == whole ? weight.shape : std::vector<int64_t>{part.size()};
    moments_.push_back({weight.name, weight.shape, weight.begin + part.begin,
                        weight.values.new_zeros(shape, type), weight.values.new_zeros(shape, type)});
  }
}

std::vector<double> AdamW::block_squares(const std::vector<Tensor>& gradients) const {
  std::vector<double> squares;
  const std::vector<ShardLayout::Part>& parts = layout_.parts(share_.rank);
  // All of a tensor stands for its first block: a device has an order of addition of its own.
  const bool plain = computes_plainly();
  const std::vector<double> whole = plain ? sums_of_squares(gradients) : std::vector<double>();
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto blocks =
        blocks_of(weights_[static_cast<size_t>(parts[i].tensor)], parts[i].begin, parts[i].end);
    const auto at = static_cast<int64_t>(squares.size());
    squares.resize(squares.size() + blocks.size());
    if (plain) {
      squares[static_cast<size_t>(at)] = whole[i];
      continue;
    }
    if (!gradients[i].defined()) continue;
    parallel_for(static_cast<int64_t>(blocks.size()), 4, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const auto [first, size] = blocks[static_cast<size_t>(b)];
        squares[static_cast<size_t>(at + b)] =
            train_kernels().sum_squares(floats(gradients[i], first - parts[i].begin), size);
      }
    });
  }
  return squares;
}

std::vector<double> AdamW::tensor_squares(std::span<const double> squares, int64_t runs) const {
  std::vector<double> of_tensor(weights_.size());
  size_t at = 0;
  for (int64_t run = 0; run < runs; ++run)
    for (size_t t = 0; t < weights_.size(); ++t)
      for (size_t b = blocks_of(weights_[t], 0, weights_[t].values.numel()).size(); b > 0; --b)
        of_tensor[t] += squares[at++];
  HADAL_CHECK(at == squares.size()) << at << " blocks of " << squares.size();
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
    const Tensor& weight = weights_[static_cast<size_t>(parts[i].tensor)].values;
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
  return !weights_.empty() && is_plain(weights_.front().values);
}

void AdamW::update_plain(double learning_rate, double scale, const std::vector<Tensor>& gradients) {
  HADAL_CHECK(share_.ranks == 1) << "a device has all of the moments";
  for (const bool decays : {false, true}) {
    std::vector<Tensor> weights, g, m, v;
    std::vector<const Moments*> kept;
    for (size_t i = 0; i < moments_.size(); ++i) {
      if (decays != (moments_[i].shape.size() >= 2)) continue;
      weights.push_back(weights_[i].values), kept.push_back(&moments_[i]);
      g.push_back(gradients[i].defined() ? gradients[i] : weights.back().new_zeros(weights.back().sizes()));
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
  for (const TrainedWeight& weight : weights_) {
    const Tensor& gradient = weight.values.grad();
    gradients.push_back(gradient.defined() ? gradient.contiguous() : Tensor());
  }
  const double global = global_norm(tensor_squares(block_squares(gradients)));
  update(learning_rate, global, gradients);
  // The next backward hands its own tensors over: nothing to zero, nothing to add.
  for (TrainedWeight& weight : weights_) weight.values.mutable_grad().reset();
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
