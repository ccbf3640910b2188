// Thirty training steps against the reference: losses, norms, loads, biases, final weights.
#include <gtest/gtest.h>

#include "hadal/checkpoint/load.h"
#include "hadal/checkpoint/names.h"
#include "tests/support/golden_tensors.h"
#include "tests/support/golden_training.h"

namespace hadal {
namespace {

class Trajectory : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Trajectory, EveryStepGivesTheReferencesLossesNormsLoadsAndBiases) {
  const GoldenCase golden(GetParam());
  const Json& hyper = golden.json().at("hyperparameters");
  Transformer model = load_model(GetParam(), DType::kF32);
  AdamW optimizer(model, golden_adamw(hyper));
  const LossConfig loss_config = golden_loss(hyper);
  const Tensor tokens = golden.tensor("tokens");
  for (int64_t t = 0; t < tokens.size(0); ++t) {
    const BatchLoss loss = batch_loss(model, tokens[t], loss_config);
    loss.total.backward();
    const auto number = [](const Tensor& x) { return x.item<double>(); };
    expect_golden_step(golden, t,
                       {.total = number(loss.total),
                        .main = number(loss.main),
                        .balance = number(loss.balance),
                        .mtp = {number(loss.mtp[0])},
                        .loads = loss.loads},
                       model, optimizer);
  }

  NoGrad no_grad;
  const Tensor x = golden.tensor("probe_tokens");
  const int64_t T = x.size(1) - 2;
  const Tensor hidden = model.forward(x.narrow(1, 0, T));
  expect_close(model.logits(hidden), golden.tensor("probe_logits"), golden.tolerance("probe_logits"),
               "probe");
  expect_close(model.logits(model.mtp(0, hidden, x.narrow(1, 1, T))), golden.tensor("probe_mtp_logits"),
               golden.tolerance("probe_logits"), "probe mtp");
  std::vector<Tensor> tensors;
  for_each_weight(model.config(), model.weights(),
                  [&](const WeightSpec&, Tensor& w) { tensors.push_back(w); });
  for (const HfTensor& part : hf_tensors(model.config())) {
    if (part.copy || !golden.json().at("final_norms").contains(part.hf_name)) continue;
    const Tensor w = part.expert < 0 ? tensors[part.spec] : tensors[part.spec].select(0, part.expert);
    expect_near(w.norm().item<double>(), golden.json().at("final_norms").at(part.hf_name).get<double>(),
                golden.tolerance("final_norms"), part.hf_name);
  }
}

TEST_P(Trajectory, BalanceLossAloneGivesTheReferencesGateGradient) {
  const GoldenCase golden(GetParam());
  Transformer model = load_model(GetParam(), DType::kF32);
  AdamW optimizer(model, {});  // makes weights require gradients
  const double alpha = golden.json().at("hyperparameters").at("alpha").get<double>();
  batch_loss(model, golden.tensor("tokens")[0], {.mtp_weight = 0, .balance_alpha = alpha}).balance.backward();
  size_t compared = 0;
  for (size_t i = 0; i < model.weights().layers.size(); ++i) {
    const std::string name = "balance_grad.model.layers." + std::to_string(i) + ".mlp.gate.weight";
    if (!golden.has(name)) continue;
    expect_close(model.weights().layers[i].moe.router_ED.grad(), golden.tensor(name),
                 golden.tolerance("balance_grad"), name);
    ++compared;
  }
  EXPECT_EQ(compared, golden.names("balance_grad.").size());
}

INSTANTIATE_TEST_SUITE_P(Golden, Trajectory, testing::ValuesIn(golden_cases("probe_mtp_logits", true)),
                         case_name);

}  // namespace
}  // namespace hadal
