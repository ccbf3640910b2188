#include "hadal/train/adamw.h"

#include <algorithm>
#include <cmath>

#include "hadal/config/weight_specs.h"
#include "hadal/kernels/train.h"
#include "hadal/tensor/make.h"

namespace hadal {

namespace {

float* floats(const Tensor& x, int64_t at) {
  return static_cast<float*>(x.data_ptr()) + at;
}

// By blocks of fixed size, added in order: the same for any number of threads.
double sum_squares(const Tensor& x) {
  constexpr int64_t kBlock = 1 << 16;
  const int64_t n = x.numel(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> partial(static_cast<size_t>(blocks));
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      partial[static_cast<size_t>(b)] =
          train_kernels().sum_squares(floats(x, b * kBlock), std::min(kBlock, n - b * kBlock));
  });
  double sum = 0;
  for (const double part : partial) sum += part;
  return sum;
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

AdamW::AdamW(Transformer& model, const AdamWConfig& config) : config_(config) {
  for_each_weight(model.config(), model.weights(), [&](const WeightSpec& spec, Tensor& weight) {
    if (spec.role == WeightRole::kBalanceBias) return;
    weight.requires_grad_(true);
    const auto type = config.bf16_moments ? at::kBFloat16 : at::kFloat;
    slots_.push_back(
        {spec.name, weight, zeros(spec.shape, type), zeros(spec.shape, type), spec.shape.size() >= 2});
  });
}

double AdamW::step(double learning_rate) {
  NoGrad no_grad;
  double squares = 0;
  for (const Slot& slot : slots_)
    if (slot.weight.grad().defined()) squares += sum_squares(slot.weight.grad().contiguous());
  const double norm = std::sqrt(squares);
  const double scale = std::min(1.0, config_.clip / (norm + 1e-6));
  if (std::isfinite(norm)) ++steps_;

  const double correct1 = 1 - std::pow(config_.beta1, static_cast<double>(steps_));
  const double correct2 = 1 - std::pow(config_.beta2, static_cast<double>(steps_));
  for (Slot& slot : slots_) {
    Tensor& grad = slot.weight.mutable_grad();
    if (std::isfinite(norm)) {
      const Tensor g = grad.defined() ? grad.contiguous() : zeros(slot.weight.sizes());
      const auto update = [&](float* m, float* v, int64_t b, int64_t n) {
        train_kernels().adamw(floats(slot.weight, b), m, v, floats(g, b), static_cast<float>(scale),
                              static_cast<float>(config_.beta1), static_cast<float>(config_.beta2),
                              static_cast<float>(learning_rate), static_cast<float>(correct1),
                              static_cast<float>(correct2), static_cast<float>(config_.eps),
                              slot.decays ? static_cast<float>(config_.weight_decay) : 0.0f, n);
      };
      parallel_for(slot.weight.numel(), 16384, [&](int64_t b, int64_t e) {
        if (config_.bf16_moments) {
          update_wide(slot.m, slot.v, b, e, update);
        } else {
          update(floats(slot.m, b), floats(slot.v, b), b, e - b);
        }
      });
    }
    grad.reset();  // the next backward hands its own tensor over: nothing to zero, nothing to add
  }
  return norm;
}

void update_balance_bias(Transformer& model, const std::vector<ExpertLoad>& loads, double gamma) {
  NoGrad no_grad;
  for (const ExpertLoad& load : loads) {
    Tensor& bias_E = model.weights().layers[static_cast<size_t>(load.layer)].moe.balance_bias_E;
    if (!bias_E.defined()) continue;
    const Tensor count_E = load.count_E.to(at::kDouble);
    bias_E.add_((count_E.mean() - count_E).sign().to(at::kFloat), gamma);
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
