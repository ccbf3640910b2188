// Points of a curve: smoothing, thinning.
#pragma once
#include <cstddef>
#include <vector>

namespace hadal {

struct Series {
  std::vector<double> x, y;  // x ascending and finite; y may be NaN: a gap
  size_t size() const { return x.size(); }
  void add(double at, double value) {
    x.push_back(at);
    y.push_back(value);
  }
};

// The mean of the `window` points around each (odd), values that are not finite left out; NaN where there is
// none. Narrower at the beginning, where losses fall fast; at the end what is missing ahead is left out.
// window <= 1: the series itself.
Series smoothed(const Series& series, size_t window);

// At most two points for each of `columns` equal parts of [low, high]: the lowest and the highest value, in
// their order, so that no spike is lost. A part with nothing but NaN keeps one NaN. A series of at most
// 2 * columns points is returned as it is.
Series thinned(const Series& series, double low, double high, size_t columns);

}  // namespace hadal
