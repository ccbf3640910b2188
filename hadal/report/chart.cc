#include "hadal/report/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hadal/base/text.h"
#include "hadal/report/svg.h"

namespace hadal {
namespace {

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void take(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

struct Axes {
  Axis x, y;
};

Axes axes_of(const Chart& chart, const Frame& frame) {
  Range x, y;
  for (const Curve& curve : chart.curves)
    for (size_t i = 0; i < curve.points.size(); ++i) {
      x.take(curve.points.x[i]);
      y.take(curve.points.y[i]);
    }
  Axes axes;
  axes.y.log = chart.log;
  set_range(axes.y, y.low, y.high, chart.from_zero);
  axes.y.start = frame.height - frame.bottom;
  axes.y.length = -frame.inner_height();
  if (chart.x_high > chart.x_low) {
    axes.x.low = chart.x_low;
    axes.x.high = chart.x_high;
  } else {
    set_range(axes.x, x.low, x.high, false);
  }
  axes.x.start = frame.left;
  axes.x.length = frame.inner_width();
  return axes;
}

std::string y_axis_svg(const Frame& frame, const Axis& axis) {
  std::string out;
  for (const Tick& tick : axis.ticks(5)) {
    const std::string at = unit_text(axis.place(tick.value));
    out += cat("<path class=rule d=\"M", frame.left, " ", at, "H", frame.width - frame.right, "\"/>");
    out += cat("<text class=t text-anchor=end dy=.35em x=", frame.left - 6, " y=", at, ">",
               escape_xml(tick.label), "</text>");
  }
  return out;
}

std::string curve_svg(const Curve& curve, const Axes& axes) {
  const std::string colour = cat("c", curve.colour % 8);
  const std::string line = path_data(curve.points, axes.x, axes.y);
  if (line.empty()) return "";
  const char* kind = curve.mark == Mark::kFaint ? "faint" : curve.dashed ? "line dash" : "line";
  std::string out = cat("<path class=\"", kind, " ", colour, "\" d=\"", line, "\"/>");
  if (curve.mark != Mark::kPoints) return out;
  std::string dots;
  for (size_t i = 0; i < curve.points.size(); ++i) {
    Series one;
    one.add(curve.points.x[i], curve.points.y[i]);
    dots += path_data(one, axes.x, axes.y);
  }
  return out + cat("<path class=\"dots ", colour, "\" d=\"", dots, "\"/>");
}

std::string name_of(const Curve& curve) {
  return curve.label.empty() ? curve.run : curve.run + " · " + curve.label;
}

// A JSON text that is safe inside <script>.
std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    char code[8];
    std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned char>(c));
    out += static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\' || c == '<' ? std::string(code)
                                                                                     : std::string(1, c);
  }
  return out + "\"";
}

std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  std::ostringstream out;
  out.precision(6);
  out << value;
  return out.str();
}

std::string json_list(const std::vector<double>& values) {
  std::string out = "[";
  for (const double value : values) out += (out.size() > 1 ? "," : "") + json_number(value);
  return out + "]";
}

// What the tooltip shows, for the script at the end of the page.
std::string data_script(const Chart& chart, const Axes& axes) {
  std::string curves;
  for (const Curve& curve : chart.curves) {
    if (curve.mark == Mark::kFaint || curve.points.size() == 0) continue;
    curves +=
        cat(curves.empty() ? "" : ",", "{\"name\":", json_text(name_of(curve)), ",\"c\":", curve.colour % 8,
            ",\"x\":", json_list(curve.points.x), ",\"y\":", json_list(curve.points.y), "}");
  }
  return cat("<script type=application/json>{\"x0\":", json_number(axes.x.low),
             ",\"x1\":", json_number(axes.x.high), ",\"at\":", json_number(axes.x.start),
             ",\"wide\":", json_number(axes.x.length), ",\"label\":", json_text(chart.x_label),
             ",\"unit\":", json_text(chart.unit), ",\"curves\":[", curves, "]}</script>");
}

// Which line is which, where one run has several.
std::string kinds_html(const Chart& chart) {
  std::string out;
  std::vector<std::string> seen;
  for (const Curve& curve : chart.curves) {
    if (curve.label.empty() || curve.mark == Mark::kFaint) continue;
    if (std::find(seen.begin(), seen.end(), curve.label) != seen.end()) continue;
    seen.push_back(curve.label);
    const char* dots = curve.mark == Mark::kPoints ? "<path class=dots d=\"M12 6h0\"/>" : "";
    out +=
        cat("<span><svg class=key viewBox=\"0 0 24 12\"><path class=\"", curve.dashed ? "line dash" : "line",
            "\" d=\"M0 6H24\"/>", dots, "</svg>", escape_xml(curve.label), "</span>");
  }
  return seen.size() > 1 ? "<span class=kinds>" + out + "</span>" : "";
}

}  // namespace

bool has_points(const Chart& chart) {
  for (const Curve& curve : chart.curves)
    for (const double y : curve.points.y)
      if (std::isfinite(y)) return true;
  return false;
}

std::string svg_open(const Frame& frame, const std::string& label) {
  return cat("<svg class=plot role=img viewBox=\"0 0 ", frame.width, " ", frame.height, "\" aria-label=\"",
             escape_xml(label), "\">");
}

std::string x_axis_svg(const Frame& frame, const Axis& axis, const std::string& label) {
  const double base = frame.height - frame.bottom;
  std::string out =
      cat("<path class=axis d=\"M", frame.left, " ", base, "H", frame.width - frame.right, "\"/>");
  for (const Tick& tick : axis.ticks(5)) {
    const std::string at = unit_text(axis.place(tick.value));
    out += cat("<path class=axis d=\"M", at, " ", base, "v4\"/>");
    out += cat("<text class=t text-anchor=middle dy=1em x=", at, " y=", base + 6, ">", escape_xml(tick.label),
               "</text>");
  }
  return out + cat("<text class=\"t name\" text-anchor=middle x=",
                   unit_text(axis.place((axis.low + axis.high) / 2)), " y=", frame.height - 5, ">",
                   escape_xml(label), "</text>");
}

std::string chart_html(const Chart& given) {
  const Frame frame;
  Axes axes = axes_of(given, frame);
  Chart chart = given;
  // Thinned to the pixels of the frame, twice for sharp screens.
  for (Curve& curve : chart.curves) curve.points = thinned(curve.points, axes.x.low, axes.x.high, 450);
  std::string lines;
  for (const bool faint : {true, false})
    for (const Curve& curve : chart.curves)
      if ((curve.mark == Mark::kFaint) == faint) lines += curve_svg(curve, axes);
  const std::string note = chart.note.empty() ? "" : cat("<p class=note>", escape_xml(chart.note), "</p>");
  return cat("<figure class=chart><figcaption>", escape_xml(chart.title), kinds_html(chart), "</figcaption>",
             note, svg_open(frame, chart.title), y_axis_svg(frame, axes.y),
             x_axis_svg(frame, axes.x, chart.x_label), lines, "<path class=cursor d=\"\"/></svg>",
             data_script(chart, axes), "</figure>\n");
}

}  // namespace hadal
