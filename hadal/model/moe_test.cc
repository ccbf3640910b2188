#include "hadal/model/moe.h"

#include <gtest/gtest.h>

#include "hadal/model/choose_experts.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

MoeConfig v3_gate(int64_t E, int64_t G, int64_t kept, int64_t A) {
  return {.num_experts = E,
          .top_k = A,
          .expert_dim = 4,
          .num_groups = G,
          .num_groups_kept = kept,
          .scoring = Scoring::kSigmoid,
          .choice = Choice::kGroupTopTwo,
          .normalize = true,
          .scale = 2.5};
}

Tensor row(const std::vector<float>& values) {
  return from_floats(values).unsqueeze(0);
}
std::vector<int64_t> chosen(const Routing& r) {
  return to_ints(r.expert_TA);
}

void expect_weights(const Routing& r, const std::vector<double>& want) {
  const std::vector<float> got = to_floats(r.weight_TA);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-7) << i;
}

// Architecture spec 7, vector T1. There in order of score: 4, 5, 0 with 0.6041902, 0.8996687, 0.9961412.
TEST(Router, SigmoidGateWithGroupsAndBiasGivesTheKnownChoiceAndWeights) {
  const Routing r = route(v3_gate(8, 4, 2, 3), row({0.5, -1, 2, 1.5, -0.5, 0.25, 1.75, -2}),
                          from_floats(std::vector<float>{0, 0.3f, -0.6f, -0.5f, 0.4f, 0.1f, -0.2f, 0}));
  EXPECT_EQ(chosen(r), (std::vector<int64_t>{0, 4, 5}));
  expect_weights(r, {0.9961412, 0.6041902, 0.8996687});
}

// Affinities of few values, so that many are equal.
TEST(Router, TheChoiceTokenByTokenEqualsTheOneBySortingAlsoWhereScoresAreEqual) {
  const Tensor affinity_TE =
      arange(0, 200 * 12).mul(7919).remainder(23).to(at::kFloat).div(23).view({200, 12});
  const Tensor bias_E = arange(0, 12).mul(5).remainder(4).to(at::kFloat).mul(-0.3);
  for (const Choice choice : {Choice::kGreedy, Choice::kGroupMax, Choice::kGroupTopTwo})
    for (const int64_t G : {1, 3, 6}) {
      MoeConfig gate = v3_gate(12, G, G > 1 ? G - 1 : 1, 3);
      gate.choice = choice;
      EXPECT_TRUE(choose_experts(gate, affinity_TE, bias_E)
                      .equal(choose_experts_reference(gate, affinity_TE, bias_E)))
          << G;
    }
}

TEST(Router, BiasMovesChoiceNotWeight) {
  const Tensor logits = row({0.5, -1, 2, 1.5, -0.5, 0.25, 1.75, -2});
  const MoeConfig gate = v3_gate(8, 1, 1, 2);
  EXPECT_EQ(chosen(route(gate, logits, zeros({8}))), (std::vector<int64_t>{2, 6}));
  Tensor bias = zeros({8});
  bias[7] = 5.0;
  const Routing r = route(gate, logits, bias);
  EXPECT_EQ(chosen(r), (std::vector<int64_t>{2, 7}));
  const double s2 = 1 / (1 + std::exp(-2.0)), s7 = 1 / (1 + std::exp(2.0));
  expect_weights(r, {2.5 * s2 / (s2 + s7), 2.5 * s7 / (s2 + s7)});
}

// Vector T2: V2 ranks groups by their best expert, where the sum of two would keep the other group.
TEST(Router, SoftmaxGateRanksGroupsByTheirBestExpert) {
  MoeConfig gate = v3_gate(4, 2, 1, 2);
  gate.scoring = Scoring::kSoftmax, gate.choice = Choice::kGroupMax, gate.normalize = false, gate.scale = 16;
  const Routing r = route(gate, row({2.0, -1.0, 1.6f, 1.5}), Tensor());
  EXPECT_EQ(chosen(r), (std::vector<int64_t>{0, 1}));
  const std::vector<float> weights = to_floats(r.weight_TA);
  EXPECT_NEAR(weights[0], 16 * 0.42980477, 1e-5);
  EXPECT_NEAR(weights[1], 16 * 0.02139872, 1e-5);
}

// Vector T3: all biased scores of the kept group are negative; closed experts at 0 would win.
TEST(Router, ClosedExpertsNeverWinOverNegativeScores) {
  const Routing r = route(v3_gate(4, 2, 1, 2), row({0.2f, -0.4f, -0.1f, -1.0}),
                          from_floats(std::vector<float>{-0.9f, -0.8f, -1.5f, -0.9f}));
  EXPECT_EQ(chosen(r), (std::vector<int64_t>{0, 1}));
}

TEST(Router, EqualScoresGoToTheLowerIndexForGroupsAndExperts) {
  EXPECT_EQ(chosen(route(v3_gate(64, 8, 2, 3), zeros({1, 64}), zeros({64}))),
            (std::vector<int64_t>{0, 1, 2}));
  Tensor logits = zeros({1, 64});
  logits[0][40] = 1.0;
  EXPECT_EQ(chosen(route(v3_gate(64, 8, 2, 3), logits, zeros({64}))), (std::vector<int64_t>{0, 1, 40}));
}

// The released V2 code normalises or scales, never both (architecture spec 7.1).
TEST(Router, SoftmaxGateEitherNormalisesOrScales) {
  MoeConfig gate = v3_gate(4, 1, 1, 2);
  gate.scoring = Scoring::kSoftmax, gate.choice = Choice::kGreedy, gate.scale = 3;
  expect_weights(route(gate, row({0, 0, 0, 0}), Tensor()), {0.5, 0.5});
  gate.normalize = false;
  expect_weights(route(gate, row({0, 0, 0, 0}), Tensor()), {0.75, 0.75});
}

TEST(Router, GradientFlowsThroughWeightsOnly) {
  const Tensor logits = row({0.5, -1, 2, 1.5}).requires_grad_(true);
  const Tensor bias = zeros({4}).requires_grad_(true);
  route(v3_gate(4, 1, 1, 2), logits, bias).weight_TA.select(1, 0).sum().backward();
  EXPECT_FALSE(bias.grad().defined());
  EXPECT_EQ(logits.grad()[0][1].item<double>(), 0.0);  // not chosen
  EXPECT_NE(logits.grad()[0][2].item<double>(), 0.0);
}

class Experts : public testing::Test {
 protected:
  static constexpr int64_t T = 6, D = 5, E = 4, M = 3, A = 2;
  Tensor wave(at::IntArrayRef shape, double from) {
    return (arange(0, c10::multiply_integers(shape)).to(at::kFloat) * 1.3 + from).sin().view(shape);
  }
  ExpertWeights w{wave({E, M, D}, 0.1), wave({E, M, D}, 0.2), wave({E, D, M}, 0.3)};
  Tensor x_TD = wave({T, D}, 0.4);
};

TEST_F(Experts, SumOverChosenExpertsEqualsALoopOverTokens) {
  const std::vector<int64_t> picks{0, 1, 0, 3, 1, 3, 0, 1, 0, 3, 0, 1};  // nobody chose expert 2
  const Routing routing{from_ints(picks).view({T, A}), wave({T, A}, 0.5), Tensor()};
  const Tensor got = experts(w, x_TD, routing);
  for (int64_t t = 0; t < T; ++t) {
    Tensor want = zeros({D});
    for (int64_t a = 0; a < A; ++a) {
      const int64_t e = routing.expert_TA[t][a].item<int64_t>();
      const MlpWeights one{w.gate_EMD[e], w.up_EMD[e], w.down_EDM[e]};
      want = want + mlp(one, x_TD[t].unsqueeze(0))[0] * routing.weight_TA[t][a];
    }
    EXPECT_LE((got[t] - want).abs().max().item<double>(), 5e-6) << "token " << t;
  }
}

TEST_F(Experts, AnExpertWithoutTokensHasZeroGradient) {
  for (Tensor* weight : {&w.gate_EMD, &w.up_EMD, &w.down_EDM}) weight->requires_grad_(true);
  const Routing routing{from_ints(std::vector<int64_t>{0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1}).view({T, A}),
                        full({T, A}, 0.5), Tensor()};
  experts(w, x_TD, routing).sum().backward();
  EXPECT_EQ(w.gate_EMD.grad()[2].abs().sum().item<double>(), 0.0);
  EXPECT_GT(w.gate_EMD.grad()[1].abs().sum().item<double>(), 0.0);
}

TEST_F(Experts, FusedFormEqualsTheReferenceInValuesAndGradients) {
  const Tensor expert_TA = from_ints(std::vector<int64_t>{0, 1, 0, 3, 1, 3, 0, 1, 0, 3, 0, 1}).view({T, A});
  std::vector<std::vector<Tensor>> results;
  for (const auto form : {experts, experts_reference}) {
    ExpertWeights leaves{w.gate_EMD.clone().requires_grad_(true), w.up_EMD.clone().requires_grad_(true),
                         w.down_EDM.clone().requires_grad_(true)};
    const Tensor x = x_TD.clone().requires_grad_(true), weight = wave({T, A}, 0.5).requires_grad_(true);
    const Tensor y = form(leaves, x, {expert_TA, weight, Tensor()});
    (y * wave({T, D}, 0.6)).sum().backward();
    results.push_back({y.detach(), x.grad(), weight.grad(), leaves.gate_EMD.grad(), leaves.up_EMD.grad(),
                       leaves.down_EDM.grad()});
  }
  for (size_t i = 0; i < results[0].size(); ++i)
    EXPECT_LE((results[0][i] - results[1][i]).abs().max().item<double>(), 5e-6)
        << i;  // fp32 sums of a dozen terms
}

}  // namespace
}  // namespace hadal
