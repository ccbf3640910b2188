// Matrices cut over ranks (tensor parallelism): every rank has all tokens and a part of the heads and of the
// MLPs' columns. What a part takes in is the same on all ranks, what it gives is added up.
#pragma once
#include "hadal/tensor/tensor.h"

namespace hadal {

class TensorSum {
 public:
  virtual ~TensorSum() = default;
  // x becomes the sum of all ranks' x, the same bits on each. Contiguous, fp32. All ranks call it together.
  virtual void add_up(const Tensor& x) = 0;
};

// Where the ranks' parts begin: x as it is; its gradient is the sum of theirs. sum null: just x.
Tensor into_parts(const Tensor& x, TensorSum* sum);
// Where they end: the sum of the ranks' y; its gradient is that of each.
Tensor out_of_parts(const Tensor& y, TensorSum* sum);

}  // namespace hadal
