// Sums of tensor parallelism over a Comm.
#pragma once
#include "hadal/ops/tensor_sum.h"
#include "hadal/parallel/comm.h"

namespace hadal {

class RankTensorSum : public TensorSum {
 public:
  explicit RankTensorSum(Comm& comm) : comm_(comm) {}
  void add_up(const Tensor& x) override;

 private:
  Comm& comm_;
};

}  // namespace hadal
