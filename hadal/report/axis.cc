#include "hadal/report/axis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace hadal {
namespace {

std::string printed(const char* format, int digits, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, digits, value);
  return buffer;
}

// "3.00e-04" -> "3e-4"
std::string scientific(double value, int digits) {
  const std::string text = printed("%.*e", std::max(0, digits - 1), value);
  const size_t e = text.find('e');
  std::string mantissa = text.substr(0, e);
  if (mantissa.find('.') != std::string::npos) {
    while (mantissa.back() == '0') mantissa.pop_back();
    if (mantissa.back() == '.') mantissa.pop_back();
  }
  return mantissa + "e" + std::to_string(std::atoi(text.c_str() + e + 1));
}

struct Unit {
  double size;
  const char* name;
};
Unit unit_for(double magnitude) {
  for (const Unit unit : {Unit{1e12, "T"}, Unit{1e9, "G"}, Unit{1e6, "M"}, Unit{1e3, "k"}})
    if (magnitude >= unit.size) return unit;
  return {1, ""};
}

}  // namespace

std::string short_number(double value, int digits) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "∞" : "-∞";
  const double magnitude = std::abs(value);
  if (magnitude == 0) return "0";
  if (magnitude < 1e-3 || magnitude >= 1e15) return scientific(value, digits);
  const Unit unit = magnitude < 1e4 ? Unit{1, ""} : unit_for(magnitude * (1 + 1e-12));
  const double scaled = value / unit.size;
  const int whole = static_cast<int>(std::floor(std::log10(std::abs(scaled)) + 1e-12)) + 1;
  std::string text = printed("%.*f", std::max(0, digits - whole), scaled);
  if (text.find('.') != std::string::npos) {
    while (text.back() == '0') text.pop_back();
    if (text.back() == '.') text.pop_back();
  }
  return text + unit.name;
}

std::vector<Tick> linear_ticks(double low, double high, int count) {
  const double raw = (high - low) / std::max(1, count);
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double share = raw / power;
  const double step = power * (share <= 1 ? 1 : share <= 2 ? 2 : share <= 5 ? 5 : 10);
  const double largest = std::max(std::abs(low), std::abs(high));
  const bool tiny = largest < 1e-2;
  const Unit unit = tiny ? Unit{std::pow(10, std::floor(std::log10(largest))), ""} : unit_for(largest / 1.5);
  const int decimals = std::max(0, static_cast<int>(-std::floor(std::log10(step / unit.size * (1 + 1e-9)))));
  std::vector<Tick> ticks;
  const double first = std::ceil(low / step - 1e-9);
  for (int i = 0; i < 4 * count + 4; ++i) {  // bounded whatever the rounding
    const double value = (first + i) * step;
    if (value > high + step * 1e-9) break;
    const bool zero = std::abs(value) < step / 2;
    std::string label = zero ? "0" : printed("%.*f", decimals, value / unit.size);
    if (!zero)
      label += tiny ? "e" + std::to_string(static_cast<int>(std::round(std::log10(unit.size)))) : unit.name;
    ticks.push_back({zero ? 0 : value, label});
  }
  return ticks;
}

std::vector<Tick> log_ticks(double low, double high, int count) {
  const double decades = std::log10(high / low);
  if (decades < 1) return linear_ticks(low, high, count);
  const int every = std::max(1, static_cast<int>(std::ceil(decades / count)));
  std::vector<Tick> ticks;
  for (int power = static_cast<int>(std::floor(std::log10(low))); power <= std::log10(high); power += every)
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor > 1 && decades > count / 2.0) continue;
      const double value = factor * std::pow(10, power);
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9))
        ticks.push_back({value, short_number(value)});
    }
  return ticks;
}

double Axis::place(double value) const {
  const double share = log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
  return start + length * share;
}

void set_range(Axis& axis, double low, double high, bool from_zero) {
  if (!std::isfinite(low) || !std::isfinite(high) || low > high || (axis.log && low <= 0)) {
    axis.log = false;
    low = 0;
    high = 1;
  }
  if (axis.log) {
    const double air = low == high ? 2 : std::pow(high / low, 0.04);
    axis.low = low / air;
    axis.high = high * air;
    return;
  }
  double width = high - low;
  // Values that differ by rounding only would give ticks with the same label.
  const double least = std::max(std::abs(low), std::abs(high)) * 1e-6;
  if (width <= least) width = low == 0 && high == 0 ? 1 : std::max(std::abs(high) * 0.5, least);
  axis.low = low - 0.04 * width;
  axis.high = high + 0.04 * width;
  if (high - low <= least) {
    axis.low = low - width / 2;
    axis.high = high + width / 2;
  }
  if (low >= 0 && (from_zero || axis.low < 0)) axis.low = 0;
}

}  // namespace hadal
