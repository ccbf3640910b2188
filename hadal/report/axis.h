// Axes: ranges, round tick marks and their labels.
#pragma once
#include <string>
#include <vector>

namespace hadal {

// 12'000 -> "12k", 0.0003 -> "3e-4", 1.25 -> "1.25": at most `digits` significant ones. NaN -> "NaN".
std::string short_number(double value, int digits = 3);

struct Tick {
  double value;
  std::string label;
};

// Marks at 1, 2 or 5 times a power of ten in [low, high], about `count` of them; all labels in one form,
// apart from each other. Needs finite low < high.
std::vector<Tick> linear_ticks(double low, double high, int count);
// At powers of ten, with 2 and 5 between them if there are few; for less than a decade as linear_ticks.
// Needs 0 < low < high.
std::vector<Tick> log_ticks(double low, double high, int count);

// The values from low to high on `length` units, `start` being low's place; length may be negative (y grows
// downwards on a page).
struct Axis {
  double low = 0, high = 1;
  bool log = false;
  double start = 0, length = 1;
  double place(double value) const;
  std::vector<Tick> ticks(int count) const {
    return log ? log_ticks(low, high, count) : linear_ticks(low, high, count);
  }
};

// The range to show for values within [low, high]: some air at both ends, and a width even for a single
// value. With `from_zero` it begins at 0 if nothing is below. Not finite or low > high: [0, 1].
void set_range(Axis& axis, double low, double high, bool from_zero);

}  // namespace hadal
