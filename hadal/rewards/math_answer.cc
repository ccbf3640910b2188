#include "hadal/rewards/math_answer.h"

#include <algorithm>
#include <cctype>

#include "hadal/rewards/math_equality.h"
#include "hadal/rewards/math_lexer.h"
#include "hadal/rewards/math_parser.h"
#include "hadal/rewards/math_pieces.h"

namespace hadal {
namespace {

class Comparison {
 public:
  Comparison(MathTree& tree, const MathOptions& options)
      : tree_(tree), options_(options), lenient_(options.profile == AnswerProfile::kEvaluation) {}

  // Lists are compared without regard to order, everything else as one.
  bool same_answer(int reference, int prediction) {
    std::vector<int> wanted = items(reference), got = items(prediction);
    if (lenient_) without_doubles(wanted), without_doubles(got);
    if (wanted.size() == 1 && got.size() == 1) return same(wanted[0], got[0]);
    if (is_list(reference) && tree_[prediction].kind == MathKind::kTuple)
      return same_in_order(wanted, prediction);
    if (is_list(prediction) && tree_[reference].kind == MathKind::kTuple && lenient_)
      return same_in_order(got, reference);
    if (!is_listing(reference) || !is_listing(prediction)) return false;
    return same_items(wanted, got);
  }

 private:
  bool is_list(int id) const { return tree_[id].kind == MathKind::kList; }
  // A list, a set, or one value that stands for two by its ±.
  bool is_listing(int id) const {
    return is_list(id) || tree_[id].kind == MathKind::kSet || tree_.has_plus_minus(id) ||
           (is_equation(id) && is_listing(tree_[id].parts[1]));
  }

  std::vector<int> items(int id) {
    const MathNode& node = tree_[id];
    std::vector<int> all;
    if (node.kind == MathKind::kList || node.kind == MathKind::kSet) {
      for (const int part : node.parts) {
        if (is_list(part) || tree_[part].kind == MathKind::kSet) {
          all.push_back(part);
        } else {
          add_signs(part, all);
        }
      }
      return all.empty() ? std::vector<int>{id} : all;
    }
    if (is_equation(id) && is_math_name(tree_, node.parts[0]) && is_listing(node.parts[1]) &&
        !tree_.has_plus_minus(id))
      return items(node.parts[1]);
    add_signs(id, all);
    return all;
  }

  void add_signs(int id, std::vector<int>& all) {
    if (!tree_.has_plus_minus(id)) return all.push_back(id);
    all.push_back(tree_.with_sign(id, 1));
    all.push_back(tree_.with_sign(id, -1));
  }

  void without_doubles(std::vector<int>& ids) {
    std::vector<int> kept;
    for (const int id : ids)
      if (std::none_of(kept.begin(), kept.end(), [&](int before) { return same(before, id); }))
        kept.push_back(id);
    ids = std::move(kept);
  }

  // Each of one with another of the other. Equality is taken as transitive, so the first match will do.
  bool same_items(const std::vector<int>& wanted, const std::vector<int>& got) {
    if (wanted.size() != got.size()) return false;
    const bool before = std::exchange(in_list_, true);
    const bool equal = same_in_some_order(wanted, got);
    in_list_ = before;
    return equal;
  }

  bool same_in_some_order(const std::vector<int>& wanted, const std::vector<int>& got) {
    std::vector<bool> used(got.size(), false);
    for (const int one : wanted) {
      size_t k = 0;
      while (k < got.size() && (used[k] || !same(one, got[k]))) ++k;
      if (k == got.size()) return false;
      used[k] = true;
    }
    return true;
  }

  // p = 5, q = 2 and (5, 2)
  bool same_in_order(const std::vector<int>& list, int tuple) {
    const std::vector<int> parts = tree_[tuple].parts;
    if (parts.size() != list.size()) return false;
    for (size_t i = 0; i < parts.size(); ++i)
      if (!lenient_ && !is_equation(list[i])) return false;
    for (size_t i = 0; i < parts.size(); ++i)
      if (!same(list[i], parts[i])) return false;
    return true;
  }

  bool is_equation(int id) const {
    const MathNode& node = tree_[id];
    return node.kind == MathKind::kRelation && node.operators.size() == 1 && node.operators[0] == "=";
  }
  bool is_membership(int id) const {
    const MathNode& node = tree_[id];
    return node.kind == MathKind::kRelation && node.operators.size() == 1 && node.operators[0] == "in";
  }

  // What an equation gives its name: 5 of "k = 5", S of "x in S"; the id itself if it is no such thing.
  int value_of(int id) const {
    const MathNode& node = tree_[id];
    if (is_membership(id) || (is_equation(id) && is_math_name(tree_, node.parts[0]))) return node.parts[1];
    return id;
  }

  bool same(int reference, int prediction) {
    tree_.spend();
    if (is_membership(reference)) reference = tree_[reference].parts[1];
    if (is_membership(prediction)) prediction = tree_[prediction].parts[1];
    const MathKind wanted = tree_[reference].kind, got = tree_[prediction].kind;
    if (wanted == MathKind::kRelation && got == MathKind::kRelation)
      return same_relation(reference, prediction);
    if (wanted == MathKind::kRelation) return relation_by_value(reference, prediction);
    if (got == MathKind::kRelation) return value_by_relation(reference, prediction);
    if (is_listing(reference) || is_listing(prediction)) {
      if (const auto equal = same_pieces(reference, prediction)) return *equal;
      if (wanted == MathKind::kTuple || got == MathKind::kTuple || wanted != MathKind::kSet ||
          got != MathKind::kSet)
        if (!is_list(reference) && !is_list(prediction)) return false;
      return tree_[reference].parts.empty() ? tree_[prediction].parts.empty()
                                            : same_answer(reference, prediction);
    }
    return same_value(reference, prediction);
  }

  bool relation_by_value(int reference, int prediction) {
    const int value = value_of(reference);
    if (value != reference) return same_answer(value, prediction);
    const auto wanted = pieces_of_relation(tree_, reference), got = pieces_of_set(tree_, prediction);
    return wanted && got && same_pieces(*wanted, *got);
  }

  bool value_by_relation(int reference, int prediction) {
    const MathNode& node = tree_[prediction];
    const int value = value_of(prediction);
    if (value != prediction) return same_answer(reference, value);
    if (is_equation(prediction)) {
      // A chain ends in its result; "3 + 4 = 7" is 7 if it is true.
      if (!node.chain && !(lenient_ && !tree_.has_symbols(node.parts[0])) &&
          (tree_.has_symbols(node.parts[0]) || !same_value(node.parts[0], node.parts[1])))
        return false;
      return same_answer(reference, node.parts[1]);
    }
    if (!options_.relation_for_set) return false;
    const auto wanted = pieces_of_set(tree_, reference), got = pieces_of_relation(tree_, prediction);
    return wanted && got && same_pieces(*wanted, *got);
  }

  static std::string flipped(const std::string& word) {
    if (word == "<") return ">";
    if (word == "<=") return ">=";
    if (word == ">") return "<";
    if (word == ">=") return "<=";
    return word;
  }

  bool same_relation(int reference, int prediction) {
    const MathNode& wanted = tree_[reference];
    MathNode got = tree_[prediction];
    if (same_parts(wanted, got)) return true;
    std::reverse(got.parts.begin(), got.parts.end());
    std::reverse(got.operators.begin(), got.operators.end());
    for (std::string& word : got.operators) word = flipped(word);
    if (same_parts(wanted, got)) return true;
    if (proportional_relations(wanted, got) || proportional_relations(wanted, tree_[prediction])) return true;
    if (lenient_ && value_of(reference) != reference && value_of(prediction) != prediction &&
        (!in_list_ || same_function(wanted.parts[0], got.parts[1])))
      return same_answer(value_of(reference), value_of(prediction));
    if (is_equation(reference) || is_equation(prediction)) return false;
    const auto a = pieces_of_relation(tree_, reference), b = pieces_of_relation(tree_, prediction);
    return a && b && same_names(reference, prediction) && same_pieces(*a, *b);
  }

  // W(n) and W(x)
  bool same_function(int a, int b) const {
    return tree_[a].kind == MathKind::kFunction && tree_[b].kind == MathKind::kFunction &&
           tree_[a].name == tree_[b].name;
  }

  bool same_parts(const MathNode& wanted, const MathNode& got) {
    if (wanted.operators != got.operators || wanted.parts.size() != got.parts.size()) return false;
    for (size_t i = 0; i < wanted.parts.size(); ++i)
      if (!same_answer(wanted.parts[i], got.parts[i])) return false;
    return true;
  }

  // Do both speak of the same name? That of x < 1 is x.
  bool same_names(int reference, int prediction) {
    const auto name = [&](int id) {
      const std::vector<int>& parts = tree_[id].parts;
      return parts.size() == 3 || !is_math_name(tree_, parts[0]) ? parts[1] : parts[0];
    };
    const auto bare = [&](int id) {
      const MathNode& node = tree_[id];
      return node.kind == MathKind::kFunction && node.name == "abs" ? node.parts[0] : id;
    };
    return same_value(bare(name(reference)), bare(name(prediction)));
  }

  // a = b and c = d say the same if a - b is a constant times c - d; for an order the constant is positive.
  bool proportional_relations(const MathNode& wanted, const MathNode& got) {
    if (wanted.operators.size() != 1 || wanted.operators != got.operators) return false;
    for (const int id : {wanted.parts[0], wanted.parts[1], got.parts[0], got.parts[1]})
      if (!is_scalar(id)) return false;
    const bool order = wanted.operators[0] != "=" && wanted.operators[0] != "!=";
    const int a = tree_.group(MathKind::kAdd, {wanted.parts[0], tree_.negative(wanted.parts[1])});
    const int b = tree_.group(MathKind::kAdd, {got.parts[0], tree_.negative(got.parts[1])});
    return proportional(tree_, a, b, order);
  }

  bool is_scalar(int id) const {
    switch (tree_[id].kind) {
      case MathKind::kNumber:
      case MathKind::kSymbol:
      case MathKind::kConstant:
      case MathKind::kAdd:
      case MathKind::kMultiply:
      case MathKind::kPower:
      case MathKind::kFunction:
        return true;
      default:
        return false;
    }
  }

  std::optional<bool> same_pieces(int reference, int prediction) {
    const auto wanted = pieces_of_set(tree_, reference), got = pieces_of_set(tree_, prediction);
    if (!wanted || !got) return std::nullopt;
    return same_pieces(*wanted, *got);
  }

  bool same_pieces(const MathPieces& wanted, const MathPieces& got) {
    if (wanted.size() != got.size()) return false;
    for (size_t i = 0; i < wanted.size(); ++i) {
      const MathPiece &a = wanted[i], &b = got[i];
      if (a.low_closed != b.low_closed || a.high_closed != b.high_closed) return false;
      if (!same_end(a.low, a.low_value, b.low, b.low_value)) return false;
      if (!same_end(a.high, a.high_value, b.high, b.high_value)) return false;
    }
    return true;
  }

  bool same_end(int a, long double a_value, int b, long double b_value) {
    if (std::isinf(a_value) || std::isinf(b_value)) return a_value == b_value;
    return same_number(a, b);
  }

  bool is_region(int id) const {
    const MathKind kind = tree_[id].kind;
    return kind == MathKind::kUnion || kind == MathKind::kIntersection || kind == MathKind::kDifference;
  }

  bool same_value(int reference, int prediction) {
    const MathNode &wanted = tree_[reference], &got = tree_[prediction];
    if (is_region(reference) || is_region(prediction)) {
      const auto equal = same_pieces(reference, prediction);
      return equal && *equal;
    }
    if (wanted.kind == MathKind::kMultiply || wanted.kind == MathKind::kAdd ||
        got.kind == MathKind::kMultiply || got.kind == MathKind::kAdd) {
      const int a = as_matrix(reference), b = as_matrix(prediction);
      if (a != reference || b != prediction) return same_value(a, b);
    }
    if (wanted.kind != got.kind && !(is_scalar(reference) && is_scalar(prediction))) return false;
    switch (wanted.kind) {
      case MathKind::kTuple:
        return same_tuple(reference, prediction);
      case MathKind::kMatrix:
      case MathKind::kRatio:
        return wanted.columns == got.columns && all_same(wanted.parts, got.parts);
      case MathKind::kInfinity:
        return true;
      case MathKind::kBased:
        return wanted.name == got.name;
      case MathKind::kText:
        return same_words(wanted.name, got.name);
      case MathKind::kSet:
      case MathKind::kList:
        return same_items(items(reference), items(prediction));
      default:
        return same_number(reference, prediction);
    }
  }

  bool all_same(const std::vector<int>& wanted, const std::vector<int>& got) {
    if (wanted.size() != got.size()) return false;
    for (size_t i = 0; i < wanted.size(); ++i)
      if (!same_answer(wanted[i], got[i])) return false;
    return true;
  }

  // An infinite end is open, however it is written.
  std::string brackets(const MathNode& node) const {
    std::string name = node.name;
    if (tree_.infinity_sign(node.parts[0])) name[0] = '(';
    if (tree_.infinity_sign(node.parts[1])) name[1] = ')';
    return name;
  }

  bool same_tuple(int reference, int prediction) {
    const MathNode &wanted = tree_[reference], &got = tree_[prediction];
    if (wanted.parts.size() == 2 && brackets(wanted) != brackets(got)) return false;
    return all_same(wanted.parts, got.parts);
  }

  static bool same_words(std::string_view a, std::string_view b) {
    const auto bare = [](std::string_view text) {
      std::string out;
      for (const unsigned char c : text)
        if (!std::isspace(c)) out += static_cast<char>(std::tolower(c));
      while (!out.empty() && out.back() == '.') out.pop_back();
      return out;
    };
    return bare(a) == bare(b);
  }

  // Sums and products of matrices, worked out.
  int as_matrix(int id) {
    const MathNode& node = tree_[id];
    if ((node.kind != MathKind::kAdd && node.kind != MathKind::kMultiply) ||
        !tree_.any(id, [](const MathNode& one) { return one.kind == MathKind::kMatrix; }))
      return id;
    int value = as_matrix(node.parts[0]);
    for (size_t i = 1; i < node.parts.size(); ++i) {
      const int next = as_matrix(node.parts[i]);
      value = node.kind == MathKind::kAdd ? matrix_sum(value, next) : matrix_product(value, next);
    }
    return value;
  }

  int matrix_sum(int a, int b) {
    MathNode left = tree_[a];
    const MathNode& right = tree_[b];
    if (left.kind != MathKind::kMatrix || right.kind != MathKind::kMatrix || left.columns != right.columns ||
        left.parts.size() != right.parts.size())
      throw MathUnreadable{};
    for (size_t i = 0; i < left.parts.size(); ++i)
      left.parts[i] = tree_.group(MathKind::kAdd, {left.parts[i], right.parts[i]});
    return tree_.add(std::move(left));
  }

  int matrix_product(int a, int b) {
    const MathNode &left = tree_[a], &right = tree_[b];
    if (left.kind != MathKind::kMatrix && right.kind != MathKind::kMatrix)
      return tree_.group(MathKind::kMultiply, {a, b});
    if (left.kind != MathKind::kMatrix || right.kind != MathKind::kMatrix) {
      MathNode scaled = left.kind == MathKind::kMatrix ? left : right;
      const int factor = left.kind == MathKind::kMatrix ? b : a;
      for (int& part : scaled.parts) part = tree_.group(MathKind::kMultiply, {factor, part});
      return tree_.add(std::move(scaled));
    }
    const size_t inner = static_cast<size_t>(left.columns), columns = static_cast<size_t>(right.columns);
    if (right.parts.size() != inner * columns) throw MathUnreadable{};
    MathNode product{.kind = MathKind::kMatrix, .columns = right.columns};
    for (size_t row = 0; row < left.parts.size() / inner; ++row)
      for (size_t column = 0; column < columns; ++column) {
        std::vector<int> terms;
        for (size_t k = 0; k < inner; ++k)
          terms.push_back(tree_.group(MathKind::kMultiply,
                                      {left.parts[row * inner + k], right.parts[k * columns + column]}));
        product.parts.push_back(tree_.group(MathKind::kAdd, std::move(terms)));
      }
    return tree_.add(std::move(product));
  }

  bool same_number(int reference, int prediction) {
    if (const int sign = tree_.infinity_sign(reference)) return tree_.infinity_sign(prediction) == sign;
    if (equal_numbers(tree_, options_.places, reference, prediction)) return true;
    const bool wanted = tree_[reference].percent, got = tree_[prediction].percent;
    if (!lenient_ || wanted == got) return false;
    // 28 % answered as 28
    const int hundred = tree_.number(100);
    return wanted ? equal_numbers(tree_, options_.places,
                                  tree_.group(MathKind::kMultiply, {hundred, reference}), prediction)
                  : equal_numbers(tree_, options_.places, reference,
                                  tree_.group(MathKind::kMultiply, {hundred, prediction}));
  }

  MathTree& tree_;
  const MathOptions& options_;
  bool lenient_;
  bool in_list_ = false;  // names of equations matter: p = 5, q = 2 is not q = 5, p = 2
};

struct Reading {
  std::optional<int> id;  // none: no mathematics
  std::string bare;       // the words, for comparison as text
  bool too_large = false;
};

Reading read(std::string_view text, AnswerProfile profile, MathTree& tree) {
  Reading reading;
  try {
    std::vector<MathToken> tokens = read_math_tokens(text, profile);
    reading.bare = bare_math_text(tokens);
    if (tokens.size() > 1) reading.id = parse_math(std::move(tokens), profile, tree);
  } catch (const MathUnreadable&) {
  } catch (const MathTooLarge&) {
    reading.too_large = true;
  }
  return reading;
}

bool is_word(std::string_view text) {
  return text.size() > 3 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isalpha(c); });
}

// x, y, z ... in the order in which they occur, so that f(x) and f(y) are one.
void rename_symbols(MathTree& tree, int id, std::vector<std::string>& seen) {
  MathNode& node = tree.at(id);
  if (node.kind == MathKind::kSymbol) {
    auto at = std::find(seen.begin(), seen.end(), node.name);
    if (at == seen.end()) at = seen.insert(seen.end(), node.name);
    node.name = "#" + std::to_string(at - seen.begin());
  }
  const std::vector<int> parts = node.parts;
  for (const int part : parts) rename_symbols(tree, part, seen);
}

}  // namespace

const char* name(MathVerdict verdict) {
  switch (verdict) {
    case MathVerdict::kRight:
      return "right";
    case MathVerdict::kWrong:
      return "wrong";
    case MathVerdict::kUnreadable:
      return "unreadable";
    case MathVerdict::kBadReference:
      return "bad_reference";
    case MathVerdict::kTooLarge:
      return "too_large";
  }
  return "?";
}

std::string first_readable(const std::vector<std::string>& candidates) {
  for (const std::string& one : candidates) {
    if (one.size() > kMaxAnswerBytes) continue;
    MathTree tree;
    if (read(one, AnswerProfile::kEvaluation, tree).id) return one;
  }
  return "";
}

MathVerdict judge_math(std::string_view reference, std::string_view prediction, const MathOptions& options) {
  if (prediction.size() > kMaxAnswerBytes) return MathVerdict::kTooLarge;
  if (reference.size() > 8 * kMaxAnswerBytes) return MathVerdict::kBadReference;
  MathTree tree;
  const Reading wanted = read(reference, options.profile, tree),
                got = read(prediction, options.profile, tree);
  if (!got.bare.empty() && got.bare == wanted.bare) return MathVerdict::kRight;
  if (wanted.too_large) return MathVerdict::kBadReference;
  if (got.too_large) return MathVerdict::kTooLarge;
  if (!wanted.id)
    return wanted.bare.empty() || !is_word(wanted.bare) ? MathVerdict::kBadReference : MathVerdict::kWrong;
  if (!got.id) return MathVerdict::kUnreadable;
  if (is_word(wanted.bare) || is_word(got.bare)) return MathVerdict::kWrong;  // letters are no product then
  try {
    if (options.any_names) {
      std::vector<std::string> seen;
      rename_symbols(tree, *wanted.id, seen);
      seen.clear();
      rename_symbols(tree, *got.id, seen);
    }
    return Comparison(tree, options).same_answer(*wanted.id, *got.id) ? MathVerdict::kRight
                                                                      : MathVerdict::kWrong;
  } catch (const MathUnreadable&) {
    return MathVerdict::kWrong;
  } catch (const MathTooLarge&) {
    return MathVerdict::kTooLarge;
  }
}

}  // namespace hadal
