#include "hadal/train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "hadal/ops/cross_entropy.h"
#include "hadal/ops/expert_order.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"
#include "hadal/train/adamw.h"

namespace hadal {

Evaluation::Evaluation(const Transformer& model, std::span<const int64_t> token_bytes,
                       const TrainingPass& pass)
    : model_(model),
      token_bytes_(token_bytes),
      pass_(pass),
      agreed_(static_cast<size_t>(model.config().mtp_depth)),
      guessed_(agreed_.size()) {}

void Evaluation::add_loads(const Trace& trace) {
  for (const LayerTrace& layer : trace.layers) {
    if (!layer.is_moe) continue;
    const Tensor count_E = expert_counts(layer.routing.expert_TA, model_.config().moe.num_experts);
    Tensor& sum_E = loads_[layer.layer];
    sum_E = sum_E.defined() ? sum_E + count_E : count_E;
  }
}

void Evaluation::add(const TrainBatch& rows) {
  StageFlow flow;
  add(rows, whole_model(model_.config()), flow);
}

void Evaluation::add(const TrainBatch& given, const Stage& stage, StageFlow& flow) {
  NoGrad no_grad;
  const TrainBatch rows = given.on(model_.device());
  const Tensor& rows_BX = rows.window_BX;
  const int64_t B = rows_BX.size(0), X = rows_BX.size(1), J = model_.config().mtp_depth, T = X - 1 - J;
  HADAL_SHAPE(rows_BX, B, X);
  Trace trace{.keep_rows = false};
  TrainingPass pass = pass_;
  if (rows.segment_start_BX.defined()) pass.segment_start_BS = rows.segment_start_BX.narrow(1, 0, T);
  if (stage.has_embedding) {
    flow.hidden_BTD = model_.embed(rows_BX.narrow(1, 0, T));
    for (int64_t k = 0; k < J; ++k) flow.ahead_BTD.push_back(model_.embed(rows_BX.narrow(1, k + 1, T)));
  }
  flow.hidden_BTD = model_.layers(stage.first_layer, stage.last_layer, flow.hidden_BTD, &trace, pass);
  if (stage.has_head) add_head(rows, flow, trace, pass);
  add_loads(trace);
}

void Evaluation::add_head(const TrainBatch& rows, const StageFlow& flow, Trace& trace,
                          const TrainingPass& pass) {
  const int64_t B = rows.window_BX.size(0), J = model_.config().mtp_depth;
  const int64_t T = rows.window_BX.size(1) - 1 - J;
  Tensor hidden_BTD = model_.final_norm(flow.hidden_BTD);
  const Tensor target_T = targets_T(rows, T, 1);
  // A row at a time: the logits of all would be the largest tensor of a run.
  std::vector<Tensor> choice_T;
  for (int64_t b = 0; b < B; ++b) {
    const Tensor logits_TW = model_.logits(hidden_BTD.select(0, b));
    loss_ += cross_entropy(logits_TW, target_T.narrow(0, b * T, T)).sum().item<double>();
    choice_T.push_back(logits_TW.argmax(-1));
    right_ += choice_T.back().eq(target_T.narrow(0, b * T, T)).sum().item<int64_t>();
  }
  for (const int64_t id : to_ints(target_T)) {
    if (id < 0) continue;
    ++targets_;
    if (!token_bytes_.empty()) bytes_ += token_bytes_[static_cast<size_t>(id)];
  }

  // Module k at i and the main model at i + 1 + k both predict token i + 2 + k.
  for (int64_t k = 0; k < J; ++k) {
    hidden_BTD = model_.mtp_embedded(k, hidden_BTD, flow.ahead_BTD[static_cast<size_t>(k)], &trace, pass);
    const int64_t both = T - 1 - k;
    if (both <= 0) break;
    const Tensor counts_BT = targets_T(rows, both, k + 2).view({B, both}).ge(0);
    for (int64_t b = 0; b < B; ++b) {
      const Tensor guess_T = model_.logits(hidden_BTD.select(0, b).narrow(0, 0, both)).argmax(-1);
      const Tensor same_T = guess_T.eq(choice_T[static_cast<size_t>(b)].narrow(0, 1 + k, both));
      agreed_[static_cast<size_t>(k)] += same_T.logical_and(counts_BT.select(0, b)).sum().item<int64_t>();
    }
    guessed_[static_cast<size_t>(k)] += counts_BT.sum().item<int64_t>();
  }
}

std::vector<ExpertLoad> Evaluation::loads() const {
  std::vector<ExpertLoad> loads;
  for (const auto& [layer, count_E] : loads_) loads.push_back({layer, count_E});
  return loads;
}

HeldOut Evaluation::result() const {
  HeldOut out{.targets = targets_, .bytes = bytes_};
  out.loss = loss_ / static_cast<double>(std::max<int64_t>(1, targets_));
  out.accuracy = static_cast<double>(right_) / static_cast<double>(std::max<int64_t>(1, targets_));
  if (bytes_ > 0) out.bits_per_byte = loss_ / std::numbers::ln2 / static_cast<double>(bytes_);
  for (size_t k = 0; k < agreed_.size(); ++k)
    out.mtp_acceptance.push_back(static_cast<double>(agreed_[k]) /
                                 static_cast<double>(std::max<int64_t>(1, guessed_[k])));
  if (!loads_.empty()) out.max_vio = max_violation(loads());
  return out;
}

HeldOut evaluate(const Transformer& model, const TrainBatch& rows, std::span<const int64_t> token_bytes) {
  const Tensor& rows_NX = rows.window_BX;
  const int64_t N = rows_NX.size(0), X = rows_NX.size(1);
  HADAL_SHAPE(rows_NX, N, X);
  Evaluation evaluation(model, token_bytes);
  for (int64_t at = 0; at < N; at += kEvaluatedRows)
    evaluation.add(rows.rows(at, std::min(kEvaluatedRows, N - at)));
  return evaluation.result();
}

}  // namespace hadal
