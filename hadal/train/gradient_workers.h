// One step's gradients by several cores at once, each on rows of its own.
//
// Small models spend a step in thousands of short operations; splitting each over the cores costs a wait at
// every one of them. Here each worker runs forward and backward of its share of the rows with one thread, on
// weights that share the model's memory. A step is a list of such shares, and its gradient their sum in a
// tree over the list's positions (hadal/parallel/tree_sum.h): the same bits whatever the timing, and
// whichever process took which share.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "hadal/model/transformer.h"
#include "hadal/parallel/tree_sum.h"
#include "hadal/train/loss.h"

namespace hadal {

// Numbers of a step; sums over the workers, so divided by LossDivisor like BatchLoss.
struct StepLoss {
  double total = 0, main = 0, balance = 0;
  std::vector<double> mtp;        // one per module
  std::vector<ExpertLoad> loads;  // MoE layers in order, MTP modules last
};

// The loss of one slot; its gradients are added to the model's.
StepLoss forward_backward(const Transformer& model, const TrainBatch& batch, const LossConfig& config,
                          const LossDivisor& divisor);

// sum += part, loads too; an empty sum becomes the part.
void add(StepLoss& sum, const StepLoss& part);

// Rows that one worker takes at once.
struct RowSlot {
  int64_t first, rows;
  int64_t micro;  // of which micro-batch it is a share
  bool alone;     // the whole of it: all threads work at this one
};
// The shares of a step, in order: micro-batches of `micro` rows (0: all), each dealt out to `workers`.
std::vector<RowSlot> row_slots(int64_t rows, int64_t micro, int64_t workers);

// One per trained weight, in their order; undefined: it took no part.
using Gradients = std::vector<Tensor>;
void add(Gradients& sum, Gradients&& part);
// Those of the model's weights, which have none afterwards.
Gradients take_gradients(Transformer& model);
// An empty sum over n slots.
TreeSum<Gradients> gradient_sum(int64_t n);

struct SlotResults {
  TreeSum<Gradients> gradients;
  std::vector<StepLoss> losses;  // of each slot
};

// Forward and backward of one slot on a replica of the model; returns the slot's numbers.
using SlotWork = std::function<StepLoss(const Transformer& replica, const RowSlot& slot)>;

class GradientWorkers {
 public:
  // `workers` 1: everything in the calling thread, with all of LibTorch's threads. The model must outlive
  // this and keep its weight tensors. Sets LibTorch's threads to 1 while several work.
  GradientWorkers(Transformer& model, int64_t workers);
  ~GradientWorkers();

  int64_t num_workers() const { return static_cast<int64_t>(replicas_.size()); }

  // Slots [begin, end) of a step's. The batch holds their rows: its first is that of slot `begin`. Rethrows
  // the first worker's error.
  SlotResults run(const TrainBatch& batch, std::span<const RowSlot> step, int64_t begin, int64_t end,
                  const LossConfig& config, const LossDivisor& divisor);

  // The same for any work.
  SlotResults run(std::span<const RowSlot> step, int64_t begin, int64_t end, const SlotWork& work);

  // A step of one micro-batch; adds its gradients to the model's weights.
  StepLoss step(const TrainBatch& batch, const LossConfig& config, const LossDivisor& divisor);

 private:
  Transformer& model_;
  std::vector<std::unique_ptr<Transformer>> replicas_;
};

}  // namespace hadal
