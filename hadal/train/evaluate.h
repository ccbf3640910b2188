// What a model is worth on text it was not trained on.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "hadal/model/transformer.h"
#include "hadal/train/loss.h"

namespace hadal {

struct HeldOut {
  double loss = 0;                      // mean cross entropy of the main model, nats a token
  std::optional<double> bits_per_byte;  // with token_bytes
  double accuracy = 0;                  // share of the targets that are the likeliest token
  std::vector<double> mtp_acceptance;   // per MTP module: share of its guesses that are the main model's too
  std::optional<double> max_vio;        // of the loads over the whole set, mean over MoE layers; none: dense
  int64_t targets = 0;                  // tokens predicted
  int64_t bytes = 0;                    // of their text
};

// Adds up over calls; result() at any time. No gradients, no side effects on the model.
class Evaluation {
 public:
  // token_bytes: bytes of text of each id, or empty. pass: who else has parts of the model. All must outlive
  // this.
  Evaluation(const Transformer& model, std::span<const int64_t> token_bytes = {},
             const TrainingPass& pass = {});
  // Rows of T + 1 + J tokens: predicts the T after the first, those of another document left out. J: the
  // model's mtp_depth.
  void add(const TrainBatch& rows);
  // The same through one stage of the network, which moves `flow` on; counts where the head is.
  void add(const TrainBatch& rows, const Stage& stage, StageFlow& flow);
  HeldOut result() const;
  std::vector<ExpertLoad> loads() const;  // of the stages that rows went through

 private:
  void add_loads(const Trace& trace);
  void add_head(const TrainBatch& rows, const StageFlow& flow, Trace& trace, const TrainingPass& pass);
  const Transformer& model_;
  std::span<const int64_t> token_bytes_;
  TrainingPass pass_;
  double loss_ = 0;
  int64_t targets_ = 0, right_ = 0, bytes_ = 0;
  std::vector<int64_t> agreed_, guessed_;  // per MTP module
  std::map<int64_t, Tensor> loads_;        // of each MoE layer
};

// All rows of a set, so many at a time.
constexpr int64_t kEvaluatedRows = 8;
HeldOut evaluate(const Transformer& model, const TrainBatch& rows, std::span<const int64_t> token_bytes = {});

}  // namespace hadal
