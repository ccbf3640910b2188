#include "hadal/report/series.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hadal {

Series smoothed(const Series& series, size_t window) {
  if (window <= 1) return series;
  const size_t n = series.size(), half = window / 2;
  // Sums of all before; long double, or 1e5 values would leave their rounding in the differences.
  std::vector<long double> sum(n + 1, 0);
  std::vector<size_t> count(n + 1, 0);
  for (size_t i = 0; i < n; ++i) {
    const bool counts = std::isfinite(series.y[i]);
    sum[i + 1] = sum[i] + (counts ? series.y[i] : 0);
    count[i + 1] = count[i] + counts;
  }
  Series out;
  for (size_t i = 0; i < n; ++i) {
    const size_t back = std::min(half, i);
    const size_t from = i - back, to = i + std::min(back, n - 1 - i) + 1, values = count[to] - count[from];
    out.add(series.x[i], values
                             ? static_cast<double>((sum[to] - sum[from]) / static_cast<long double>(values))
                             : std::numeric_limits<double>::quiet_NaN());
  }
  return out;
}

Series thinned(const Series& series, double low, double high, size_t columns) {
  if (series.size() <= 2 * columns || columns == 0 || !(high > low)) return series;
  const auto column = [&](size_t i) {
    const double share = (series.x[i] - low) / (high - low) * static_cast<double>(columns);
    return static_cast<size_t>(std::clamp(share, 0.0, static_cast<double>(columns - 1)));
  };
  Series out;
  for (size_t begin = 0; begin < series.size();) {
    size_t end = begin, least = begin, most = begin;
    for (; end < series.size() && column(end) == column(begin); ++end) {
      if (std::isnan(series.y[end])) continue;
      if (std::isnan(series.y[least]) || series.y[end] < series.y[least]) least = end;
      if (std::isnan(series.y[most]) || series.y[end] > series.y[most]) most = end;
    }
    for (const size_t i : {std::min(least, most), std::max(least, most)}) {
      out.add(series.x[i], series.y[i]);
      if (least == most) break;
    }
    begin = end;
  }
  return out;
}

}  // namespace hadal
