// Expressions of an answer: nodes in one array, named by their places.
#pragma once
#include <boost/multiprecision/cpp_int.hpp>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace hadal {

using BigInt = boost::multiprecision::cpp_int;
using Rational = boost::multiprecision::cpp_rational;

// How reading or comparing ends early. Inside the module only: they unwind a recursion over foreign text, and
// judge_math() turns them into verdicts.
struct MathUnreadable {};
struct MathTooLarge {};

enum class MathKind {
  kNumber,     // number; decimal: written with a point; percent: was divided by 100
  kSymbol,     // name
  kConstant,   // name: "pi", "e", "i"
  kInfinity,   //
  kText,       // name: words
  kBased,      // name: digits and base, "1011_2"
  kAdd,        // parts
  kMultiply,   // parts
  kPower,      // base, exponent
  kFunction,   // name, parts: its arguments; names that hadal does not know are opaque
  kPlusMinus,  // number: 1 for ±, -1 for ∓; one part
  kTuple,      // name: its brackets, "()", "[]", "[)", "(]"
  kSet,        // parts; none: the empty set
  kList,       // parts, of equal rank, as "1, 2 and 3"
  kUnion,      // parts; likewise the next two, of two parts
  kIntersection,
  kDifference,
  kMatrix,   // parts by rows; columns
  kRatio,    // parts
  kRelation  // parts; operators between them; chain: there were more parts, the middle ones are gone
};

struct MathNode {
  MathKind kind = MathKind::kNumber;
  std::string name;
  std::vector<int> parts;
  Rational number = 0;
  bool decimal = false, percent = false, chain = false;
  int columns = 0;
  std::vector<std::string> operators;  // "=", "!=", "<", "<=", ">", ">=", "~" (approximately), "in"
};

class MathTree {
 public:
  int add(MathNode node);  // throws MathTooLarge past the limit of nodes
  const MathNode& operator[](int id) const { return nodes_[static_cast<size_t>(id)]; }
  MathNode& at(int id) { return nodes_[static_cast<size_t>(id)]; }

  int number(Rational value);
  int symbol(std::string name);
  int group(MathKind kind, std::vector<int> parts);
  int negative(int id);
  int inverse(int id);
  int power(int base, int exponent);
  int function(std::string name, std::vector<int> arguments);

  bool any(int id, bool (*test)(const MathNode&)) const;  // some node below or at id
  bool has_symbols(int id) const;  // also opaque functions and texts: what has no value of its own
  bool has_decimals(int id) const;
  bool has_plus_minus(int id) const;
  // A copy in which every ± has become + (sign 1) or - (sign -1), and every ∓ the other.
  int with_sign(int id, int sign);
  // Infinity with its sign: 1, -1; 0: finite.
  int infinity_sign(int id) const;

  // Counts work; throws MathTooLarge when the budget is gone.
  void spend(int64_t operations = 1) const {
    if ((budget_ -= operations) < 0) throw MathTooLarge{};
  }

 private:
  std::deque<MathNode> nodes_;  // which stay where they are while others are added
  mutable int64_t budget_ = 50'000;
};

// Functions whose values hadal computes: "sqrt", "sin", ... A function of another name is opaque.
bool is_known_function(std::string_view name);

}  // namespace hadal
