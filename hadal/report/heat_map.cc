#include "hadal/report/heat_map.h"

#include <algorithm>
#include <cmath>

#include "hadal/base/text.h"
#include "hadal/report/chart.h"
#include "hadal/report/svg.h"

namespace hadal {
namespace {

constexpr int kBalance = 32, kSteps = 31;  // levels on either side of balance, for a factor of 4

// Opaque with distance from balance, so that balance is the page's own colour, light or dark.
const std::vector<Rgba>& palette() {
  static const std::vector<Rgba> colours = [] {
    std::vector<Rgba> all(kNoTokens + 1, Rgba{0, 0, 0, 0});
    all[0] = {126, 34, 206, 255};
    for (int level = 1; level <= kBalance + kSteps; ++level) {
      const double distance = std::abs(level - kBalance) / static_cast<double>(kSteps);
      const auto alpha = static_cast<uint8_t>(std::lround(255 * std::pow(distance, 0.8)));
      all[static_cast<size_t>(level)] =
          level < kBalance ? Rgba{37, 119, 227, alpha} : Rgba{226, 84, 30, alpha};
    }
    return all;
  }();
  return colours;
}

constexpr size_t kMostCells = 65535;  // of one stored PNG block
constexpr size_t kMostColumns = 160;

}  // namespace

uint8_t heat_level(double load, double mean) {
  if (!(mean > 0)) return kNoTokens;
  if (load <= 0) return 0;
  const double twos = std::clamp(std::log2(load / mean), -2.0, 2.0);
  return static_cast<uint8_t>(kBalance + std::lround(twos / 2 * kSteps));
}

std::vector<uint8_t> heat_levels(const LoadHistory& history, double low, double high, size_t columns) {
  const size_t E = history.load.empty() ? 0 : history.load[0].size();
  std::vector<uint8_t> cells(E * columns, kNoTokens);
  const double part = (high - low) / static_cast<double>(columns);
  size_t next = 0;
  for (size_t column = 0; column < columns; ++column) {
    const double end = column + 1 == columns ? high : low + part * static_cast<double>(column + 1);
    std::vector<double> sum(E, 0);
    const auto take = [&](size_t record) {
      if (history.load[record].size() == E)
        for (size_t e = 0; e < E; ++e) sum[e] += static_cast<double>(history.load[record][e]);
    };
    if (next < history.x.size() && history.x[next] > end) take(next);
    for (; next < history.x.size() && history.x[next] <= end; ++next) take(next);
    double total = 0;
    for (const double one : sum) total += one;
    for (size_t e = 0; e < E; ++e)
      cells[e * columns + column] = heat_level(sum[e], total / static_cast<double>(E));
  }
  return cells;
}

std::string heat_map_html(const LoadHistory& history, double low, double high, const std::string& x_label) {
  const size_t E = history.load.empty() ? 0 : history.load[0].size();
  if (E == 0 || E > kMostCells / 2 || !(high > low)) return "";
  Frame frame;
  frame.height = frame.top + frame.bottom + std::clamp(static_cast<double>(E) * 7, 84.0, 300.0);
  const size_t columns = std::max<size_t>(1, std::min({history.x.size(), kMostColumns, kMostCells / E - 1}));
  const PngText png = png_uri(heat_levels(history, low, high, columns), static_cast<uint32_t>(columns),
                              static_cast<uint32_t>(E), palette());
  const Axis x{.low = low, .high = high, .start = frame.left, .length = frame.inner_width()};
  const double row = frame.inner_height() / static_cast<double>(E);
  std::string labels;
  for (const Tick& tick : linear_ticks(0, static_cast<double>(std::max<size_t>(E - 1, 1)), 4)) {
    if (tick.value != std::floor(tick.value) || tick.value >= static_cast<double>(E)) continue;
    labels += cat("<text class=t text-anchor=end dy=.35em x=", frame.left - 6,
                  " y=", unit_text(frame.top + row * (tick.value + 0.5)), ">", tick.label, "</text>");
  }
  const double middle = frame.top + frame.inner_height() / 2;
  labels += cat("<text class=\"t name\" text-anchor=middle transform=\"translate(13 ", unit_text(middle),
                ") rotate(-90)\">expert</text>");
  const std::string place = cat(" x=", frame.left, " y=", frame.top, " width=", frame.inner_width(),
                                " height=", frame.inner_height());
  return cat("<figure class=heat data-first=", png.first_pixel, " data-columns=", columns,
             " data-experts=", E, " data-x0=", low, " data-x1=", high, " data-top=", frame.top,
             " data-high=", frame.inner_height(), " data-at=", frame.left, " data-wide=", frame.inner_width(),
             " data-label=\"", escape_xml(x_label), "\"><figcaption>", escape_xml(history.title),
             "</figcaption>", svg_open(frame, history.title), "<rect class=back", place,
             "></rect><image preserveAspectRatio=none", place, " href=\"", png.uri, "\"/>", labels,
             x_axis_svg(frame, x, x_label), "</svg></figure>\n");
}

std::string heat_legend_html() {
  std::vector<uint8_t> levels;
  for (int level = 1; level <= kBalance + kSteps; ++level) levels.push_back(static_cast<uint8_t>(level));
  const std::string scale = png_uri(levels, static_cast<uint32_t>(levels.size()), 1, palette()).uri;
  const std::vector<uint8_t> dead = {0};
  std::string marks;
  for (const auto& [place, label] : {std::pair{50, "¼"}, {95, "½"}, {140, "1"}, {185, "2"}, {230, "≥4"}})
    marks += cat("<text class=t text-anchor=middle x=", place, " y=27>", label, "</text>");
  return cat(
      "<p class=scale><span>tokens / mean over experts</span><svg viewBox=\"0 0 250 32\">"
      "<image preserveAspectRatio=none x=4 y=2 width=16 height=12 href=\"",
      png_uri(dead, 1, 1, palette()).uri, "\"/><rect class=box x=4 y=2 width=16 height=12 />",
      "<text class=t text-anchor=middle x=12 y=27>0</text>",
      "<image preserveAspectRatio=none x=50 y=2 width=180 height=12 href=\"", scale,
      "\"/><rect class=box x=50 y=2 width=180 height=12 />", marks, "</svg></p>\n");
}

}  // namespace hadal
