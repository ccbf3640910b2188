// The training loss of one batch (training spec 5 to 7): main cross entropy, MTP, sequence-wise balance.
#pragma once
#include <vector>

#include "hadal/model/transformer.h"

namespace hadal {

struct LossConfig {
  double mtp_weight = 0.3;      // lambda: the mean of the MTP losses times this joins the total
  double balance_alpha = 1e-4;  // of the sequence-wise balance loss; 0: none
  // Of V2's losses over experts, devices (groups of experts) and what is sent to them; 0: none.
  double expert_alpha = 0, device_alpha = 0, communication_alpha = 0;
  double capacity_factor = 0;          // of V2's token dropping, kept_slots(); 0: nothing is dropped
  Products products = Products::kF32;  // see TrainingPass
  std::optional<Fp8Recipe> fp8;
  Recompute recompute = Recompute::kNone;
  ExpertExchange* exchange = nullptr;  // see TrainingPass
  TensorSum* tensor_sum = nullptr;
};

// What one MoE layer was given in one batch.
struct ExpertLoad {
  int64_t layer = 0;
  Tensor count_E;  // int64: (token, slot) pairs routed to each expert
};

struct BatchLoss {
  Tensor total;                   // differentiable scalar: main + mtp_weight * mean(mtp) + balance
  Tensor main;                    // cross entropy summed over targets, divided by LossDivisor::targets
  std::vector<Tensor> mtp;        // one per MTP module
  Tensor balance;                 // alpha included
  std::vector<ExpertLoad> loads;  // MoE layers in order, MTP modules last
};

// B rows of X = T+1+J tokens, perhaps a part of what one optimizer step sees. Main: input x[0..T-1], target
// x[i+1]. MTP module k (0-based): at position i it sees the embedding of x[i+1+k] and predicts x[i+2+k].
struct TrainBatch {
  Tensor window_BX;         // int64
  Tensor segment_start_BX;  // int64, first position of each token's document: attention and targets stay
                            // within it; undefined: documents are not told apart (V3)
  Tensor protected_B;       // bool: rows of which no token is dropped; undefined: none
  Tensor piece_start_BX;    // int64, first position of what targets stay within; undefined: segment_start_BX
  Tensor trained_BX;        // bool: the tokens that are targets; undefined: all
  TrainBatch(Tensor window, Tensor segment_start = {}, Tensor protected_rows = {}, Tensor piece_start = {},
             Tensor trained = {})
      : window_BX(std::move(window)),
        segment_start_BX(std::move(segment_start)),
        protected_B(std::move(protected_rows)),
        piece_start_BX(std::move(piece_start)),
        trained_BX(std::move(trained)) {}
  TrainBatch rows(int64_t first, int64_t n) const;
  TrainBatch on(at::Device device) const;  // but protected_B, which is read on the CPU
};

// What the sums are divided by: targets and rows of the whole step, over all its batches and ranks. Gradients
// of the batches then add up, whatever their sizes (training spec 5). 0: this batch is the step.
struct LossDivisor {
  int64_t targets = 0, rows = 0;
};

// Targets `shift` tokens after the first T of each row, flattened; -1 where that is of another document or
// piece, or is not trained on.
Tensor targets_T(const TrainBatch& batch, int64_t T, int64_t shift);

// Targets of the main model in the batch: what LossDivisor::targets sums.
int64_t count_targets(const ModelConfig& config, const TrainBatch& batch);

// What one stage of the network hands on to the next in the forward pass.
struct StageFlow {
  Tensor hidden_BTD;              // undefined: before the embedding, after the head
  std::vector<Tensor> ahead_BTD;  // from the embedding past all stages to the head, one per MTP module: the
                                  // embeddings it joins
  Tensor balance;                 // balance losses of the layers so far, a number
};

// A batch through the stages in order is batch_loss(), bit for bit. Inputs that require gradients get them:
// from the outputs' and 1 of loss.total (with the head) or loss.balance (without).
struct StageLoss {
  StageFlow out;
  BatchLoss loss;  // without the head: balance up to here, and the stage's loads
};
StageLoss stage_loss(const Transformer& model, const Stage& stage, const TrainBatch& batch,
                     const StageFlow& in, const LossConfig& config, const LossDivisor& divisor);

BatchLoss batch_loss(const Transformer& model, const TrainBatch& batch, const LossConfig& config,
                     const LossDivisor& divisor = {});

// Sum over rows of sum_i f_i P_i for one layer: P the mean normalised affinity, f the share of
// tokens whose plain top-k of the unbiased affinities holds expert i. Gradient through P only. V3
// report 2.1.2.
Tensor sequence_balance_loss(const MoeConfig& moe, const Tensor& affinity_TE, int64_t B);

}  // namespace hadal
