#include "hadal/rewards/math_pieces.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hadal/rewards/math_parser.h"
#include "hadal/rewards/math_value.h"

namespace hadal {
namespace {

constexpr long double kInfinite = std::numeric_limits<long double>::infinity();

std::optional<long double> real_value(MathTree& tree, int id) {
  if (const int sign = tree.infinity_sign(id)) return sign * kInfinite;
  if (tree.has_symbols(id)) return std::nullopt;
  const auto value = complex_value(tree, id, 0);
  if (!value || std::abs(value->imag()) > 1e-15L * std::abs(*value)) return std::nullopt;
  return value->real();
}

bool same_end(long double a, long double b) {
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return std::abs(a - b) <= 1e-12L * std::max(std::abs(a), std::abs(b));
}

bool is_empty(const MathPiece& piece) {
  if (same_end(piece.low_value, piece.high_value)) return !(piece.low_closed && piece.high_closed);
  return piece.low_value > piece.high_value;
}

// In order, without empty ones, joined where they touch.
MathPieces joined(MathPieces pieces) {
  std::erase_if(pieces, is_empty);
  std::sort(pieces.begin(), pieces.end(), [](const MathPiece& a, const MathPiece& b) {
    if (!same_end(a.low_value, b.low_value)) return a.low_value < b.low_value;
    return a.low_closed && !b.low_closed;
  });
  MathPieces out;
  for (const MathPiece& piece : pieces) {
    if (!out.empty()) {
      MathPiece& last = out.back();
      const bool same = same_end(last.high_value, piece.low_value);
      if (same ? last.high_closed || piece.low_closed : last.high_value > piece.low_value) {
        const bool ends_same = same_end(last.high_value, piece.high_value);
        if (ends_same) {
          last.high_closed |= piece.high_closed;
        } else if (piece.high_value > last.high_value) {
          last.high = piece.high, last.high_value = piece.high_value, last.high_closed = piece.high_closed;
        }
        continue;
      }
    }
    out.push_back(piece);
  }
  return out;
}

MathPieces intersection(MathTree& tree, const MathPieces& a, const MathPieces& b) {
  MathPieces out;
  for (const MathPiece& x : a)
    for (const MathPiece& y : b) {
      tree.spend();
      MathPiece both = x;
      if (same_end(x.low_value, y.low_value)) {
        both.low_closed &= y.low_closed;
      } else if (y.low_value > x.low_value) {
        both.low = y.low, both.low_value = y.low_value, both.low_closed = y.low_closed;
      }
      if (same_end(x.high_value, y.high_value)) {
        both.high_closed &= y.high_closed;
      } else if (y.high_value < x.high_value) {
        both.high = y.high, both.high_value = y.high_value, both.high_closed = y.high_closed;
      }
      out.push_back(both);
    }
  return joined(std::move(out));
}

// Infinite ends have no node.
MathPieces complement(const MathPieces& pieces) {
  MathPieces out;
  MathPiece next{.low_value = -kInfinite};
  for (const MathPiece& piece : pieces) {
    next.high = piece.low, next.high_value = piece.low_value, next.high_closed = !piece.low_closed;
    if (piece.low_value != -kInfinite) out.push_back(next);
    next = {.low = piece.high, .low_value = piece.high_value, .low_closed = !piece.high_closed};
  }
  next.high_value = kInfinite;
  if (next.low_value != kInfinite) out.push_back(next);
  return joined(std::move(out));
}

std::optional<MathPieces> points(MathTree& tree, const std::vector<int>& ids) {
  MathPieces out;
  std::vector<int> all;
  for (const int id : ids) {
    if (!tree.has_plus_minus(id)) {
      all.push_back(id);
      continue;
    }
    all.push_back(tree.with_sign(id, 1));
    all.push_back(tree.with_sign(id, -1));
  }
  for (const int id : all) {
    const auto value = real_value(tree, id);
    if (!value || std::abs(*value) == kInfinite) return std::nullopt;
    out.push_back({id, id, *value, *value, true, true});
  }
  return joined(std::move(out));
}

std::optional<MathPieces> interval(MathTree& tree, const MathNode& node) {
  if (node.parts.size() != 2) return std::nullopt;
  const auto low = real_value(tree, node.parts[0]), high = real_value(tree, node.parts[1]);
  if (!low || !high) return std::nullopt;
  const MathPiece piece{node.parts[0],
                        node.parts[1],
                        *low,
                        *high,
                        node.name[0] == '[' && *low != -kInfinite,
                        node.name[1] == ']' && *high != kInfinite};
  return joined({piece});
}

bool is_order(const std::string& word) {
  return word == "<" || word == "<=" || word == ">" || word == ">=";
}

// Numbers below (less) or above the node's value.
std::optional<MathPieces> ray(MathTree& tree, int bound, bool less, bool closed) {
  const auto value = real_value(tree, bound);
  if (!value) return std::nullopt;
  closed &= std::abs(*value) != kInfinite;
  const MathPiece piece = less ? MathPiece{-1, bound, -kInfinite, *value, false, closed}
                               : MathPiece{bound, -1, *value, kInfinite, closed, false};
  return joined({piece});
}

// {x : |x| in pieces}
MathPieces of_absolute(MathTree& tree, const MathPieces& pieces) {
  MathPieces out;
  const int zero = tree.number(0);
  const MathPieces positive = intersection(tree, pieces, {{zero, -1, 0, kInfinite, true, false}});
  for (const MathPiece& piece : positive) {
    out.push_back(piece);
    const int low = piece.high < 0 ? -1 : tree.negative(piece.high), high = tree.negative(piece.low);
    out.push_back({low, high, -piece.high_value, -piece.low_value, piece.high_closed, piece.low_closed});
  }
  return joined(std::move(out));
}

}  // namespace

std::optional<MathPieces> pieces_of_set(MathTree& tree, int id) {
  tree.spend();
  const MathNode& node = tree[id];
  switch (node.kind) {
    case MathKind::kTuple:
      return interval(tree, node);
    case MathKind::kSet:
      return points(tree, node.parts);
    case MathKind::kUnion:
    case MathKind::kIntersection:
    case MathKind::kDifference:
      break;
    default:
      return std::nullopt;
  }
  const auto left = pieces_of_set(tree, node.parts[0]), right = pieces_of_set(tree, node.parts[1]);
  if (!left || !right) return std::nullopt;
  if (node.kind == MathKind::kDifference) return intersection(tree, *left, complement(*right));
  if (node.kind == MathKind::kIntersection) return intersection(tree, *left, *right);
  MathPieces all = *left;
  all.insert(all.end(), right->begin(), right->end());
  return joined(std::move(all));
}

std::optional<MathPieces> pieces_of_relation(MathTree& tree, int id) {
  const MathNode& node = tree[id];
  if (node.kind != MathKind::kRelation || node.parts.size() > 3) return std::nullopt;
  if (node.operators.size() == 1 && node.operators[0] == "in") return pieces_of_set(tree, node.parts[1]);
  // The name stands first, last or in the middle of three.
  const size_t at = node.parts.size() == 3 || !is_math_name(tree, node.parts[0]) ? 1 : 0;
  if (!is_math_name(tree, node.parts[at]) || !tree.has_symbols(node.parts[at])) return std::nullopt;
  std::optional<MathPieces> all;
  for (size_t i = 0; i < node.operators.size(); ++i) {
    const std::string& word = node.operators[i];
    const bool name_left = i == at;
    const int bound = node.parts[name_left ? i + 1 : i];
    std::optional<MathPieces> one;
    if (is_order(word)) {
      one = ray(tree, bound, (word[0] == '<') == name_left, word.size() == 2);
    } else if (word == "!=") {
      if (const auto point = points(tree, {bound})) one = complement(*point);
    }
    if (!one) return std::nullopt;
    all = all ? intersection(tree, *all, *one) : *one;
  }
  const MathNode& name = tree[node.parts[at]];
  if (name.kind == MathKind::kFunction && name.name == "abs") return of_absolute(tree, *all);
  return all;
}

}  // namespace hadal
