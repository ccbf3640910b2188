// Less memory for more time: values that the backward pass computes again.
#pragma once
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "hadal/tensor/tensor.h"

namespace hadal {

// Tensors whose memory is given back once the forward pass has used them, and filled anew, in the order they
// were discarded, when the gradient of what was made of them arrives. Operations that have saved such a
// tensor see the new values. Does nothing where no gradients are recorded, or if made with enabled = false.
class Discarded {
 public:
  explicit Discarded(bool enabled);
  // `again` makes the same values; it runs without gradients. Frees no memory yet.
  void add(const Tensor& x, std::function<Tensor()> again);
  // Frees the memory. `results`: every tensor whose gradient may be the first to reach an operation that
  // saved one of the discarded. x itself must not be read until then.
  void free_until_gradient_of(const std::vector<Tensor>& results);

 private:
  struct List;
  std::shared_ptr<List> list_;
};

// f(x), of which only x is kept: the backward pass calls f once more. f must give the same values, and may
// use weights that require gradients. x must require one.
using RecomputedFunction = std::function<std::vector<Tensor>(const Tensor& x)>;
std::vector<Tensor> recomputed(const RecomputedFunction& f, const Tensor& x);

}  // namespace hadal
