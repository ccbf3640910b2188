#include "hadal/parallel/schedule.h"

#include <algorithm>
#include <deque>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

// The list of one rank while it is made. Micro-batches of each (phase, pass) count up by themselves.
class RankList {
 public:
  // phase p is stage `stages[p]`, its micro-batches start at `first[p]`.
  RankList(std::vector<int> stages, std::vector<int> first = {})
      : stages_(std::move(stages)),
        next_forward_(first.empty() ? std::vector<int>(stages_.size()) : first),
        next_backward_(next_forward_) {}

  void forward(int phase) {
    out_.push_back({Pass::kForward, stages_[at(phase)], next_forward_[at(phase)]++});
  }

  // Both gradients at once, or the input's with the weights' put into the queue.
  void backward(int phase, bool split = false) {
    const int stage = stages_[at(phase)], microbatch = next_backward_[at(phase)]++;
    out_.push_back({split ? Pass::kInputGrad : Pass::kBackward, stage, microbatch});
    if (split) pending_.push_back({Pass::kWeightGrad, stage, microbatch});
  }

  void pair(int forward_phase, int backward_phase) {
    out_.push_back({Pass::kPair, stages_[at(forward_phase)], next_forward_[at(forward_phase)]++,
                    stages_[at(backward_phase)], next_backward_[at(backward_phase)]++});
  }

  // The oldest weight gradient; of one phase only if given.
  void weights(int phase = -1) {
    const auto it = std::find_if(pending_.begin(), pending_.end(),
                                 [&](const Action& a) { return phase < 0 || a.stage == stages_[at(phase)]; });
    HADAL_CHECK(it != pending_.end()) << "no weight gradient is due";
    out_.push_back(*it);
    pending_.erase(it);
  }

  bool owes_weights(int phase) const {
    return std::any_of(pending_.begin(), pending_.end(),
                       [&](const Action& a) { return a.stage == stages_[at(phase)]; });
  }
  size_t num_pending() const { return pending_.size(); }
  int forwards(int phase) const { return next_forward_[at(phase)]; }
  std::vector<Action> take() { return std::move(out_); }

 private:
  static size_t at(int phase) { return static_cast<size_t>(phase); }

  std::vector<int> stages_, next_forward_, next_backward_;
  std::deque<Action> pending_;
  std::vector<Action> out_;
};

std::vector<Action> gpipe(int r, int C) {
  RankList list({r});
  for (int i = 0; i < C; ++i) list.forward(0);
  for (int i = 0; i < C; ++i) list.backward(0);
  return list.take();
}

// Fill the pipe, then one forward for each backward: at most P - r activations live.
std::vector<Action> one_f_one_b(int r, int P, int C) {
  RankList list({r});
  const int warm_up = std::min(P - r - 1, C);
  for (int i = 0; i < warm_up; ++i) list.forward(0);
  for (int i = 0; i < C - warm_up; ++i) list.forward(0), list.backward(0);
  for (int i = 0; i < warm_up; ++i) list.backward(0);
  return list.take();
}

// 1F1B over V chunks a rank; the k-th forward and the k-th backward are the same on all ranks.
std::vector<Action> interleaved(int r, int P, int C, int V) {
  const int items = C * V, warm_up = std::min(2 * (P - r - 1) + (V - 1) * P, items);
  const auto item = [&](int k, bool backward) {
    const int chunk = k % (P * V) / P;
    return Action{backward ? Pass::kBackward : Pass::kForward, (backward ? V - 1 - chunk : chunk) * P + r,
                  k / (P * V) * P + k % P};
  };
  std::vector<Action> out;
  for (int k = 0; k < warm_up; ++k) out.push_back(item(k, false));
  for (int k = 0; k < items - warm_up; ++k) {
    out.push_back(item(k + warm_up, false));
    out.push_back(item(k, true));
  }
  for (int k = items - warm_up; k < items; ++k) out.push_back(item(k, true));
  return out;
}

// 1F1B whose weight gradients lag by r micro-batches, and fill the holes at the end.
std::vector<Action> zero_bubble_h1(int r, int P, int C) {
  RankList list({r});
  const int warm_up = std::min(P - r - 1, C);
  for (int i = 0; i < warm_up; ++i) list.forward(0);
  for (int j = 0; j < C; ++j) {
    if (j < C - warm_up) list.forward(0);
    list.backward(0, /*split=*/true);
    if (j >= r) list.weights();
  }
  while (list.num_pending() > 0) list.weights();
  return list.take();
}

// Stages r and 2P - 1 - r on rank r.
std::vector<Action> zero_bubble_v(int r, int P, int C) {
  const int n = std::max(C, 2 * P - 1);
  RankList list({r, 2 * P - 1 - r});
  const auto backward = [&](int phase) { list.backward(phase, /*split=*/true); };
  for (int i = 0; i < 2 * (P - r) - 1; ++i) list.forward(0);
  for (int i = 0; i < r; ++i) list.forward(1), list.forward(0);
  for (int i = 0; i < P - r; ++i) list.forward(1), backward(1), list.weights(1);
  while (list.forwards(0) < n || list.forwards(1) < n) {
    if (list.forwards(0) < n) list.forward(0);
    backward(0), list.weights(0);
    list.forward(1), backward(1), list.weights(1);
  }
  for (int i = 0; i < r; ++i) backward(0), backward(1);
  for (int i = 0; i < P - r; ++i) backward(0), list.weights(0);
  while (list.owes_weights(1)) list.weights(1);
  while (list.owes_weights(0)) list.weights(0);
  std::vector<Action> out = list.take();
  std::erase_if(out, [&](const Action& a) { return a.microbatch >= C; });
  return out;
}

// DualPipe and DualPipeV differ in what they count: half = h or P, q = distance from the outer end, n =
// micro-batches a direction. `unpaired_first`: the first pair would wait for itself.
std::vector<Action> dual(RankList list, int half, int q, int n, bool unpaired_first) {
  for (int i = 0; i < 2 * (half - q - 1); ++i) list.forward(0);
  for (int i = 0; i < q + 1; ++i) list.forward(0), list.forward(1);
  for (int i = 0; i < half - q - 1; ++i) list.backward(1, true), list.weights(), list.forward(1);
  for (int i = 0; i < n - 2 * half + q + 1; ++i) {
    if (i == 0 && unpaired_first)
      list.forward(0), list.backward(1);
    else
      list.pair(0, 1);
    list.pair(1, 0);
  }
  for (int i = 0; i < half - q - 1; ++i) list.backward(1), list.pair(1, 0);
  for (int i = 0; i < q + 1; ++i) {
    const int turn = (q + 1) / 2;
    const bool first = i > turn || (i == turn && q % 2 == 1), second = i >= turn;
    list.backward(1, first);
    list.backward(0, second);
  }
  for (int i = 0; i < half - q - 1; ++i) list.weights(), list.backward(0, true);
  for (int i = 0; i < q + 1; ++i) list.weights();
  HADAL_CHECK(list.num_pending() == 0) << "weight gradients are left";
  return list.take();
}

std::vector<Action> dualpipe(int r, int P, int C) {
  const int half = P / 2, q = std::min(r, P - 1 - r);
  const bool swapped = r >= half;  // phase 0 is the direction that enters on this half
  const std::vector<int> stages = swapped ? std::vector{P - 1 - r, r} : std::vector{r, P - 1 - r};
  const std::vector<int> first = swapped ? std::vector{C / 2, 0} : std::vector{0, C / 2};
  return dual(RankList(stages, first), half, q, C / 2, /*unpaired_first=*/r == half || r == half - 1);
}

std::vector<Action> dualpipe_v(int r, int P, int C) {
  return dual(RankList({r, 2 * P - 1 - r}), P, r, C, /*unpaired_first=*/r == P - 1);
}

}  // namespace

const char* name(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::kGPipe:
      return "gpipe";
    case ScheduleKind::kOneFOneB:
      return "1f1b";
    case ScheduleKind::kInterleaved:
      return "interleaved";
    case ScheduleKind::kZeroBubbleH1:
      return "zb-h1";
    case ScheduleKind::kZeroBubbleV:
      return "zb-v";
    case ScheduleKind::kDualPipe:
      return "dualpipe";
    case ScheduleKind::kDualPipeV:
      return "dualpipe-v";
  }
  return "";
}

const std::vector<ScheduleKind>& all_schedules() {
  using K = ScheduleKind;
  static const std::vector<K> all = {K::kGPipe,       K::kOneFOneB, K::kInterleaved, K::kZeroBubbleH1,
                                     K::kZeroBubbleV, K::kDualPipe, K::kDualPipeV};
  return all;
}

ScheduleKind schedule_kind(std::string_view wanted) {
  std::vector<std::string> names;
  for (const ScheduleKind kind : all_schedules()) {
    if (wanted == name(kind)) return kind;
    names.emplace_back(name(kind));
  }
  std::string list;
  for (const std::string& one : names) list += (list.empty() ? "" : ", ") + one;
  throw Error(ErrorCode::kInvalidArgument, cat("[parallel.schedule] unknown schedule \"", wanted, "\"",
                                               did_you_mean(wanted, names), ". Known: ", list, "."));
}

int Schedule::rank_of(int stage, int microbatch) const {
  const int P = shape.ranks;
  switch (kind) {
    case ScheduleKind::kInterleaved:
      return stage % P;
    case ScheduleKind::kZeroBubbleV:
    case ScheduleKind::kDualPipeV:
      return stage < P ? stage : 2 * P - 1 - stage;
    case ScheduleKind::kDualPipe:
      return microbatch < shape.microbatches / 2 ? stage : P - 1 - stage;
    default:
      return stage;
  }
}

std::vector<int> Schedule::stages_of(int rank) const {
  if (kind == ScheduleKind::kDualPipe) return {rank, shape.ranks - 1 - rank};
  std::vector<int> out;
  for (int stage = 0; stage < stages; ++stage)
    if (rank_of(stage, 0) == rank) out.push_back(stage);
  return out;
}

void check_schedule(ScheduleKind kind, const ScheduleShape& s) {
  const auto need = [&](bool good, const char* what) {
    if (!good)
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[parallel.schedule] ", name(kind), " with ", s.ranks, " ranks, ", s.microbatches,
                      " micro-batches and ", s.chunks, " chunks a rank: need ", what, "."));
  };
  need(s.ranks >= 1 && s.microbatches >= 1 && s.chunks >= 1, "at least one of each");
  if (kind == ScheduleKind::kInterleaved)
    need(s.microbatches % s.ranks == 0, "micro-batches a multiple of the ranks");
  if (kind == ScheduleKind::kDualPipe)
    need(s.ranks % 2 == 0 && s.microbatches % 2 == 0 && s.microbatches >= 2 * s.ranks,
         "an even number of ranks and of micro-batches, and twice as many micro-batches as ranks");
  if (kind == ScheduleKind::kDualPipeV)
    need(s.microbatches >= 2 * s.ranks, "twice as many micro-batches as ranks");
}

int num_stages(ScheduleKind kind, int ranks, int chunks) {
  if (kind == ScheduleKind::kInterleaved) return ranks * chunks;
  return kind == ScheduleKind::kZeroBubbleV || kind == ScheduleKind::kDualPipeV ? 2 * ranks : ranks;
}

Schedule make_schedule(ScheduleKind kind, const ScheduleShape& shape) {
  check_schedule(kind, shape);
  const int P = shape.ranks, C = shape.microbatches, V = shape.chunks;
  Schedule schedule{.kind = kind, .shape = shape, .stages = num_stages(kind, P, V), .actions = {}};
  for (int r = 0; r < P; ++r) {
    switch (kind) {
      case ScheduleKind::kGPipe:
        schedule.actions.push_back(gpipe(r, C));
        break;
      case ScheduleKind::kOneFOneB:
        schedule.actions.push_back(one_f_one_b(r, P, C));
        break;
      case ScheduleKind::kInterleaved:
        schedule.actions.push_back(interleaved(r, P, C, V));
        break;
      case ScheduleKind::kZeroBubbleH1:
        schedule.actions.push_back(zero_bubble_h1(r, P, C));
        break;
      case ScheduleKind::kZeroBubbleV:
        schedule.actions.push_back(zero_bubble_v(r, P, C));
        break;
      case ScheduleKind::kDualPipe:
        schedule.actions.push_back(dualpipe(r, P, C));
        break;
      case ScheduleKind::kDualPipeV:
        schedule.actions.push_back(dualpipe_v(r, P, C));
        break;
    }
  }
  return schedule;
}

}  // namespace hadal
