// One step's gradients by several cores at once, each on rows of its own.
//
// Small models spend a step in thousands of short operations; splitting each over the cores costs a wait at
// every one of them. Here each worker runs forward and backward of its share of the rows with one thread, on
// weights that share the model's memory, and the gradients are added in the workers' order at the end: the
// result does not depend on timing. It is the same sum as with micro-batches of the same rows.
#pragma once
#include <memory>
#include <vector>

#include "hadal/model/transformer.h"
#include "hadal/train/loss.h"

namespace hadal {

// Numbers of a step; sums over the workers, so divided by LossDivisor like BatchLoss.
struct StepLoss {
  double total = 0, main = 0, balance = 0;
  std::vector<double> mtp;        // one per module
  std::vector<ExpertLoad> loads;  // MoE layers in order, MTP modules last
};

// sum += part, loads too; an empty sum becomes the part.
void add(StepLoss& sum, const StepLoss& part);

class GradientWorkers {
 public:
  // `workers` 1: everything in the calling thread, with all of LibTorch's threads. The model must outlive
  // this and keep its weight tensors. Sets LibTorch's threads to 1 while step() runs with several workers.
  GradientWorkers(Transformer& model, int64_t workers);
  ~GradientWorkers();

  int64_t num_workers() const { return static_cast<int64_t>(replicas_.size()); }

  // Adds the gradients of the batch to the model's weights. Rows are dealt out in contiguous shares; fewer
  // rows than workers: some have none. Rethrows the first worker's error.
  StepLoss step(const TrainBatch& batch, const LossConfig& config, const LossDivisor& divisor);

 private:
  void add_gradients();

  Transformer& model_;
  std::vector<std::unique_ptr<Transformer>> replicas_;
};

}  // namespace hadal
