// What a rank of a pipeline computes in a step: forward and backward of its stages, a slot at a time.
//
// The network is cut between layers: a stage's input is a leaf of its graph, whose gradient goes back to the
// stage before. Embeddings that MTP modules join are looked up by the first stage, so the table exists once,
// and go to the last one past the others. Nothing is added up in another order than in one process.
#pragma once
#include <map>
#include <vector>

#include "hadal/ops/weight_gradients.h"
#include "hadal/parallel/pipeline.h"
#include "hadal/train/gradient_workers.h"

namespace hadal {

std::vector<StageLink> stage_links(const ModelConfig& config, int stages);

// What links carry of some rows; the balance losses go along the chain, forward only.
struct FlowShape {
  int64_t rows, length, width, ahead;  // ahead: MTP modules
  std::vector<int64_t> hidden() const { return {rows, length, width}; }
  int64_t floats(const StageLink& link, bool back) const;
  StageFlow unpack(const Stage& stage, const std::vector<Packet>& in) const;
  static std::vector<Packet> pack(const Stage& stage, const StageFlow& flow);
};

// A batch as the slots of a step, of which this pipeline has [begin, end); the batch holds their rows.
struct PipelineSlots {
  const TrainBatch& batch;
  std::span<const RowSlot> step;
  int64_t begin, end;
  int64_t size() const { return end - begin; }
  const RowSlot& at(int microbatch) const { return step[static_cast<size_t>(begin + microbatch)]; }
  TrainBatch rows(int microbatch) const {
    return batch.rows(at(microbatch).first - at(0).first, at(microbatch).rows);
  }
};

class PipelineStages : public StageWork {
 public:
  // stages: of the whole network; parts[i]: the weights of one of them, `held[i]`, that this rank has.
  PipelineStages(const std::vector<Stage>& stages, const std::vector<int>& held,
                 const std::vector<Transformer*>& parts, const PipelineSlots& slots, const LossConfig& config,
                 const LossDivisor& divisor);

  // Over all slots of the step, of each part; those of the slots that came here.
  std::vector<TreeSum<Gradients>> take_sums() { return std::move(sums_); }
  // Of each slot [begin, end): numbers where the last stage is, loads of the stages that are here.
  const std::vector<StepLoss>& losses() const { return losses_; }

  int64_t forward_size(const StageLink& link, int microbatch) const override {
    return shape(microbatch).floats(link, /*back=*/false);
  }
  int64_t backward_size(const StageLink& link, int microbatch) const override {
    return shape(microbatch).floats(link, /*back=*/true);
  }
  std::vector<Packet> forward(int stage, int microbatch, std::vector<Packet> in) override;
  std::vector<Packet> backward(int stage, int microbatch, std::vector<Packet> gradients,
                               bool input_only) override;
  void weight_gradients(int stage, int microbatch) override;

 private:
  // Between a slot's forward pass through a stage and the last of its gradients.
  struct Live {
    StageFlow in, out;
    Tensor end;  // what the backward pass begins from besides `out`: loss or balance losses
    WeightGradients later;
    Gradients gradients;
  };

  size_t part_of(int stage) const;
  FlowShape shape(int microbatch) const;
  void finish(int stage, int microbatch);

  const std::vector<Stage>& stages_;
  std::vector<int> held_;
  std::vector<Transformer*> parts_;
  PipelineSlots slots_;
  LossConfig config_;
  LossDivisor divisor_;
  std::map<std::pair<int, int>, Live> live_;  // (stage, micro-batch)
  std::vector<TreeSum<Gradients>> sums_;
  std::vector<StepLoss> losses_;
};

}  // namespace hadal
