#include "hadal/rewards/math_equality.h"

#include <algorithm>
#include <cmath>

#include "hadal/rewards/math_value.h"

namespace hadal {
namespace {

constexpr int kPoints = 8, kFewestPoints = 5;

bool near(std::complex<long double> a, std::complex<long double> b, long double tolerance) {
  return std::abs(a - b) <= tolerance * std::max({std::abs(a), std::abs(b), 1e-4L});
}

// One side was written as a decimal: it may be rounded, if the other is no short decimal itself.
bool equal_when_rounded(MathTree& tree, int places, int a, int b, const std::optional<Rational>& x,
                        const std::optional<Rational>& y) {
  const BigInt unit = boost::multiprecision::pow(BigInt(10), static_cast<unsigned>(places));
  // So few decimals that it is meant exactly; one that was written as a decimal has fewer than `places`.
  const auto exact_decimal = [&](int id, const std::optional<Rational>& value) {
    const BigInt digits = tree.has_decimals(id) ? BigInt(unit / 10) : unit;
    return value && denominator(Rational(*value * digits)) == 1;
  };
  if (exact_decimal(a, x) || exact_decimal(b, y)) return false;
  const auto u = complex_value(tree, a, 0), v = complex_value(tree, b, 0);
  if (!u || !v) return false;
  const long double distance = std::abs(*u - *v), size = std::max(std::abs(*u), std::abs(*v));
  return distance <= 0.5000001L / unit.convert_to<long double>() &&
         distance <= 200 * size / unit.convert_to<long double>();
}

bool equal_functions(MathTree& tree, int a, int b) {
  int agreed = 0;
  for (int point = 0; point < kPoints; ++point) {
    const auto x = field_value(tree, a, point), y = field_value(tree, b, point);
    if (!x || !y) break;
    if (*x != *y) return false;
    ++agreed;
  }
  if (agreed == kPoints) return true;
  agreed = 0;
  for (int point = 0; point < kPoints; ++point) {
    const auto x = complex_value(tree, a, point), y = complex_value(tree, b, point);
    if (!x || !y) continue;
    if (!near(*x, *y, 1e-12L)) return false;
    ++agreed;
  }
  return agreed >= kFewestPoints && equal_to_many_digits(tree, a, b, 0);
}

}  // namespace

bool equal_numbers(MathTree& tree, int places, int a, int b) {
  const bool symbols = tree.has_symbols(a), other_symbols = tree.has_symbols(b);
  if (symbols || other_symbols) return equal_functions(tree, a, b);
  const auto x = exact_value(tree, a), y = exact_value(tree, b);
  if (x && y && *x == *y) return true;
  if (tree.has_decimals(a) || tree.has_decimals(b)) return equal_when_rounded(tree, places, a, b, x, y);
  if (x && y) return false;
  const auto u = complex_value(tree, a, 0), v = complex_value(tree, b, 0);
  return u && v && near(*u, *v, 1e-12L) && equal_to_many_digits(tree, a, b, 0);
}

bool proportional(MathTree& tree, int a, int b, bool positive) {
  if (!tree.has_symbols(a) || !tree.has_symbols(b)) return false;
  std::optional<uint64_t> exact;
  for (int point = 0; point < kPoints; ++point) {
    const auto x = field_value(tree, a, point), y = field_value(tree, b, point);
    if (!x || !y) break;
    if (*x == 0 || *y == 0) return false;
    const uint64_t ratio = field_quotient(*x, *y);
    if (exact && *exact != ratio) return false;
    exact = ratio;
  }
  std::complex<long double> first = 0;
  int defined = 0;
  for (int point = 0; point < kPoints; ++point) {
    const auto x = complex_value(tree, a, point), y = complex_value(tree, b, point);
    if (!x || !y) continue;
    if (std::abs(*x) < 1e-9L || std::abs(*y) < 1e-9L) return false;
    const std::complex<long double> ratio = *x / *y;
    if (defined++ == 0) {
      first = ratio;
      if (positive && (ratio.real() <= 0 || std::abs(ratio.imag()) > 1e-15L * std::abs(ratio))) return false;
    } else if (std::abs(ratio - first) > 1e-15L * std::abs(first)) {
      return false;
    }
  }
  return defined >= kFewestPoints;
}

}  // namespace hadal
