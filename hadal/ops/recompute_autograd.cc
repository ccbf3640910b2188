#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "hadal/base/check.h"
#include "hadal/ops/recompute.h"
#include "hadal/ops/weight_gradients.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

c10::StorageImpl& memory_of(const Tensor& x) {
  return *x.storage().unsafeGetStorageImpl();
}

struct Kept : torch::CustomClassHolder {
  explicit Kept(RecomputedFunction function) : f(std::move(function)) {}
  RecomputedFunction f;
};

class Recomputed : public Function<Recomputed> {
 public:
  static Tensors forward(AutogradContext* ctx, const Tensor& x, const RecomputedFunction& f) {
    ctx->save_for_backward({x});
    ctx->saved_data["f"] = c10::IValue::make_capsule(c10::make_intrusive<Kept>(f));
    return f(x);
  }

  static Tensors backward(AutogradContext* ctx, const Tensors& grads) {
    const Tensor x = ctx->get_saved_variables()[0].detach().requires_grad_(true);
    const auto kept = c10::static_intrusive_pointer_cast<Kept>(ctx->saved_data["f"].toCapsule());
    Tensors ends, gradients;
    {
      const c10::AutoGradMode with_gradients(true);
      const Tensors again = kept->f(x);
      for (size_t i = 0; i < again.size(); ++i)
        if (grads[i].defined() && again[i].requires_grad())
          ends.push_back(again[i]), gradients.push_back(grads[i]);
      torch::autograd::backward(ends, gradients);  // weights' gradients are added to theirs
    }
    return {x.grad(), Tensor()};
  }
};

}  // namespace

struct Discarded::List {
  struct One {
    Tensor x;
    std::function<Tensor()> again;
  };
  std::vector<One> all;

  void fill() {
    NoGrad no_grad;
    const std::vector<One> list = std::move(all);
    all.clear();
    for (const One& one : list) {
      const Tensor values = one.again().contiguous();
      memory_of(one.x).set_data_ptr_noswap(memory_of(values).set_data_ptr(c10::DataPtr()));
    }
  }
};

Discarded::Discarded(bool enabled) {
  if (enabled && c10::GradMode::is_enabled()) list_ = std::make_shared<List>();
}

void Discarded::add(const Tensor& x, std::function<Tensor()> again) {
  if (!list_) return;
  HADAL_CHECK(x.is_contiguous() && x.storage().nbytes() == x.nbytes()) << "a view cannot be discarded";
  list_->all.push_back({x.detach(), std::move(again)});
}

void Discarded::free_until_gradient_of(const std::vector<Tensor>& results) {
  if (!list_) return;
  for (const auto& one : list_->all) memory_of(one.x).set_data_ptr_noswap(c10::DataPtr());
  for (const Tensor& result : results)
    if (result.requires_grad()) result.register_hook([list = list_](const Tensor&) { list->fill(); });
}

void backward(const std::vector<Tensor>& ends, const std::vector<Tensor>& gradients) {
  torch::autograd::backward(ends, gradients);
}

std::vector<Tensor> recomputed(const RecomputedFunction& f, const Tensor& x) {
  return Recomputed::apply(x, f);
}

}  // namespace hadal
