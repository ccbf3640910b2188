// What a rank that holds a part of a model computes in a step: forward and backward of its stages (without a
// pipeline one, the whole network), a slot at a time.
//
// The network is cut between layers: a stage's input is a leaf of its graph, whose gradient goes back to the
// stage before. Embeddings that MTP modules join are looked up by the first stage, so the table exists once,
// and go to the last one past the others. Nothing is added up in another order than in one process.
#pragma once
#include <map>
#include <vector>

#include "hadal/ops/weight_gradients.h"
#include "hadal/parallel/pipeline.h"
#include "hadal/train/rank_slots.h"

namespace hadal {

std::vector<StageLink> stage_links(const ModelConfig& config, int stages);

// What links carry of some rows; the balance losses go along the chain, forward only.
struct FlowShape {
  int64_t rows, length, width, ahead;  // ahead: MTP modules
  std::vector<int64_t> hidden() const { return {rows, length, width}; }
  int64_t floats(const StageLink& link, bool back) const;
  // Of a link's packet: its `n` tensors.
  std::vector<Tensor> tensors(const Packet& packet, int64_t n) const;
  StageFlow unpack(const Stage& stage, const std::vector<Packet>& in) const;
  static std::vector<Packet> pack(const Stage& stage, const StageFlow& flow);
};

class PipelineStages : public StageWork {
 public:
  // stages: of the whole network; replicas[i]: replica_of() one of them, `held[i]`, that this rank has.
  PipelineStages(const std::vector<Stage>& stages, const std::vector<int>& held,
                 std::vector<Transformer>& replicas, const RankSlots& slots, const LossConfig& config,
                 const LossDivisor& divisor);

  // Over all slots of the step, SlotSums::take() of each replica; of the slots that came here.
  std::vector<TreeSum<Gradients>> take_sums();
  // Of each of this rank's slots: numbers where the last stage is, loads of the stages that are here.
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
  void use_threads(int microbatch) const;

  const std::vector<Stage>& stages_;
  std::vector<int> held_;
  std::vector<Transformer>& replicas_;
  RankSlots slots_;
  LossConfig config_;
  LossDivisor divisor_;
  std::map<std::pair<int, int>, Live> live_;  // (stage, micro-batch)
  std::vector<SlotSums> sums_;
  std::vector<StepLoss> losses_;
  int threads_;
};

}  // namespace hadal
