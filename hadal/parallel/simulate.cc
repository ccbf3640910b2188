#include "hadal/parallel/simulate.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <tuple>

#include "hadal/base/check.h"
#include "hadal/base/text.h"

namespace hadal {
namespace {

const char* letter(Pass pass) {
  switch (pass) {
    case Pass::kForward:
      return "F";
    case Pass::kBackward:
      return "B";
    case Pass::kInputGrad:
      return "I";
    case Pass::kWeightGrad:
      return "W";
    case Pass::kPair:
      return "F";
  }
  return "";
}

class Clockwork {
 public:
  Clockwork(const Schedule& schedule, const Durations& durations)
      : schedule_(schedule), durations_(durations) {
    const auto n = static_cast<size_t>(schedule.stages * schedule.shape.microbatches);
    forward_.assign(n, -1), input_.assign(n, -1), weight_.assign(n, -1);
  }

  Simulation run() {
    const size_t P = schedule_.actions.size();
    result_.ranks.resize(P);
    std::vector<size_t> next(P);
    std::vector<double> free_at(P);
    bool moved = true;
    while (moved) {
      moved = false;
      for (size_t r = 0; r < P; ++r)
        while (next[r] < schedule_.actions[r].size()) {
          const Action& a = schedule_.actions[r][next[r]];
          const double ready = ready_at(a, static_cast<int>(r));
          if (ready < 0) break;
          const double begin = std::max(ready, free_at[r]), end = begin + durations_(a);
          free_at[r] = end;
          done(a, end);
          result_.ranks[r].push_back({a, begin, end});
          ++next[r];
          moved = true;
        }
    }
    std::string stuck;
    for (size_t r = 0; r < P; ++r)
      if (next[r] < schedule_.actions[r].size())
        stuck += cat(" rank ", r, " at ", text_of(schedule_.actions[r][next[r]]));
    HADAL_CHECK(stuck.empty()) << name(schedule_.kind) << " deadlocks:" << stuck;
    for (const double end : weight_) HADAL_CHECK(end >= 0) << name(schedule_.kind) << " leaves something out";
    for (size_t r = 0; r < P; ++r) result_.makespan = std::max(result_.makespan, free_at[r]);
    for (size_t r = 0; r < P; ++r) measure(r);
    return std::move(result_);
  }

 private:
  size_t at(int stage, int microbatch) const {
    HADAL_CHECK(stage >= 0 && stage < schedule_.stages && microbatch >= 0 &&
                microbatch < schedule_.shape.microbatches);
    return static_cast<size_t>(stage * schedule_.shape.microbatches + microbatch);
  }

  // When what a forward needs is there; -1: not yet known.
  double forward_ready(int stage, int microbatch) const {
    return stage == 0 ? 0 : forward_[at(stage - 1, microbatch)];
  }
  double backward_ready(int stage, int microbatch) const {
    const double own = forward_[at(stage, microbatch)];
    if (stage == schedule_.stages - 1 || own < 0) return own;
    const double above = input_[at(stage + 1, microbatch)];
    return above < 0 ? -1 : std::max(own, above);
  }

  double ready_at(const Action& a, int rank) const {
    HADAL_CHECK(schedule_.rank_of(a.stage, a.microbatch) == rank) << text_of(a) << " on rank " << rank;
    switch (a.pass) {
      case Pass::kForward:
        return forward_ready(a.stage, a.microbatch);
      case Pass::kBackward:
      case Pass::kInputGrad:
        return backward_ready(a.stage, a.microbatch);
      case Pass::kWeightGrad:
        return input_[at(a.stage, a.microbatch)];
      case Pass::kPair: {
        const double f = forward_ready(a.stage, a.microbatch);
        const double b = backward_ready(a.backward_stage, a.backward_microbatch);
        return f < 0 || b < 0 ? -1 : std::max(f, b);
      }
    }
    return -1;
  }

  void mark(std::vector<double>& when, int stage, int microbatch, double end) {
    double& place = when[at(stage, microbatch)];
    HADAL_CHECK(place < 0) << "stage " << stage << " micro-batch " << microbatch << " is done twice";
    place = end;
  }

  void done(const Action& a, double end) {
    if (a.pass == Pass::kForward || a.pass == Pass::kPair) mark(forward_, a.stage, a.microbatch, end);
    if (a.pass == Pass::kBackward || a.pass == Pass::kInputGrad) mark(input_, a.stage, a.microbatch, end);
    if (a.pass == Pass::kBackward || a.pass == Pass::kWeightGrad) mark(weight_, a.stage, a.microbatch, end);
    if (a.pass != Pass::kPair) return;
    mark(input_, a.backward_stage, a.backward_microbatch, end);
    mark(weight_, a.backward_stage, a.backward_microbatch, end);
  }

  void measure(size_t r) {
    double busy = 0;
    int held = 0, waiting = 0, peak = 0, peak_waiting = 0;
    for (const TimedAction& t : result_.ranks[r]) {
      busy += t.end - t.begin;
      // In a pair one grows as the other shrinks, layer by layer.
      if (t.action.pass == Pass::kForward) ++held;
      if (t.action.pass == Pass::kInputGrad) ++waiting;
      peak = std::max(peak, held), peak_waiting = std::max(peak_waiting, waiting);
      if (t.action.pass == Pass::kBackward) --held;
      if (t.action.pass == Pass::kWeightGrad) --held, --waiting;
    }
    result_.idle.push_back(result_.makespan - busy);
    result_.peak_held.push_back(peak);
    result_.peak_waiting.push_back(peak_waiting);
  }

  const Schedule& schedule_;
  const Durations& durations_;
  Simulation result_;
  std::vector<double> forward_, input_, weight_;  // [stage, micro-batch]: when done; -1: not yet
};

}  // namespace

std::string text_of(const Action& a) {
  std::string out = cat(letter(a.pass), a.microbatch, "@", a.stage);
  if (a.pass == Pass::kPair) out += cat("&B", a.backward_microbatch, "@", a.backward_stage);
  return out;
}

double PassTimes::of(Pass pass) const {
  switch (pass) {
    case Pass::kForward:
      return forward;
    case Pass::kBackward:
      return input_grad + weight_grad;
    case Pass::kInputGrad:
      return input_grad;
    case Pass::kWeightGrad:
      return weight_grad;
    case Pass::kPair:
      return pair;
  }
  return 0;
}

Simulation simulate(const Schedule& schedule, const Durations& durations) {
  return Clockwork(schedule, durations).run();
}

Simulation simulate(const Schedule& schedule, const PassTimes& times) {
  return simulate(schedule, [&](const Action& a) { return times.of(a.pass); });
}

std::string schedule_text(const Schedule& schedule) {
  std::string out;
  for (size_t r = 0; r < schedule.actions.size(); ++r) {
    out += cat("rank ", r, ":");
    for (const Action& a : schedule.actions[r]) out += " " + text_of(a);
    out += "\n";
  }
  return out;
}

std::string schedule_svg(const Schedule& schedule, const Simulation& simulation) {
  constexpr double kRow = 26, kLeft = 64, kTop = 44;
  const double unit = std::clamp(1400 / std::max(simulation.makespan, 1e-9), 4.0, 28.0);
  const double width = kLeft + simulation.makespan * unit + 16;
  const double height = kTop + kRow * static_cast<double>(simulation.ranks.size()) + 34;
  std::string out =
      cat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", width, " ", height,
          "\" font-family=\"system-ui, sans-serif\" font-size=\"11\">\n"
          "<style>text{fill:#1f2328}.n{fill:#fff;font-size:9px;text-anchor:middle}.g{fill:#d0d7de33}"
          "@media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>\n");
  char line[400];
  std::snprintf(line, sizeof line,
                "<text x=\"8\" y=\"18\" font-size=\"13\">%s, %d ranks, %d micro-batches: %.4g long, the "
                "longest wait %.4g</text>\n",
                name(schedule.kind), schedule.shape.ranks, schedule.shape.microbatches, simulation.makespan,
                *std::max_element(simulation.idle.begin(), simulation.idle.end()));
  out += line;
  const auto box = [&](double x, double y, double w, double h, const char* colour, int number, bool second) {
    std::snprintf(line, sizeof line,
                  "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"%s stroke=\"#fff\" "
                  "stroke-width=\".6\"/>\n",
                  x, y, w, h, colour, second ? " opacity=\".62\"" : "");
    out += line;
    if (w < 9) return;
    std::snprintf(line, sizeof line, "<text class=\"n\" x=\"%.2f\" y=\"%.2f\">%d</text>\n", x + w / 2,
                  y + h / 2 + 3, number);
    out += line;
  };
  const char *forward = "#3b82f6", *backward = "#15803d", *input = "#0d9488", *weight = "#b45309";
  for (size_t r = 0; r < simulation.ranks.size(); ++r) {
    const double y = kTop + kRow * static_cast<double>(r);
    std::snprintf(line, sizeof line,
                  "<text x=\"8\" y=\"%.2f\">rank %zu</text><rect class=\"g\" x=\"%.2f\" y=\"%.2f\" "
                  "width=\"%.2f\" height=\"%.2f\"/>\n",
                  y + 16, r, kLeft, y, simulation.makespan * unit, kRow - 4);
    out += line;
    const std::vector<int> stages = schedule.stages_of(static_cast<int>(r));
    const auto second = [&](int stage) { return stages.size() > 1 && stage != stages[0]; };
    for (const TimedAction& t : simulation.ranks[r]) {
      const double x = kLeft + t.begin * unit, w = (t.end - t.begin) * unit, h = kRow - 4;
      const Action& a = t.action;
      if (a.pass == Pass::kPair) {
        box(x, y, w, h / 2, forward, a.microbatch, second(a.stage));
        box(x, y + h / 2, w, h / 2, backward, a.backward_microbatch, second(a.backward_stage));
      } else {
        box(x, y, w, h,
            a.pass == Pass::kForward     ? forward
            : a.pass == Pass::kBackward  ? backward
            : a.pass == Pass::kInputGrad ? input
                                         : weight,
            a.microbatch, second(a.stage));
      }
    }
  }
  const double y = height - 14;
  double x = kLeft;
  for (const auto& [colour, word] : {std::pair{forward, "forward"},
                                     {backward, "backward"},
                                     {input, "gradient of the input"},
                                     {weight, "gradient of the weights"}}) {
    std::snprintf(line, sizeof line,
                  "<rect x=\"%.2f\" y=\"%.2f\" width=\"10\" height=\"10\" fill=\"%s\"/><text x=\"%.2f\" "
                  "y=\"%.2f\">%s</text>\n",
                  x, y - 9, colour, x + 14, y, word);
    out += line;
    x += 40 + 6.2 * static_cast<double>(std::string(word).size());
  }
  return out + "</svg>\n";
}

}  // namespace hadal
