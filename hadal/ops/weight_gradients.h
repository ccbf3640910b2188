// A backward pass in parts, for pipelines that fill their holes with the gradients of weights (zero bubble,
// DualPipe; training spec 10.4).
#pragma once
#include <functional>
#include <vector>

#include "hadal/tensor/tensor.h"

namespace hadal {

// From several tensors at once, with the gradient of each; those of the leaves are added to what they have.
void backward(const std::vector<Tensor>& ends, const std::vector<Tensor>& gradients);

// Products that make gradients of weights, put off with all that they need. linear() and the experts put off
// theirs, also inside of what is recomputed; norms, gate, embedding, head and products in half precision do
// not.
class WeightGradients {
 public:
  // While one lives, backward passes of this thread put off into `list`.
  class PutOff {
   public:
    explicit PutOff(WeightGradients& list);
    ~PutOff();
    PutOff(const PutOff&) = delete;

   private:
    WeightGradients* before_;
  };

  // Makes them in the order of the backward pass, adds them to the weights' and frees what they held.
  void run();
  bool empty() const { return products_.empty(); }

  // For operations. Null: nobody puts off.
  static WeightGradients* active();
  void add(std::function<void()> product) { products_.push_back(std::move(product)); }

 private:
  std::vector<std::function<void()>> products_;
};

// weight.grad += gradient, which is taken.
void add_gradient(Tensor weight, Tensor gradient);

}  // namespace hadal
