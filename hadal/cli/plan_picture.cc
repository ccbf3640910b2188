#include "hadal/cli/plan_picture.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "hadal/base/text.h"
#include "hadal/report/axis.h"
#include "hadal/report/svg.h"

namespace hadal {
namespace {

constexpr double kLeft = 64, kWidth = 960, kBars = 240, kGiB = 1024.0 * 1024 * 1024;
constexpr int kMicrobatchesDrawn = 144;
// Told apart without colour vision too (after Okabe and Ito).
constexpr const char* kPartColours[] = {"#0072b2", "#56b4e9", "#009e73", "#8fd3b6",
                                        "#e69f00", "#cc79a7", "#d55e00", "#999999"};
constexpr const char *kForward = "#3b82f6", *kBackward = "#15803d", *kInput = "#0d9488", *kWeight = "#b45309";

class Drawing {
 public:
  void text(double x, double y, const std::string& what, const char* more = "") {
    out_ += cat("<text x=\"", unit_text(x), "\" y=\"", unit_text(y), "\"", more, ">", escape_xml(what),
                "</text>\n");
  }
  void box(double x, double y, double w, double h, const char* colour, const std::string& tip = "") {
    char head[200];
    std::snprintf(head, sizeof head, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"",
                  x, y, w, h, colour);
    out_ += head;
    out_ += tip.empty() ? "/>\n" : cat("><title>", escape_xml(tip), "</title></rect>\n");
  }
  void line(double y, const char* style) {
    out_ += cat("<line x1=\"", kLeft, "\" x2=\"", kLeft + kWidth, "\" y1=\"", unit_text(y), "\" y2=\"",
                unit_text(y), "\" ", style, "/>\n");
  }
  // Squares with words, from x on.
  void legend(double y, const std::vector<std::pair<const char*, std::string>>& entries) {
    double x = kLeft;
    for (const auto& [colour, word] : entries) {
      box(x, y - 9, 10, 10, colour);
      text(x + 14, y, word);
      x += 34 + 6.4 * static_cast<double>(word.size());
    }
  }
  std::string document(double height) const {
    return cat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", kLeft + kWidth + 16, " ",
        unit_text(height),
        "\" font-family=\"system-ui, sans-serif\" "
        "font-size=\"11\">\n<style>text{fill:#1f2328}.e{text-anchor:end}"
        ".m{text-anchor:middle}line{stroke:#1f2328}@media(prefers-color-scheme:dark){text{fill:#e6edf3}"
        "line{stroke:#e6edf3}}</style>\n",
        out_, "</svg>\n");
  }

 private:
  std::string out_;
};

// From y on; returns where it ends.
double draw_memory(Drawing& d, const ClusterPlan& plan, const ClusterFacts& facts, double y) {
  Axis axis{.start = y + kBars, .length = -kBars};
  set_range(axis, 0, std::max(facts.memory_gib, plan.fullest().total() / kGiB), /*from_zero=*/true);
  for (const Tick& tick : axis.ticks(5)) {
    d.line(axis.place(tick.value), "stroke-width=\".3\"");
    d.text(kLeft - 6, axis.place(tick.value) + 4, tick.label, " class=\"e\"");
  }
  const double each = kWidth / static_cast<double>(plan.memory.size());
  std::vector<std::pair<const char*, std::string>> legend;
  for (size_t r = 0; r < plan.memory.size(); ++r) {
    const double x = kLeft + each * (static_cast<double>(r) + 0.1);
    double below = 0;
    size_t part = 0;
    plan.memory[r].fields([&](const char* name, double bytes) {
      const double top = axis.place(below + bytes / kGiB), bottom = axis.place(below);
      d.box(x, top, each * 0.8, bottom - top, kPartColours[part],
            cat("rank ", r, ", ", name, ": ", human_bytes(static_cast<int64_t>(bytes))));
      if (r == 0) legend.emplace_back(kPartColours[part], name);
      below += bytes / kGiB, ++part;
    });
    d.text(x + each * 0.4, y + kBars + 14, std::to_string(r), " class=\"m\"");
  }
  d.line(axis.place(facts.memory_gib), "stroke-width=\"1.5\" stroke-dasharray=\"6 3\"");
  d.text(kLeft + kWidth, axis.place(facts.memory_gib) - 4, "memory of a GPU", " class=\"e\"");
  d.legend(y + kBars + 34, legend);
  return y + kBars + 40;
}

void draw_action(Drawing& d, const TimedAction& t, double x, double y, double w, double h) {
  const Action& a = t.action;
  char when[80];
  std::snprintf(when, sizeof when, ", %.3f to %.3f s", t.begin, t.end);
  const std::string tip = text_of(a) + when;
  if (a.pass == Pass::kPair) {
    d.box(x, y, w, h / 2, kForward, tip);
    d.box(x, y + h / 2, w, h / 2, kBackward, tip);
    return;
  }
  d.box(x, y, w, h,
        a.pass == Pass::kForward     ? kForward
        : a.pass == Pass::kBackward  ? kBackward
        : a.pass == Pass::kInputGrad ? kInput
                                     : kWeight,
        tip);
}

double draw_timeline(Drawing& d, const ClusterPlan& plan, double y) {
  ScheduleShape shape{static_cast<int>(plan.layout.pp), static_cast<int>(plan.microbatches),
                      static_cast<int>(plan.layout.chunks)};
  const int step = 2 * shape.ranks, most = std::max(kMicrobatchesDrawn, 2 * step);
  if (shape.microbatches > most) shape.microbatches = most / step * step + shape.microbatches % step;
  const Simulation s = simulate(make_schedule(plan.layout.schedule, shape),
                                [&](const Action& a) { return seconds_of(a, plan.stages); });
  d.text(8, y,
         cat("Pipeline of a step: ", short_number(plan.pipeline.seconds), " s, ",
             short_number(100 * plan.bubble), " % idle",
             shape.microbatches < plan.microbatches
                 ? cat("; drawn with ", shape.microbatches, " of ", plan.microbatches, " micro-batches")
                 : ""),
         " font-size=\"13\"");
  y += 12;
  const double unit = kWidth / s.makespan,
               row = std::clamp(320.0 / static_cast<double>(s.ranks.size()), 8.0, 26.0);
  for (size_t r = 0; r < s.ranks.size(); ++r, y += row) {
    d.text(kLeft - 6, y + row / 2 + 3, std::to_string(r), " class=\"e\"");
    d.box(kLeft, y, kWidth, row - 2, "#d0d7de55");
    for (const TimedAction& t : s.ranks[r])
      draw_action(d, t, kLeft + t.begin * unit, y, (t.end - t.begin) * unit, row - 2);
  }
  Axis axis{.low = 0, .high = s.makespan, .start = kLeft, .length = kWidth};
  for (const Tick& tick : axis.ticks(8)) d.text(axis.place(tick.value), y + 12, tick.label, " class=\"m\"");
  d.text(kLeft + kWidth, y + 26, "seconds", " class=\"e\"");
  d.legend(y + 30, {{kForward, "forward"},
                    {kBackward, "backward"},
                    {kInput, "gradient of the input"},
                    {kWeight, "gradient of the weights"}});
  return y + 40;
}

}  // namespace

std::string plan_svg(const ClusterPlan& plan, const ClusterFacts& facts, const std::string& title) {
  Drawing d;
  d.text(8, 20, title, " font-size=\"13\"");
  d.text(8, 46, "Memory of a GPU by rank of the pipeline, GiB", " font-size=\"13\"");
  const double below = draw_memory(d, plan, facts, 58);
  return d.document(draw_timeline(d, plan, below + 24));
}

}  // namespace hadal
