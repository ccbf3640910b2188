// A schedule played against a clock, without communication time: when everything happens, how long each rank
// waits, and what it must hold. Torch-free.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "hadal/parallel/schedule.h"

namespace hadal {

// Seconds, or any unit, for one micro-batch through one stage.
struct PassTimes {
  double forward = 1, input_grad = 1, weight_grad = 1;
  double pair = 3;  // a forward and a whole backward, overlapped
  double of(Pass pass) const;
};

struct TimedAction {
  Action action;
  double begin = 0, end = 0;
};

struct Simulation {
  std::vector<std::vector<TimedAction>> ranks;
  double makespan = 0;
  std::vector<double> idle;       // of a rank, until the makespan
  std::vector<int> peak_held;     // micro-batch activations a rank holds at most, in chunks of a stage, from
                                  // their forward until both gradients are done
  std::vector<int> peak_waiting;  // of these, with their weight gradient alone outstanding
};

// How long an action takes where stages differ.
using Durations = std::function<double(const Action&)>;

// Throws internal if the schedule is wrong: something missing, done twice, done on the wrong rank, or a
// deadlock, with the actions that wait for each other.
Simulation simulate(const Schedule& schedule, const Durations& durations);
Simulation simulate(const Schedule& schedule, const PassTimes& times);

// "F3@0": the forward of micro-batch 3 through stage 0; B whole backward, I and W its parts; "F4@0&B1@7" a
// pair.
std::string text_of(const Action& action);

// One line a rank: "rank 0: F0@0 F1@0 ...", for people.
std::string schedule_text(const Schedule& schedule);

// The same as a picture over time: a row a rank, holes are the bubbles. A whole SVG document.
std::string schedule_svg(const Schedule& schedule, const Simulation& simulation);

}  // namespace hadal
