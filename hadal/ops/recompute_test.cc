#include "hadal/ops/recompute.h"

#include <gtest/gtest.h>

#include "hadal/tensor/make.h"

namespace hadal {
namespace {

Tensor wave(int64_t n) {
  return arange(0, n * n).to(at::kFloat).sin().view({n, n}).requires_grad_(true);
}

TEST(Discarded, MemoryIsGoneUntilTheGradientArrivesAndThenHoldsTheSameValues) {
  const Tensor a = wave(4), b = wave(4);
  const Tensor x = a.exp(), y = x.matmul(b);
  int runs = 0;
  Discarded discarded(true);
  discarded.add(x, [&runs, a = a.detach()] {
    ++runs;
    return a.exp();
  });
  const Tensor want = x.detach().t().matmul(full({4, 4}, 1.0));
  discarded.free_until_gradient_of({y});
  EXPECT_EQ(x.data_ptr(), nullptr);
  EXPECT_EQ(runs, 0);
  y.sum().backward();
  EXPECT_EQ(runs, 1);
  EXPECT_TRUE(b.grad().equal(want));
}

TEST(Discarded, KeepsEverythingWhereNoGradientsAreRecorded) {
  NoGrad no_grad;
  const Tensor a = wave(4), x = a.exp();
  Discarded discarded(true);
  discarded.add(x, [] { return Tensor(); });
  discarded.free_until_gradient_of({x});
  EXPECT_NE(x.data_ptr(), nullptr);
}

TEST(Recomputed, RunsTwiceAndGivesTheGradientsOfInputsAndWeights) {
  const Tensor x = wave(4), w = wave(4);
  int runs = 0;
  const auto f = [&](const Tensor& input) {
    ++runs;
    const Tensor y = input.matmul(w).tanh();
    return std::vector<Tensor>{y, y.exp()};
  };
  const std::vector<Tensor> plain = f(x);
  (plain[0].sum() + plain[1].pow(2).sum()).backward();
  const Tensor dx = x.grad().clone(), dw = w.grad().clone();
  x.mutable_grad().reset(), w.mutable_grad().reset();
  runs = 0;
  const std::vector<Tensor> again = recomputed(f, x);
  EXPECT_EQ(runs, 1);
  (again[0].sum() + again[1].pow(2).sum()).backward();
  EXPECT_EQ(runs, 2);
  EXPECT_TRUE(x.grad().equal(dx));
  EXPECT_TRUE(w.grad().equal(dw));
}

}  // namespace
}  // namespace hadal
