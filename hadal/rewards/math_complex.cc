// Complex values, in long double and in 50 digits.
#include <boost/multiprecision/cpp_complex.hpp>
#include <cmath>

#include "hadal/rewards/math_value.h"

namespace hadal {
namespace {

using Short = std::complex<long double>;
using Long = boost::multiprecision::cpp_complex_50;

template <class C>
struct RealOf;
template <>
struct RealOf<Short> {
  using Type = long double;
};
template <>
struct RealOf<Long> {
  using Type = Long::value_type;
};

// How much of the budget an elementary function of this type costs.
template <class C>
constexpr int64_t kCost = 2;
template <>
constexpr int64_t kCost<Long> = 200;

template <class C>
class Evaluator {
 public:
  using Real = typename RealOf<C>::Type;
  Evaluator(MathTree& tree, int point) : tree_(tree), point_(point) {}

  // Throws MathUnreadable for what has no value.
  C value(int id) {
    tree_.spend(kCost<C> / 20 + 1);
    const MathNode& node = tree_[id];
    switch (node.kind) {
      case MathKind::kNumber:
        return number(node.number);
      case MathKind::kConstant:
        return constant(node.name);
      case MathKind::kText:
      case MathKind::kSymbol:
        return symbol(math_hash(node.name, static_cast<uint64_t>(point_)));
      case MathKind::kPower:
        return power(value(node.parts[0]), node.parts[1]);
      case MathKind::kFunction:
        return function(id);
      case MathKind::kAdd: {
        C sum(0);
        for (const int part : node.parts) sum += value(part);
        return sum;
      }
      case MathKind::kMultiply: {
        C product(1);
        for (const int part : node.parts) product *= value(part);
        return product;
      }
      default:
        throw MathUnreadable{};
    }
  }

 private:
  static C number(const Rational& value) { return C(Real(numerator(value)) / Real(denominator(value))); }
  static Real pi() {
    using std::acos;
    return acos(Real(-1));
  }
  C constant(const std::string& name) {
    using std::exp;
    if (name == "i") return C(0, 1);
    return name == "pi" ? C(pi()) : C(exp(Real(1)));
  }
  // Magnitude 0.5 to 2, angle within half a radian of the positive numbers.
  static C symbol(uint64_t hash) {
    using std::cos;
    using std::sin;
    const Real size = Real(0.5) + Real(1.5) * Real(static_cast<double>(hash >> 40)) * Real(0x1p-24);
    const Real angle = Real(static_cast<double>(hash & 0xFFFFFF)) * Real(0x1p-24) - Real(0.5);
    return C(Real(size * cos(angle)), Real(size * sin(angle)));
  }

  C power(const C& base, int exponent_id) {
    using std::exp;
    using std::log;
    tree_.spend(kCost<C>);
    const auto exact = exact_value(tree_, exponent_id);
    if (exact && denominator(*exact) == 1 && abs(*exact) <= 64) {
      C result(1);
      for (Rational n = abs(*exact); n > 0; n -= 1) result *= base;
      return *exact < 0 ? C(C(1) / result) : result;
    }
    if (base == C(0)) throw MathUnreadable{};
    return exp(C(value(exponent_id) * C(log(base))));
  }

  // Of an odd degree a negative number has a real root: the one that is meant.
  C root(const C& of, int degree_id) {
    using std::exp;
    using std::log;
    const auto degree = exact_value(tree_, degree_id);
    if (!degree || denominator(*degree) != 1 || *degree == 0) throw MathUnreadable{};
    if (of == C(0)) return of;
    const C n = number(*degree);
    if (is_real(of) && of.real() < 0 && numerator(*degree) % 2 != 0) return -exp(C(log(C(-of)) / n));
    return exp(C(log(of) / n));
  }

  static bool is_real(const C& z) { return z.imag() == 0; }

  C function(int id) {
    const MathNode& node = tree_[id];
    tree_.spend(kCost<C>);
    if (!is_known_function(node.name) || node.name == "fact" || node.name == "binom") return opaque(id);
    const C x = value(node.parts[0]);
    if (node.name == "root") return root(x, node.parts[1]);
    if (node.name == "logb") return logarithm(x) / logarithm(value(node.parts[1]));
    if (node.parts.size() != 1) return opaque(id);
    if (const auto of_real = real_function(node.name, x)) return *of_real;
    return elementary(node.name, x);
  }

  static C logarithm(const C& x) {
    using std::log;
    if (x == C(0)) throw MathUnreadable{};
    return log(x);
  }

  std::optional<C> real_function(const std::string& name, const C& x) {
    using std::abs;
    using std::ceil;
    using std::floor;
    if (name == "abs") return C(Real(abs(x)));
    if (name != "floor" && name != "ceil") return std::nullopt;
    if (!is_real(x)) throw MathUnreadable{};
    const Real real = x.real();
    return name == "floor" ? C(Real(floor(real))) : C(Real(ceil(real)));
  }

  static C elementary(const std::string& name, const C& x) {
    using std::acos, std::asin, std::atan, std::cos, std::cosh, std::exp, std::sin, std::sinh, std::sqrt,
        std::tan, std::tanh;
    const C one(1);
    if (name == "sqrt") return sqrt(x);
    if (name == "exp") return exp(x);
    if (name == "ln") return logarithm(x);
    if (name == "lg") return logarithm(x) / logarithm(C(10));
    // Whether log is to base e or 10 is not known; it is neither here, so that only itself equals it.
    if (name == "log") return logarithm(x) * C(Real(0.7310585786300049));
    if (name == "sin") return sin(x);
    if (name == "cos") return cos(x);
    if (name == "tan") return tan(x);
    if (name == "cot") return one / C(tan(x));
    if (name == "sec") return one / C(cos(x));
    if (name == "csc") return one / C(sin(x));
    if (name == "arcsin") return asin(x);
    if (name == "arccos") return acos(x);
    if (name == "arctan") return atan(x);
    if (name == "arccot") return atan(C(one / x));
    if (name == "sinh") return sinh(x);
    if (name == "cosh") return cosh(x);
    if (name == "tanh") return tanh(x);
    if (name == "coth") return one / C(tanh(x));
    throw MathUnreadable{};
  }

  // A value that depends on the name and, to nine digits, on the arguments.
  C opaque(int id) {
    const MathNode& node = tree_[id];
    if (is_known_function(node.name))
      if (const auto exact = exact_value(tree_, id)) return number(*exact);
    uint64_t hash = math_hash(node.name, static_cast<uint64_t>(point_));
    for (const int part : node.parts) {
      const C argument = value(part);
      for (const Real& x : {Real(argument.real()), Real(argument.imag())})
        hash =
            math_hash("argument", hash ^ static_cast<uint64_t>(std::llround(static_cast<double>(x) * 1e9)));
    }
    return symbol(hash);
  }

  MathTree& tree_;
  int point_;
};

template <class C>
bool finite(const C& z) {
  using std::isfinite;
  return isfinite(z.real()) && isfinite(z.imag());
}

}  // namespace

std::optional<std::complex<long double>> complex_value(MathTree& tree, int id, int point) {
  try {
    const Short value = Evaluator<Short>(tree, point).value(id);
    if (finite(value)) return value;
  } catch (const MathUnreadable&) {
  }
  return std::nullopt;
}

bool equal_to_many_digits(MathTree& tree, int a, int b, int point) {
  try {
    Evaluator<Long> evaluator(tree, point);
    const Long x = evaluator.value(a), y = evaluator.value(b);
    if (!finite(x) || !finite(y)) return false;
    using Real = Long::value_type;
    const Real first(abs(x)), second(abs(y)), least("1e-4");
    const Real size = first < second ? second : first;
    return Real(abs(Long(x - y))) <= Real("1e-45") * (size < least ? least : size);
  } catch (const MathUnreadable&) {
    return false;
  }
}

}  // namespace hadal
