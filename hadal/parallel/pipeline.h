// Runs the action lists of a schedule (schedule.h): what a stage computes is somebody else's; who needs what,
// from whom and when, is settled here (training spec 10.6). Torch-free.
//
// Every rank knows all lists, so it knows in which order its neighbours send, and takes messages in that
// order, whatever it needs first. Sends do not wait. A message names what it is: a disorder is an error,
// never other numbers.
#pragma once
#include <vector>

#include "hadal/parallel/comm.h"
#include "hadal/parallel/schedule.h"

namespace hadal {

// From one stage to a later one: activations of each micro-batch, and their gradients back.
struct StageLink {
  int from, to;
  bool past = false;  // beside the chain, past the stages between
};

using Packet = std::vector<float>;

// The stages of one rank.
class StageWork {
 public:
  virtual ~StageWork() = default;
  // Floats that a link carries, for a micro-batch.
  virtual int64_t forward_size(const StageLink& link, int microbatch) const = 0;
  virtual int64_t backward_size(const StageLink& link, int microbatch) const = 0;
  // `in`: of the links that end at the stage; returns those of the links that begin there. Both in the order
  // of the links.
  virtual std::vector<Packet> forward(int stage, int microbatch, std::vector<Packet> in) = 0;
  // The other way round. input_only: the weights' gradients follow by weight_gradients().
  virtual std::vector<Packet> backward(int stage, int microbatch, std::vector<Packet> gradients,
                                       bool input_only) = 0;
  virtual void weight_gradients(int stage, int microbatch) = 0;
};

// Each pair as it is run here, where nothing runs beside it: the backward pass, then the forward pass. So a
// pair frees activations before it makes new ones.
Schedule pairs_in_turn(const Schedule& schedule);

// This rank's list, pairs in turn. All ranks of the pipeline give the same schedule and links; rank r of
// `comm` is the schedule's.
void run_pipeline(Comm& comm, const Schedule& schedule, const std::vector<StageLink>& links, StageWork& work);

// Forward passes alone, of as many micro-batches, by the ranks that the schedule's first micro-batch meets.
Schedule forward_only(const Schedule& schedule, int microbatches);

}  // namespace hadal
