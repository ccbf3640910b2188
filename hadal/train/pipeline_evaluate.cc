#include "hadal/train/pipeline_evaluate.h"

#include <algorithm>

#include "hadal/base/check.h"
#include "hadal/parallel/expert_all_to_all.h"
#include "hadal/parallel/rank_tensor_sum.h"
#include "hadal/tensor/make.h"
#include "hadal/train/adamw.h"
#include "hadal/train/pipeline_stages.h"
#include "hadal/train/rank_sum.h"

namespace hadal {
namespace {

class EvaluatedStages : public StageWork {
 public:
  // `silent`: takes part for others' rows, with none of its own.
  EvaluatedStages(const RankLayout& ranks, const Transformer& model, const TrainBatch& rows,
                  Evaluation& evaluation, bool silent)
      : ranks_(ranks), model_(model), rows_(rows), evaluation_(evaluation), silent_(silent) {}

  int64_t forward_size(const StageLink& link, int piece) const override {
    return shape(piece).floats(link, /*back=*/false);
  }
  std::vector<Packet> forward(int stage, int piece, std::vector<Packet> in) override {
    const Stage& what = ranks_.stages()[static_cast<size_t>(stage)];
    StageFlow flow = shape(piece).unpack(what, in);
    evaluation_.add(rows_.rows(first(piece), shape(piece).rows), what, flow);
    flow.balance = zeros({});
    return FlowShape::pack(what, flow);
  }
  int64_t backward_size(const StageLink&, int) const override { return 0; }
  std::vector<Packet> backward(int, int, std::vector<Packet>, bool) override {
    HADAL_CHECK(false) << "an evaluation has no gradients";
    return {};
  }
  void weight_gradients(int, int) override {}

 private:
  static int64_t first(int piece) { return piece * kEvaluatedRows; }
  FlowShape shape(int piece) const {
    const ModelConfig& c = model_.config();
    const int64_t rows = rows_.window_BX.size(0) - first(piece);
    return {silent_ ? 0 : std::min(kEvaluatedRows, rows), rows_.window_BX.size(1) - 1 - c.mtp_depth, c.width,
            c.mtp_depth};
  }

  const RankLayout& ranks_;
  const Transformer& model_;
  const TrainBatch& rows_;
  Evaluation& evaluation_;
  bool silent_;
};

// From the rank with the head to all, with the loads of all layers.
HeldOut completed(const RankLayout& ranks, const HeldOut& mine, const Evaluation& evaluation) {
  Comm& pipeline = ranks.chain();
  HeldOut found = mine;
  struct Numbers {
    double loss, bits_per_byte, accuracy;
    int64_t targets, bytes;
  } numbers{mine.loss, mine.bits_per_byte.value_or(0), mine.accuracy, mine.targets, mine.bytes};
  broadcast(pipeline, &numbers, sizeof numbers, ranks.head_rank());
  found.loss = numbers.loss, found.accuracy = numbers.accuracy, found.targets = numbers.targets,
  found.bytes = numbers.bytes;
  if (numbers.bytes > 0) found.bits_per_byte = numbers.bits_per_byte;
  broadcast(pipeline, found.mtp_acceptance.data(),
            static_cast<int64_t>(found.mtp_acceptance.size() * sizeof(double)), ranks.head_rank());
  StepLoss loads;
  loads.loads = evaluation.loads();
  const StepLoss all = sum_losses(pipeline, 0, {loads});
  found.max_vio.reset();
  if (!all.loads.empty()) found.max_vio = max_violation(all.loads);
  return found;
}

}  // namespace

HeldOut evaluate(const RankLayout& ranks, const Transformer& model, const TrainBatch& rows,
                 std::span<const int64_t> token_bytes) {
  if (!ranks.spread()) return evaluate(model, rows, token_bytes);
  std::optional<ExpertAllToAll> exchange;
  std::optional<RankTensorSum> sum;
  TrainingPass pass;
  if (ranks.block()) pass.exchange = &exchange.emplace(*ranks.block());
  if (ranks.tensor()) pass.tensor_sum = &sum.emplace(*ranks.tensor());
  Evaluation evaluation(model, token_bytes, pass);
  const int64_t pieces = (rows.window_BX.size(0) + kEvaluatedRows - 1) / kEvaluatedRows;
  EvaluatedStages work(ranks, model, rows, evaluation, /*silent=*/ranks.data_rank() > 0);
  run_pipeline(ranks.chain(),
               forward_only(ranks.schedule(2 * ranks.pipeline_ranks()), static_cast<int>(pieces)),
               stage_links(model.config(), static_cast<int>(ranks.stages().size())), work);
  return completed(ranks, evaluation.result(), evaluation);
}

}  // namespace hadal
