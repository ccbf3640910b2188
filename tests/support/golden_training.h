// A golden training run: its "hyperparameters" as the trainer has them, and its steps.
#pragma once
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/train/adamw.h"
#include "hadal/train/balance.h"
#include "hadal/train/gradient_workers.h"
#include "tests/support/golden_tensors.h"

namespace hadal {

inline AdamWConfig golden_adamw(const Json& hyper) {
  return {.beta1 = hyper.at("betas")[0].get<double>(),
          .beta2 = hyper.at("betas")[1].get<double>(),
          .eps = hyper.at("eps").get<double>(),
          .weight_decay = hyper.at("weight_decay").get<double>(),
          .clip = hyper.at("clip").get<double>()};
}

inline LossConfig golden_loss(const Json& hyper) {
  return {.mtp_weight = hyper.at("mtp_lambda").get<double>(),
          .balance_alpha = hyper.at("alpha").get<double>()};
}

// Step t of a golden run, whose loss is `got` and whose gradients the model has: updates the model and its
// balance bias, and compares.
inline void expect_golden_step(const GoldenCase& golden, int64_t t, const StepLoss& got, Transformer& model,
                               AdamW& optimizer) {
  const std::string at = "step " + std::to_string(t) + " ";
  const auto want = [&](const char* key) {
    return golden.json().at("steps").at(key).at(static_cast<size_t>(t)).get<double>();
  };
  expect_near(got.main, want("main_loss"), golden.tolerance("losses"), at + "main");
  expect_near(got.mtp[0], want("mtp_loss"), golden.tolerance("losses"), at + "mtp");
  expect_near(got.total, want("total_loss"), golden.tolerance("losses"), at + "total");
  expect_near(got.balance, want("balance_loss"), golden.tolerance("balance_loss"), at + "balance");
  expect_near(optimizer.step(golden.tensor("lr")[t].item<double>()), want("grad_norm"),
              golden.tolerance("grad_norm"), at + "norm");
  update_balance_bias(model, got.loads, golden.json().at("hyperparameters").at("gamma").get<double>());
  const Tensor loads = golden.tensor("loads")[t], biases = golden.tensor("bias")[t];
  for (size_t m = 0; m < got.loads.size(); ++m) {
    const auto row = static_cast<int64_t>(m);
    const auto& layer = model.weights().layers[static_cast<size_t>(got.loads[m].layer)];
    expect_equal(got.loads[m].count_E, loads[row], at + "loads");
    expect_close(layer.moe.balance_bias_E.cpu(), biases[row], golden.tolerance("bias"), at + "bias");
  }
}

}  // namespace hadal
