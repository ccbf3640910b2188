// One chart: curves of several runs over a common x axis, as an HTML figure with inline SVG.
#pragma once
#include <string>
#include <vector>

#include "hadal/report/axis.h"
#include "hadal/report/series.h"

namespace hadal {

enum class Mark {
  kLine,    // a line
  kFaint,   // behind the others, thin: what a smoothed line was made of
  kPoints,  // a line with a dot for each value: few measurements
};

struct Curve {
  std::string run, label;  // names for tooltip and legend; label "" : the run's name says it all
  int colour = 0;          // of the run
  Mark mark = Mark::kLine;
  bool dashed = false;
  Series points;
};

struct Chart {
  std::string title, x_label, unit;  // unit: behind values in the tooltip, e.g. "%"
  std::string note;                  // below the title, may be empty
  bool log = false;                  // y; falls back to linear if a value is not above 0
  bool from_zero = false;            // y begins at 0
  double x_low = 0, x_high = 0;      // x_high <= x_low: what the curves need
  std::vector<Curve> curves;
};

// Is there a finite value to show?
bool has_points(const Chart& chart);

// <figure>...</figure>. Uses the classes of the page's style (plot.cc).
std::string chart_html(const Chart& chart);

// The parts that heat maps share: an SVG's head, frame, ticks and axis label. Places in SVG units.
struct Frame {
  double width = 520, height = 270;
  double left = 58, right = 14, top = 12, bottom = 48;
  double inner_width() const { return width - left - right; }
  double inner_height() const { return height - top - bottom; }
};
std::string svg_open(const Frame& frame, const std::string& label);
std::string x_axis_svg(const Frame& frame, const Axis& axis, const std::string& label);

}  // namespace hadal
