#include "hadal/train/gradient_workers.h"

#include <algorithm>
#include <exception>
#include <thread>

#include "hadal/config/weight_specs.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

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

StepLoss forward_backward(const Transformer& model, const TrainBatch& batch, const LossConfig& config,
                          const LossDivisor& divisor) {
  const BatchLoss loss = batch_loss(model, batch, config, divisor);
  loss.total.backward();
  StepLoss numbers{.total = loss.total.item<double>(),
                   .main = loss.main.item<double>(),
                   .balance = loss.balance.item<double>(),
                   .loads = loss.loads};
  for (ExpertLoad& load : numbers.loads) load.count_E = load.count_E.cpu();
  for (const Tensor& mtp : loss.mtp) numbers.mtp.push_back(mtp.item<double>());
  return numbers;
}

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

std::vector<RowSlot> row_slots(int64_t rows, int64_t micro, int64_t workers) {
  std::vector<RowSlot> slots;
  const int64_t step = micro > 0 ? std::min(micro, rows) : rows;
  for (int64_t at = 0, m = 0; at < rows; at += step, ++m) {
    const int64_t B = std::min(step, rows - at), shares = std::min(workers, B);
    for (int64_t i = 0; i < shares; ++i) {
      const int64_t first = B * i / shares;
      slots.push_back({at + first, B * (i + 1) / shares - first, m, shares == 1});
    }
  }
  return slots;
}

void add(Gradients& sum, Gradients&& part) {
  NoGrad no_grad;
  for (size_t i = 0; i < sum.size(); ++i) {
    if (!part[i].defined()) continue;
    if (sum[i].defined()) {
      sum[i].add_(part[i]);
    } else {
      sum[i] = std::move(part[i]);
    }
  }
}

Gradients take_gradients(Transformer& replica) {
  Gradients gradients;
  for_each_weight(replica.config(), replica.weights(), [&](const WeightSpec& spec, Tensor& w) {
    if (spec.role == WeightRole::kBalanceBias) return;
    gradients.push_back(std::move(w.mutable_grad()));
    w.mutable_grad().reset();
  });
  return gradients;
}

TreeSum<Gradients> gradient_sum(int64_t n) {
  return {n, [](Gradients& a, Gradients&& b) { add(a, std::move(b)); }};
}

SlotResults GradientWorkers::run(const TrainBatch& batch, std::span<const RowSlot> step, int64_t begin,
                                 int64_t end, const LossConfig& config, const LossDivisor& divisor) {
  const int64_t first = begin < end ? step[static_cast<size_t>(begin)].first : 0;
  return run(step, begin, end, [&](const Transformer& replica, const RowSlot& mine) {
    return forward_backward(replica, batch.rows(mine.first - first, mine.rows), config, divisor);
  });
}

SlotResults GradientWorkers::run(std::span<const RowSlot> step, int64_t begin, int64_t end,
                                 const SlotWork& of_slot) {
  const auto slot = [&](int64_t i) -> const RowSlot& { return step[static_cast<size_t>(i)]; };
  SlotResults results{.gradients = gradient_sum(static_cast<int64_t>(step.size())),
                      .losses = std::vector<StepLoss>(static_cast<size_t>(end - begin))};
  const int threads = num_threads();
  std::vector<std::exception_ptr> errors(replicas_.size());
  for (int64_t at = begin; at < end;) {
    int64_t wave = 1;  // of one micro-batch, so that no more of them are in memory than were asked for
    while (wave < num_workers() && at + wave < end && slot(at + wave).micro == slot(at).micro) ++wave;
    const auto work = [&](int64_t i) {
      try {
        results.losses[static_cast<size_t>(at + i - begin)] =
            of_slot(*replicas_[static_cast<size_t>(i)], slot(at + i));
      } catch (...) {
        errors[static_cast<size_t>(i)] = std::current_exception();
      }
    };
    if (!slot(at).alone) set_num_threads(1);
    std::vector<std::thread> others;
    for (int64_t i = 1; i < wave; ++i) others.emplace_back(work, i);
    work(0);
    for (std::thread& thread : others) thread.join();
    if (!slot(at).alone) set_num_threads(threads);
    for (const std::exception_ptr& error : errors)
      if (error) std::rethrow_exception(error);
    for (int64_t i = 0; i < wave; ++i)
      results.gradients.push(at + i, at + i + 1, take_gradients(*replicas_[static_cast<size_t>(i)]));
    at += wave;
  }
  return results;
}

StepLoss GradientWorkers::step(const TrainBatch& batch, const LossConfig& config, const LossDivisor& given) {
  const int64_t B = batch.window_BX.size(0);
  LossDivisor divisor = given;
  if (divisor.targets == 0) divisor.targets = std::max<int64_t>(1, count_targets(model_.config(), batch));
  if (divisor.rows == 0) divisor.rows = B;
  const std::vector<RowSlot> slots = row_slots(B, 0, num_workers());
  SlotResults results = run(batch, slots, 0, static_cast<int64_t>(slots.size()), config, divisor);
  Gradients& gradients = results.gradients.pieces().front().value;
  size_t i = 0;
  NoGrad no_grad;
  for_each_weight(model_.config(), model_.weights(), [&](const WeightSpec& spec, Tensor& w) {
    if (spec.role == WeightRole::kBalanceBias) return;
    Tensor& part = gradients[i++];
    Tensor& sum = w.mutable_grad();
    if (part.defined()) sum.defined() ? void(sum.add_(part)) : void(sum = part);
  });
  StepLoss sum;
  for (const StepLoss& part : results.losses) add(sum, part);
  return sum;
}

}  // namespace hadal
