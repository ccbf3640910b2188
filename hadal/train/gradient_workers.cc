#include "hadal/train/gradient_workers.h"

#include <algorithm>
#include <exception>
#include <thread>

#include "hadal/config/weight_specs.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

StepLoss run(const Transformer& model, const TrainBatch& batch, const LossConfig& config,
             const LossDivisor& divisor) {
  const BatchLoss loss = batch_loss(model, batch, config, divisor);
  loss.total.backward();
  StepLoss numbers{.total = loss.total.item<double>(),
                   .main = loss.main.item<double>(),
                   .balance = loss.balance.item<double>(),
                   .loads = loss.loads};
  for (const Tensor& mtp : loss.mtp) numbers.mtp.push_back(mtp.item<double>());
  return numbers;
}

// The same memory, with gradients of its own.
ModelWeights share_weights(Transformer& model) {
  ModelWeights shared = model.weights();
  for_each_weight(model.config(), shared, [](const WeightSpec& spec, Tensor& w) {
    w = w.detach();
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
  });
  return shared;
}

}  // namespace

void add(StepLoss& sum, const StepLoss& part) {
  sum.total += part.total, sum.main += part.main, sum.balance += part.balance;
  if (sum.mtp.empty()) sum.mtp.assign(part.mtp.size(), 0);
  for (size_t k = 0; k < part.mtp.size(); ++k) sum.mtp[k] += part.mtp[k];
  if (sum.loads.empty()) {
    sum.loads = part.loads;
    return;
  }
  for (size_t i = 0; i < part.loads.size(); ++i)
    sum.loads[i].count_E = sum.loads[i].count_E + part.loads[i].count_E;
}

GradientWorkers::GradientWorkers(Transformer& model, int64_t workers) : model_(model) {
  for (int64_t i = 0; i < std::max<int64_t>(1, workers); ++i)
    replicas_.push_back(std::make_unique<Transformer>(model.config(), share_weights(model)));
}

GradientWorkers::~GradientWorkers() = default;

StepLoss GradientWorkers::step(const TrainBatch& batch, const LossConfig& config, const LossDivisor& given) {
  const int64_t B = batch.window_BX.size(0), workers = std::min(num_workers(), B);
  if (workers == 1) return run(model_, batch, config, given);
  LossDivisor divisor = given;
  if (divisor.targets == 0) divisor.targets = std::max<int64_t>(1, count_targets(model_.config(), batch));
  if (divisor.rows == 0) divisor.rows = B;

  const int threads = num_threads();
  set_num_threads(1);
  std::vector<StepLoss> parts(static_cast<size_t>(workers));
  std::vector<std::exception_ptr> errors(static_cast<size_t>(workers));
  const auto work = [&](int64_t i) {
    try {
      const int64_t first = B * i / workers, rows = B * (i + 1) / workers - first;
      parts[static_cast<size_t>(i)] =
          run(*replicas_[static_cast<size_t>(i)], batch.rows(first, rows), config, divisor);
    } catch (...) {
      errors[static_cast<size_t>(i)] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < workers; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& thread : others) thread.join();
  set_num_threads(threads);
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);

  add_gradients();
  StepLoss sum;
  for (const StepLoss& part : parts) add(sum, part);
  return sum;
}

void GradientWorkers::add_gradients() {
  NoGrad no_grad;
  std::vector<Tensor*> weights;
  for_each_weight(model_.config(), model_.weights(),
                  [&](const WeightSpec&, Tensor& w) { weights.push_back(&w); });
  for (const auto& replica : replicas_) {
    size_t i = 0;
    for_each_weight(replica->config(), replica->weights(), [&](const WeightSpec&, Tensor& w) {
      Tensor& grad = w.mutable_grad();
      Tensor& sum = weights[i++]->mutable_grad();
      if (grad.defined()) {
        if (sum.defined()) {
          sum.add_(grad);
        } else {
          sum = grad;
        }
      }
      grad.reset();
    });
  }
}

}  // namespace hadal
