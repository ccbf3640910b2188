// What the ranks of data-parallel training tell each other in a step (training spec 5, 12, 14.3).
//
// Each takes a contiguous block of the step's slots. Sums go over the positions of the slots in one tree, so
// every layout of ranks computes what one process with the same slots does, bit for bit.
#pragma once
#include <vector>

#include "hadal/parallel/comm.h"
#include "hadal/train/adamw.h"
#include "hadal/train/gradient_workers.h"

namespace hadal {

// The step's numbers from those of slots [first, first + mine.size()) on each rank; the same on every rank.
// Of a slot that several ranks have each has a part: the numbers one of them, loads of other layers each.
StepLoss sum_losses(Comm& comm, int64_t first, const std::vector<StepLoss>& mine);

// All ranks' numbers, one rank's after the other's.
std::vector<double> gather_numbers(Comm& comm, const std::vector<double>& mine);

// The global sum of the gradients of this rank's parts of `layout`: one flat tensor a part, undefined where
// no slot of any rank had a gradient. The ranks have all slots together, whoever has which. Takes the
// gradients' memory.
std::vector<Tensor> sum_gradients(Comm& comm, const ShardLayout& layout, TreeSum<Gradients>& mine);

// The same, whole on every rank: a tensor for each of the layout.
std::vector<Tensor> whole_sum_of_gradients(Comm& comm, const ShardLayout& layout, TreeSum<Gradients>& mine);

// From each rank's parts whole tensors on every rank, into those given, which are contiguous; an undefined
// one becomes a flat fp32 tensor if its parts are defined. parts[i] belongs to layout.parts(rank)[i].
void gather_parts(Comm& comm, const ShardLayout& layout, const std::vector<Tensor>& parts,
                  std::vector<Tensor>& whole);

// After an update by all ranks, each of its own share of the weights (ZeRO-1): all of them on every rank.
void share_weights(Comm& comm, AdamW& optimizer);

// The moments of all ranks, whole, in the order of the weights; on rank 0, elsewhere empty.
std::vector<AdamW::Moments> gather_moments(Comm& comm, AdamW& optimizer);

}  // namespace hadal
