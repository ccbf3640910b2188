// Values of expressions: exactly, in a prime field, as complex numbers.
#pragma once
#include <complex>
#include <cstdint>
#include <optional>

#include "hadal/rewards/math_tree.h"

namespace hadal {

// The rational value of an expression without symbols; none if it has no such value (a root, pi, 1/0). Throws
// MathTooLarge beyond some 2,400 digits.
std::optional<Rational> exact_value(MathTree& tree, int id);

// Modulo 2^61 - 1, with symbols, pi and e at values that a hash of their names and `point` gives: two
// rational functions that agree at a few points are equal but for a chance of 2^-50. None: not rational, or
// 1/0.
std::optional<uint64_t> field_value(MathTree& tree, int id, int point);
uint64_t field_quotient(uint64_t a, uint64_t b);  // b is not 0

// With symbols at complex points of the right half plane, away from the cuts of roots and logarithms. None:
// not finite, or no number at all.
std::optional<std::complex<long double>> complex_value(MathTree& tree, int id, int point);

// Are both equal to 45 digits at this point? False also where there is no value.
bool equal_to_many_digits(MathTree& tree, int a, int b, int point);

uint64_t math_hash(std::string_view name, uint64_t salt);

}  // namespace hadal
