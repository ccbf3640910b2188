// Exact values and values in a prime field.
#include <boost/multiprecision/integer.hpp>

#include "hadal/rewards/math_value.h"

namespace hadal {
namespace {

constexpr unsigned kMostBits = 8192;
constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

unsigned bits(const BigInt& value) {
  return value == 0 ? 0 : boost::multiprecision::msb(abs(value)) + 1;
}

BigInt whole(const Rational& value) {
  return numerator(value);
}

// Long numbers cost more: their common divisor is looked for.
void check_size(const MathTree& tree, const Rational& value) {
  const int64_t size = std::max(bits(numerator(value)), bits(denominator(value)));
  if (size > kMostBits) throw MathTooLarge{};
  tree.spend(size / 64 + size / 512 * (size / 512));
}

std::optional<Rational> exact_power(const MathTree& tree, const Rational& base, const Rational& exponent) {
  if (denominator(exponent) != 1) return std::nullopt;
  const BigInt power = abs(whole(exponent));
  if (base == 0) {
    if (exponent <= 0) return std::nullopt;
    return Rational(0);
  }
  if (base == 1 || base == -1) return base == 1 || power % 2 == 0 ? Rational(1) : Rational(-1);
  const unsigned size = std::max(bits(numerator(base)), bits(denominator(base)));
  if (power * size > kMostBits) throw MathTooLarge{};
  const auto n = static_cast<unsigned>(power);
  const Rational value(pow(numerator(base), n), pow(denominator(base), n));
  check_size(tree, value);
  return exponent < 0 ? Rational(1 / value) : value;
}

std::optional<Rational> exact_root(const Rational& value) {
  if (value < 0) return std::nullopt;
  const BigInt top = sqrt(numerator(value)), bottom = sqrt(denominator(value));
  if (top * top != numerator(value) || bottom * bottom != denominator(value)) return std::nullopt;
  return Rational(top, bottom);
}

BigInt floor_of(const Rational& value) {
  const BigInt quotient = numerator(value) / denominator(value);
  return value < 0 && quotient * denominator(value) != numerator(value) ? BigInt(quotient - 1) : quotient;
}

std::optional<Rational> binomial(MathTree& tree, const Rational& n, const Rational& k) {
  if (denominator(n) != 1 || denominator(k) != 1 || n < 0 || k < 0) return std::nullopt;
  if (n > 1000) throw MathTooLarge{};
  if (k > n) return Rational(0);
  const auto count = static_cast<int64_t>(whole(k));
  tree.spend(count);
  BigInt value = 1;
  for (int64_t i = 1; i <= count; ++i) value = value * (whole(n) - count + i) / i;
  check_size(tree, value);
  return Rational(value);
}

std::optional<Rational> factorial(MathTree& tree, const Rational& n) {
  if (denominator(n) != 1 || n < 0) return std::nullopt;
  if (n > 500) throw MathTooLarge{};
  const auto count = static_cast<int64_t>(whole(n));
  tree.spend(count);
  BigInt value = 1;
  for (int64_t i = 2; i <= count; ++i) value *= i;
  check_size(tree, value);
  return Rational(value);
}

std::optional<Rational> exact_function(MathTree& tree, const std::string& name,
                                       const std::vector<Rational>& of) {
  if (name == "binom" && of.size() == 2) return binomial(tree, of[0], of[1]);
  if (of.size() != 1) return std::nullopt;
  if (name == "sqrt") return exact_root(of[0]);
  if (name == "abs") return of[0] < 0 ? Rational(-of[0]) : of[0];
  if (name == "floor") return Rational(floor_of(of[0]));
  if (name == "ceil") return Rational(-floor_of(-of[0]));
  if (name == "fact") return factorial(tree, of[0]);
  return std::nullopt;
}

// --- modulo 2^61 - 1

uint64_t times(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b % kPrime);
}

uint64_t raised(uint64_t base, uint64_t exponent) {
  uint64_t value = 1;
  for (; exponent; exponent >>= 1, base = times(base, base))
    if (exponent & 1) value = times(value, base);
  return value;
}

uint64_t residue(const BigInt& value, uint64_t modulus) {
  const auto rest = static_cast<int64_t>(value % modulus);
  return rest < 0 ? static_cast<uint64_t>(rest + static_cast<int64_t>(modulus)) : static_cast<uint64_t>(rest);
}

std::optional<uint64_t> field_number(const Rational& value) {
  const uint64_t bottom = residue(denominator(value), kPrime);
  if (bottom == 0) return std::nullopt;
  return field_quotient(residue(numerator(value), kPrime), bottom);
}

std::optional<uint64_t> field_power(MathTree& tree, const MathNode& node, int point) {
  const auto exponent = exact_value(tree, node.parts[1]);
  const auto base = field_value(tree, node.parts[0], point);
  if (!exponent || !base || denominator(*exponent) != 1) return std::nullopt;
  if (*base == 0) return *exponent > 0 ? std::optional<uint64_t>(0) : std::nullopt;
  return raised(*base, residue(numerator(*exponent), kPrime - 1));
}

std::optional<uint64_t> field_function(MathTree& tree, int id, const MathNode& node, int point) {
  if (is_known_function(node.name)) {
    const auto exact = exact_value(tree, id);
    return exact ? field_number(*exact) : std::nullopt;
  }
  uint64_t hash = math_hash(node.name, static_cast<uint64_t>(point));
  for (const int part : node.parts) {
    const auto value = field_value(tree, part, point);
    if (!value) return std::nullopt;
    hash = math_hash("argument", hash ^ *value);
  }
  return hash % kPrime;
}

}  // namespace

uint64_t math_hash(std::string_view name, uint64_t salt) {
  uint64_t hash = 0xCBF29CE484222325 ^ salt * 0x9E3779B97F4A7C15;
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001B3;
  hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9;  // SplitMix64's finish
  hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EB;
  return hash ^ (hash >> 31);
}

uint64_t field_quotient(uint64_t a, uint64_t b) {
  return times(a, raised(b, kPrime - 2));
}

std::optional<Rational> exact_value(MathTree& tree, int id) {
  tree.spend();
  const MathNode& node = tree[id];
  if (node.kind == MathKind::kNumber) return node.number;
  if (node.kind != MathKind::kAdd && node.kind != MathKind::kMultiply && node.kind != MathKind::kPower &&
      node.kind != MathKind::kFunction)
    return std::nullopt;
  std::vector<Rational> values;
  for (const int part : node.parts) {
    const auto value = exact_value(tree, part);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  if (node.kind == MathKind::kFunction) return exact_function(tree, node.name, values);
  if (node.kind == MathKind::kPower) return exact_power(tree, values[0], values[1]);
  Rational result = node.kind == MathKind::kAdd ? 0 : 1;
  for (const Rational& value : values) {
    if (node.kind == MathKind::kAdd) {
      result += value;
    } else {
      result *= value;
    }
    check_size(tree, result);
  }
  return result;
}

std::optional<uint64_t> field_value(MathTree& tree, int id, int point) {
  tree.spend();
  const MathNode& node = tree[id];
  switch (node.kind) {
    case MathKind::kNumber:
      return field_number(node.number);
    case MathKind::kConstant:
      if (node.name == "i") return std::nullopt;  // -1 has no root there
      [[fallthrough]];
    case MathKind::kText:
    case MathKind::kSymbol:
      return math_hash(node.name, static_cast<uint64_t>(point)) % kPrime;
    case MathKind::kFunction:
      return field_function(tree, id, node, point);
    case MathKind::kPower:
      return field_power(tree, node, point);
    case MathKind::kAdd:
    case MathKind::kMultiply: {
      const bool sum = node.kind == MathKind::kAdd;
      uint64_t result = sum ? 0 : 1;
      for (const int part : node.parts) {
        const auto value = field_value(tree, part, point);
        if (!value) return std::nullopt;
        result = sum ? (result + *value) % kPrime : times(result, *value);
      }
      return result;
    }
    default:
      return std::nullopt;
  }
}

}  // namespace hadal
