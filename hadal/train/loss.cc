#include "hadal/train/loss.h"

#include <algorithm>

#include "hadal/ops/expert_order.h"
#include "hadal/ops/fused.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"
#include "hadal/tensor/shape.h"
#include "hadal/train/balance.h"

namespace hadal {

Tensor sequence_balance_loss(const MoeConfig& moe, const Tensor& affinity_TE, int64_t B) {
  const int64_t E = moe.num_experts, A = moe.top_k, T = affinity_TE.size(0);
  HADAL_SHAPE(affinity_TE, T, E);
  const int64_t S = T / std::max<int64_t>(1, B);
  const Tensor share_BSE = (affinity_TE / affinity_TE.sum(-1, /*keepdim=*/true)).view({B, S, E});
  const Tensor top_TA = std::get<1>(affinity_TE.detach().topk(A, -1));
  const Tensor chosen_TE = affinity_TE.new_zeros({T, E}).scatter(1, top_TA, 1.0);
  const double factor = static_cast<double>(E) / static_cast<double>(A);
  const Tensor f_BE = chosen_TE.view({B, S, E}).mean(1) * factor;
  return (f_BE * share_BSE.mean(1)).sum();
}

namespace {

Tensor v2_balance(const MoeConfig& moe, const Routing& routing, int64_t B, const LossConfig& config) {
  const V2BalanceLosses losses = v2_balance_losses(moe, routing.affinity_TE, routing.expert_TA, B);
  return config.expert_alpha * losses.expert + config.device_alpha * losses.device +
         config.communication_alpha * losses.communication;
}

// T of X = T+1+J.
int64_t row_targets(const ModelConfig& config, const TrainBatch& batch) {
  return batch.window_BX.size(1) - 1 - config.mtp_depth;
}

TrainingPass training_pass(const ModelConfig& c, const TrainBatch& batch, const LossConfig& config,
                           int64_t T) {
  TrainingPass pass{.products = config.products, .fp8 = config.fp8, .recompute = config.recompute};
  pass.exchange = config.exchange, pass.tensor_sum = config.tensor_sum;
  if (batch.segment_start_BX.defined()) pass.segment_start_BS = batch.segment_start_BX.narrow(1, 0, T);
  if (config.capacity_factor > 0) {
    const Tensor none_B = zeros({batch.window_BX.size(0)}, at::kBool);
    pass.kept_slots = [moe = c.moe, factor = config.capacity_factor,
                       protected_B =
                           batch.protected_B.defined() ? batch.protected_B : none_B](const Routing& r) {
      return kept_slots(moe, r.affinity_TE, r.expert_TA, factor, protected_B);
    };
  }
  return pass;
}

}  // namespace

Tensor targets_T(const TrainBatch& batch, int64_t T, int64_t shift) {
  Tensor target_BT = batch.window_BX.narrow(1, shift, T);
  if (batch.trained_BX.defined())
    target_BT = target_BT.masked_fill(batch.trained_BX.narrow(1, shift, T).logical_not(), -1);
  const Tensor& start = batch.piece_start_BX.defined() ? batch.piece_start_BX : batch.segment_start_BX;
  if (!start.defined()) return target_BT.flatten();
  return target_BT.masked_fill(start.narrow(1, shift, T).ne(start.narrow(1, 0, T)), -1).flatten();
}

TrainBatch TrainBatch::rows(int64_t first, int64_t n) const {
  const auto part = [&](const Tensor& x) { return x.defined() ? x.narrow(0, first, n) : Tensor(); };
  return {part(window_BX), part(segment_start_BX), part(protected_B), part(piece_start_BX), part(trained_BX)};
}

TrainBatch TrainBatch::on(at::Device device) const {
  return {on_device(window_BX, device), on_device(segment_start_BX, device), protected_B,
          on_device(piece_start_BX, device), on_device(trained_BX, device)};
}

int64_t count_targets(const ModelConfig& config, const TrainBatch& batch) {
  return targets_T(batch, row_targets(config, batch), 1).ge(0).sum().item<int64_t>();
}

namespace {

// loss.balance += the layers' terms; their loads.
void add_balance(const ModelConfig& c, const Trace& trace, int64_t B, double rows, const LossConfig& config,
                 BatchLoss& loss) {
  for (const LayerTrace& layer : trace.layers) {
    if (!layer.is_moe) continue;
    loss.loads.push_back({layer.layer, expert_counts(layer.routing.expert_TA, c.moe.num_experts)});
    if (config.balance_alpha > 0)
      loss.balance = loss.balance +
                     config.balance_alpha / rows * sequence_balance_loss(c.moe, layer.routing.affinity_TE, B);
    if (config.expert_alpha > 0 || config.device_alpha > 0 || config.communication_alpha > 0)
      loss.balance = loss.balance + v2_balance(c.moe, layer.routing, B, config) / rows;
  }
}

}  // namespace

StageLoss stage_loss(const Transformer& model, const Stage& stage, const TrainBatch& batch,
                     const StageFlow& in, const LossConfig& config, const LossDivisor& divisor) {
  const ModelConfig& c = model.config();
  const Tensor& window_BX = batch.window_BX;
  const int64_t B = window_BX.size(0), J = c.mtp_depth, T = row_targets(c, batch);
  const auto targets = static_cast<double>(
      divisor.targets > 0 ? divisor.targets : std::max<int64_t>(1, count_targets(c, batch)));
  const auto rows = static_cast<double>(divisor.rows > 0 ? divisor.rows : B);
  const TrainingPass pass = training_pass(c, batch, config, T);
  StageFlow flow = in;
  if (stage.has_embedding) {
    flow.hidden_BTD = model.embed(window_BX.narrow(1, 0, T));
    for (int64_t k = 0; k < J; ++k) flow.ahead_BTD.push_back(model.embed(window_BX.narrow(1, k + 1, T)));
    flow.balance = zeros({});
  }
  Trace trace{.keep_rows = false};
  flow.hidden_BTD = model.layers(stage.first_layer, stage.last_layer, flow.hidden_BTD, &trace, pass);
  BatchLoss loss;
  loss.balance = flow.balance;
  if (stage.has_head) {
    const auto loss_at = [&](const Tensor& hidden_BTD, int64_t shift) {
      return fused_head_loss(hidden_BTD.flatten(0, 1), model.weights().head_WD, targets_T(batch, T, shift),
                             targets, config.products);
    };
    Tensor hidden_BTD = model.final_norm(flow.hidden_BTD);
    loss.main = loss_at(hidden_BTD, 1);
    loss.total = loss.main;
    for (int64_t k = 0; k < J; ++k) {
      hidden_BTD = model.mtp_embedded(k, hidden_BTD, flow.ahead_BTD[static_cast<size_t>(k)], &trace, pass);
      loss.mtp.push_back(loss_at(hidden_BTD, k + 2));
      loss.total = loss.total + loss.mtp.back() * (config.mtp_weight / static_cast<double>(J));
    }
  }
  add_balance(c, trace, B, rows, config, loss);
  flow.balance = loss.balance;
  if (!stage.has_head) return {std::move(flow), std::move(loss)};
  loss.total = loss.total + loss.balance;
  return {{}, std::move(loss)};
}

BatchLoss batch_loss(const Transformer& model, const TrainBatch& batch, const LossConfig& config,
                     const LossDivisor& divisor) {
  return stage_loss(model, whole_model(model.config()), batch, {}, config, divisor).loss;
}

}  // namespace hadal
