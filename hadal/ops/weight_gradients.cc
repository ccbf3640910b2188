#include "hadal/ops/weight_gradients.h"

#include "hadal/tensor/make.h"

namespace hadal {
namespace {

thread_local WeightGradients* list = nullptr;

}  // namespace

WeightGradients::PutOff::PutOff(WeightGradients& into) : before_(list) {
  list = &into;
}

WeightGradients::PutOff::~PutOff() {
  list = before_;
}

WeightGradients* WeightGradients::active() {
  return list;
}

void WeightGradients::run() {
  NoGrad no_grad;
  for (std::function<void()>& product : products_) {
    product();
    product = nullptr;
  }
  products_.clear();
}

void add_gradient(Tensor weight, Tensor gradient) {
  Tensor& sum = weight.mutable_grad();
  if (sum.defined()) {
    sum.add_(gradient);
  } else {
    sum = std::move(gradient);
  }
}

}  // namespace hadal
