#include "hadal/parallel/expert_all_to_all.h"

#include <gtest/gtest.h>

#include <atomic>

#include "hadal/base/random.h"
#include "hadal/ops/fused.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

constexpr int64_t kWidth = 16, kHidden = 24, kExperts = 8, kTop = 3;

Tensor random(at::IntArrayRef shape, uint64_t stream) {
  Tensor x = empty(shape);
  for (int64_t i = 0; i < x.numel(); ++i)
    static_cast<float*>(x.data_ptr())[i] = static_cast<float>(normal(3, stream, static_cast<uint64_t>(i)));
  return x;
}

// What one process gives its experts in one call, and what comes out.
struct Call {
  Tensor x_TD, expert_TA, weight_TA, dy_TD;
  Tensor y_TD, dx_TD, dweight_TA;
  std::vector<Tensor> dw;  // gate, up, down
};

// Ascending choices, skewed: the later experts see few tokens, the last none.
Call call_of(int64_t T, uint64_t stream) {
  std::vector<int64_t> expert;
  for (int64_t t = 0; t < T; ++t) {
    const auto first = static_cast<int64_t>(uniform(5, stream, static_cast<uint64_t>(t)) * 3);
    for (int64_t a = 0; a < kTop; ++a) expert.push_back(first + a * (t % 3 == 0 ? 2 : 1));
  }
  return {random({T, kWidth}, stream), from_ints(expert).view({T, kTop}), random({T, kTop}, stream + 1).abs(),
          random({T, kWidth}, stream + 2)};
}

const std::vector<Tensor>& whole_weights() {
  static const std::vector<Tensor> w{random({kExperts, kHidden, kWidth}, 90),
                                     random({kExperts, kHidden, kWidth}, 91),
                                     random({kExperts, kWidth, kHidden}, 92)};
  return w;
}

void run(Call& c, ExpertExchange& exchange, const std::vector<Tensor>& w) {
  const Tensor x = c.x_TD.clone().requires_grad_(true), weight = c.weight_TA.clone().requires_grad_(true);
  c.y_TD = exchanged_experts(exchange, kExperts, x, c.expert_TA, weight, {w[0], w[1], w[2]});
  c.y_TD.backward(c.dy_TD);
  c.dx_TD = x.grad(), c.dweight_TA = weight.grad();
  for (const Tensor& each : w) c.dw.push_back(each.grad());
}

// The calls, one a rank, first by themselves, then together on that many ranks.
struct Two {
  std::vector<Call> alone, together;
};
Two run_both(const std::vector<int64_t>& tokens) {
  set_num_threads(1);
  Two two;
  const auto n = static_cast<int64_t>(tokens.size()), e = kExperts / n;
  for (size_t r = 0; r < tokens.size(); ++r) two.alone.push_back(call_of(tokens[r], 10 * r));
  two.together = two.alone;
  for (Call& call : two.alone) {
    std::vector<Tensor> w;
    for (const Tensor& each : whole_weights()) w.push_back(each.detach().requires_grad_(true));
    LocalExperts local;
    run(call, local, w);
  }
  run_ranks(n, [&](Comm& comm) {
    set_num_threads(1);
    std::vector<Tensor> w;
    for (const Tensor& each : whole_weights()) {
      const Tensor mine = each.narrow(0, comm.rank() * e, e);
      w.push_back(mine.expand({n, e, mine.size(1), mine.size(2)}).requires_grad_(true));
    }
    ExpertAllToAll exchange(comm);
    run(two.together[static_cast<size_t>(comm.rank())], exchange, w);
  });
  return two;
}

// Everything the ranks have come to is, bit for bit, what each call came to by itself.
void expect_equal(const Two& two) {
  const auto n = static_cast<int64_t>(two.alone.size()), e = kExperts / n;
  for (int64_t r = 0; r < n; ++r) {
    const Call &alone = two.alone[static_cast<size_t>(r)], &there = two.together[static_cast<size_t>(r)];
    EXPECT_TRUE(there.y_TD.equal(alone.y_TD)) << "rank " << r;
    EXPECT_TRUE(there.dx_TD.equal(alone.dx_TD)) << "rank " << r;
    EXPECT_TRUE(there.dweight_TA.equal(alone.dweight_TA)) << "rank " << r;
    for (int64_t owner = 0; owner < n; ++owner)
      for (size_t i = 0; i < 3; ++i) {
        const Tensor& found = two.together[static_cast<size_t>(owner)].dw[i];
        ASSERT_TRUE(found.defined());
        EXPECT_TRUE(found.select(0, r).equal(alone.dw[i].narrow(0, owner * e, e)))
            << "gradient " << i << " of sender " << r << " on rank " << owner;
      }
  }
}

TEST(ExpertAllToAll, RowsWeightsAndGradientsAreThoseOfOneProcessBitForBit) {
  expect_equal(run_both({13, 9}));
  expect_equal(run_both({5, 12, 1, 7}));
}

TEST(ExpertAllToAll, ARankWithoutTokensTakesPart) {
  expect_equal(run_both({0, 9}));
  expect_equal(run_both({6, 0, 0, 0}));
  expect_equal(run_both({0, 0}));
}

TEST(ExpertAllToAll, AnExpertWithoutTokensHasAGradientOfZeros) {
  const Two two = run_both({13, 9});
  for (const Tensor& dw : two.together[1].dw) {
    const Tensor last = dw.select(1, kExperts / 2 - 1);
    EXPECT_EQ(last.count_nonzero().item<int64_t>(), 0);
    EXPECT_FALSE(last.isnan().any().item<bool>());
  }
}

// Counts what is sent in messages of whole rows of kWidth floats.
class CountingComm : public Comm {
 public:
  explicit CountingComm(Comm& comm) : comm_(comm) {}
  int64_t rank() const override { return comm_.rank(); }
  int64_t size() const override { return comm_.size(); }
  void exchange(std::span<const Outgoing> out, std::span<const Incoming> in) override {
    for (const Outgoing& o : out) bytes += o.bytes;
    comm_.exchange(out, in);
  }
  std::unique_ptr<Sending> begin_send(std::span<const Outgoing> out) override {
    for (const Outgoing& o : out) bytes += o.bytes;
    return comm_.begin_send(out);
  }
  int64_t bytes = 0;

 private:
  Comm& comm_;
};

TEST(ExpertAllToAll, ARowGoesToARankOnceHoweverManyOfItsExpertsAreThere) {
  std::atomic<int64_t> sent{-1};
  run_ranks(2, [&](Comm& comm) {
    CountingComm counting(comm);
    ExpertAllToAll exchange(counting);
    // Rank 0: 4 tokens with two experts of rank 1 each, 1 with none. Rank 1 has no tokens.
    const Tensor expert_TA = comm.rank() == 0
                                 ? from_ints(std::vector<int64_t>{4, 5, 4, 6, 5, 7, 6, 7, 0, 1}).view({5, 2})
                                 : empty({0, 2}, at::kLong);
    const int64_t T = expert_TA.size(0);
    const auto route = exchange.route(sort_by_expert(expert_TA, kExperts), full({T, 2}, 1));
    counting.bytes = 0;
    const Tensor rows = route->dispatch(random({T, kWidth}, 1));
    if (comm.rank() == 0) sent = counting.bytes;
    EXPECT_EQ(rows.size(0), comm.rank() == 0 ? 1 : 4);
    EXPECT_EQ(route->row_V.numel(), comm.rank() == 0 ? 2 : 8);
  });
  EXPECT_EQ(sent, 4 * kWidth * static_cast<int64_t>(sizeof(float)));
}

}  // namespace
}  // namespace hadal
