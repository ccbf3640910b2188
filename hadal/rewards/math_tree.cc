#include "hadal/rewards/math_tree.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace hadal {
namespace {

constexpr size_t kMostNodes = 4096;

constexpr std::array<std::string_view, 30> kFunctions = {
    "sqrt", "sin",   "cos",  "tan",  "cot", "sec", "csc", "arcsin", "arccos", "arctan",
    "sinh", "cosh",  "tanh", "exp",  "ln",  "log", "lg",  "abs",    "floor",  "ceil",
    "fact", "binom", "root", "logb", "max", "min", "gcd", "lcm",    "arccot", "coth"};

}  // namespace

bool is_known_function(std::string_view name) {
  return std::find(kFunctions.begin(), kFunctions.end(), name) != kFunctions.end();
}

int MathTree::add(MathNode node) {
  if (nodes_.size() >= kMostNodes) throw MathTooLarge{};
  nodes_.push_back(std::move(node));
  return static_cast<int>(nodes_.size()) - 1;
}

int MathTree::number(Rational value) {
  MathNode node{.kind = MathKind::kNumber};
  node.number = std::move(value);
  return add(std::move(node));
}

int MathTree::symbol(std::string name) {
  return add({.kind = MathKind::kSymbol, .name = std::move(name)});
}

int MathTree::group(MathKind kind, std::vector<int> parts) {
  return add({.kind = kind, .parts = std::move(parts)});
}

int MathTree::negative(int id) {
  if ((*this)[id].kind != MathKind::kNumber) return group(MathKind::kMultiply, {number(-1), id});
  MathNode node = (*this)[id];
  node.number = -node.number;
  node.name.clear();
  return add(std::move(node));
}

int MathTree::inverse(int id) {
  return power(id, number(-1));
}

int MathTree::power(int base, int exponent) {
  return group(MathKind::kPower, {base, exponent});
}

int MathTree::function(std::string name, std::vector<int> arguments) {
  return add({.kind = MathKind::kFunction, .name = std::move(name), .parts = std::move(arguments)});
}

bool MathTree::any(int id, bool (*test)(const MathNode&)) const {
  spend();
  const MathNode& node = (*this)[id];
  if (test(node)) return true;
  for (const int part : node.parts)
    if (any(part, test)) return true;
  return false;
}

bool MathTree::has_symbols(int id) const {
  return any(id, [](const MathNode& node) {
    return node.kind == MathKind::kSymbol || node.kind == MathKind::kText ||
           (node.kind == MathKind::kFunction && !is_known_function(node.name));
  });
}

bool MathTree::has_decimals(int id) const {
  return any(id, [](const MathNode& node) { return node.decimal; });
}

bool MathTree::has_plus_minus(int id) const {
  return any(id, [](const MathNode& node) { return node.kind == MathKind::kPlusMinus; });
}

int MathTree::with_sign(int id, int sign) {
  spend();
  MathNode copy = (*this)[id];
  for (int& part : copy.parts) part = with_sign(part, sign);
  if (copy.kind != MathKind::kPlusMinus) return add(std::move(copy));
  return copy.number == sign ? copy.parts[0] : negative(copy.parts[0]);
}

int MathTree::infinity_sign(int id) const {
  const MathNode& node = (*this)[id];
  if (node.kind == MathKind::kInfinity) return 1;
  if (node.kind != MathKind::kMultiply || node.parts.size() != 2) return 0;
  const MathNode& factor = (*this)[node.parts[0]];
  const bool infinite = (*this)[node.parts[1]].kind == MathKind::kInfinity;
  return infinite && factor.kind == MathKind::kNumber && factor.number == -1 ? -1 : 0;
}

}  // namespace hadal
