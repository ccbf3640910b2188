// The "hyperparameters" of a golden training run as the trainer has them.
#pragma once
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/train/adamw.h"
#include "hadal/train/loss.h"

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

}  // namespace hadal
