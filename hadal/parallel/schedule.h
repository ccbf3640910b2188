// Pipeline schedules as plain data: for each rank the list of what it does, in order. Torch-free; no
// communication. Construction rules: training spec, 10.3; DualPipe: V3 report, 3.2.1.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

enum class ScheduleKind {
  kGPipe,
  kOneFOneB,
  kInterleaved,
  kZeroBubbleH1,
  kZeroBubbleV,
  kDualPipe,
  kDualPipeV
};

// "gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe", "dualpipe-v".
const char* name(ScheduleKind kind);
// Throws invalid_argument with the list.
ScheduleKind schedule_kind(std::string_view name);
const std::vector<ScheduleKind>& all_schedules();

enum class Pass {
  kForward,
  kBackward,    // both gradients
  kInputGrad,   // of the chunk's input; its weights' gradient waits
  kWeightGrad,  //
  kPair,        // the forward of one micro-batch and the backward of another, interleaved
};

struct Action {
  Pass pass = Pass::kForward;
  int stage = 0;  // of the model, 0 holds the embedding
  int microbatch = 0;
  int backward_stage = -1, backward_microbatch = -1;  // with kPair
  bool operator==(const Action&) const = default;
};

// What a schedule is made for.
struct ScheduleShape {
  int ranks = 1;         // P
  int microbatches = 1;  // C; DualPipe: of both directions together
  int chunks = 2;        // V of the interleaved schedule: stages a rank
};

struct Schedule {
  ScheduleKind kind = ScheduleKind::kGPipe;
  ScheduleShape shape;
  int stages = 1;                            // of the model
  std::vector<std::vector<Action>> actions;  // [ranks]

  // The rank that runs a micro-batch through a stage. DualPipe holds every stage twice: its second half of
  // micro-batches enters at the last rank.
  int rank_of(int stage, int microbatch) const;
  // Stages whose weights a rank holds.
  std::vector<int> stages_of(int rank) const;
};

// Stages of the model that a kind makes of it.
int num_stages(ScheduleKind kind, int ranks, int chunks);

// Throws invalid_argument if the kind cannot have this shape, saying what it needs (DualPipe: P and C even, C
// >= 2P; DualPipeV: C >= 2P; interleaved: C a multiple of P).
void check_schedule(ScheduleKind kind, const ScheduleShape& shape);
// The same check, then the lists.
Schedule make_schedule(ScheduleKind kind, const ScheduleShape& shape);

}  // namespace hadal
