#include "hadal/ops/weight_gradients.h"

#include <gtest/gtest.h>

#include "hadal/ops/fused.h"
#include "hadal/ops/linear.h"
#include "hadal/ops/recompute.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

Tensor values(std::vector<int64_t> shape, int64_t seed) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return arange(0, n).mul(seed).remainder(97).to(at::kFloat).div(97).sub(0.5).view(shape);
}

struct Net {
  Tensor a, b, gate, up, down;
  std::vector<Tensor> weights() const { return {a, b, gate, up, down}; }
};

Net net() {
  Net n{values({6, 8}, 31), values({8, 6}, 57), values({3, 4, 8}, 41), values({3, 4, 8}, 53),
        values({3, 8, 4}, 67)};
  for (Tensor w : n.weights()) w.requires_grad_(true);
  return n;
}

Tensor forward(const Net& n, const Tensor& x_TD, Products products) {
  const Tensor expert_TA = from_ints(std::vector<int64_t>{0, 2, 0, 2, 0, 2, 0, 2, 0, 2}).view({5, 2});
  const Tensor y = linear(linear(x_TD, n.a, products), n.b, products);
  return fused_experts(y, expert_TA, values({5, 2}, 3), n.gate, n.up, n.down, products);
}

void expect_same(const std::vector<Tensor>& got, const std::vector<Tensor>& want) {
  for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(got[i].grad().equal(want[i].grad())) << i;
}

TEST(WeightGradients, PutOffTheyAreTheSameBitsAndComeWhenRun) {
  for (const Products products : {Products::kF32, Products::kBf16})
    for (const bool again : {false, true}) {
      const Net whole = net(), split = net();
      const Tensor x = values({5, 8}, 11).requires_grad_(true), x2 = x.detach().requires_grad_(true);
      if (half_format(products, x)) continue;  // nothing is put off
      const Tensor dy = values({5, 8}, 13);
      backward({forward(whole, x, products)}, {dy});
      WeightGradients later;
      const Tensor y =
          again ? recomputed(
                      [&](const Tensor& in) { return std::vector<Tensor>{forward(split, in, products)}; },
                      x2)[0]
                : forward(split, x2, products);
      {
        const WeightGradients::PutOff scope(later);
        backward({y}, {dy});
      }
      EXPECT_TRUE(x2.grad().equal(x.grad()));
      for (const Tensor& w : split.weights()) EXPECT_FALSE(w.grad().defined());
      EXPECT_FALSE(later.empty());
      later.run();
      EXPECT_TRUE(later.empty());
      expect_same(split.weights(), whole.weights());
    }
}

TEST(WeightGradients, AreAddedToWhatIsThere) {
  const Net whole = net(), split = net();
  const Tensor x = values({5, 8}, 11).requires_grad_(true), dy = values({5, 8}, 13);
  WeightGradients later;
  for (int i = 0; i < 2; ++i) {
    backward({forward(whole, x, Products::kF32)}, {dy});
    const WeightGradients::PutOff scope(later);
    backward({forward(split, x, Products::kF32)}, {dy});
  }
  later.run();
  expect_same(split.weights(), whole.weights());
}

TEST(WeightGradients, WhatTheyHeldIsFreedOnceRun) {
  const Net n = net();
  WeightGradients later;
  std::weak_ptr<int> alive;
  {
    const auto held = std::make_shared<int>(7);
    alive = held;
    later.add([held] {});
  }
  EXPECT_FALSE(alive.expired());
  later.run();
  EXPECT_TRUE(alive.expired());
}

TEST(Backward, FromSeveralTensorsAddsUp) {
  const Tensor x = values({3}, 5).requires_grad_(true);
  backward({x * 2, x * 3}, {full({3}, 1), full({3}, 10)});
  EXPECT_TRUE(x.grad().equal(full({3}, 32)));
}

}  // namespace
}  // namespace hadal
