#include "hadal/agent/calculator.h"

#include <algorithm>
#include <cctype>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

using Wide = __int128;
constexpr Wide kMost = Wide{1} << 120;
constexpr int kMaxDepth = 200;

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "[agent.calculator] " + what + ".");
}

Wide checked(Wide value) {
  if (value > kMost || value < -kMost) refuse("the numbers become too large");
  return value;
}

Wide product(Wide a, Wide b) {
  Wide value = 0;
  if (__builtin_mul_overflow(a, b, &value)) refuse("the numbers become too large");
  return checked(value);
}

Wide common_divisor(Wide a, Wide b) {
  while (b != 0) std::swap(a %= b, b);
  return a < 0 ? -a : a;
}

struct Fraction {
  Wide top = 0, bottom = 1;  // in lowest terms, bottom > 0
};

Fraction fraction(Wide top, Wide bottom) {
  if (bottom == 0) refuse("division by zero");
  const Wide divisor = common_divisor(top, bottom) * (bottom < 0 ? -1 : 1);
  return {top / divisor, bottom / divisor};
}

Fraction sum(Fraction a, Fraction b) {
  return fraction(checked(product(a.top, b.bottom) + product(b.top, a.bottom)), product(a.bottom, b.bottom));
}
Fraction times(Fraction a, Fraction b) {
  return fraction(product(a.top, b.top), product(a.bottom, b.bottom));
}

std::string digits(Wide value) {
  const bool negative = value < 0;
  if (negative) value = -value;
  std::string text;
  do text += static_cast<char>('0' + static_cast<int>(value % 10));
  while ((value /= 10) != 0);
  if (negative) text += '-';
  return {text.rbegin(), text.rend()};
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Fraction whole() {
    const Fraction value = terms();
    if (peek() != '\0') refuse(cat("cannot read \"", text_.substr(at_), "\""));
    return value;
  }

 private:
  char peek() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }

  Fraction terms() {
    Fraction value = factors();
    for (;;) {
      if (take('+'))
        value = sum(value, factors());
      else if (take('-'))
        value = sum(value, times({-1, 1}, factors()));
      else
        return value;
    }
  }

  Fraction factors() {
    Fraction value = signed_power();
    for (;;) {
      if (take('*')) {
        value = times(value, signed_power());
      } else if (take('/')) {
        const Fraction by = signed_power();
        value = times(value, fraction(by.bottom, by.top));
      } else if (take('%')) {
        value = remainder(value, signed_power());
      } else {
        return value;
      }
    }
  }

  Fraction remainder(Fraction a, Fraction b) {
    if (a.bottom != 1 || b.bottom != 1 || b.top == 0) refuse("% needs integers, the second not 0");
    const Wide rest = a.top % b.top;
    return {rest != 0 && (rest < 0) != (b.top < 0) ? rest + b.top : rest, 1};
  }

  Fraction signed_power() {
    if (++depth_ > kMaxDepth) refuse("the expression is nested too deeply");
    Fraction value;
    if (take('-')) {
      value = times({-1, 1}, signed_power());
    } else if (take('+')) {
      value = signed_power();
    } else {
      value = atom();
      if (take('^')) value = power(value, signed_power());
    }
    --depth_;
    return value;
  }

  Fraction power(Fraction base, Fraction exponent) {
    if (exponent.bottom != 1 || exponent.top > 1000 || exponent.top < -1000)
      refuse("an exponent needs an integer of at most 1000");
    const bool inverse = exponent.top < 0;
    Fraction value{1, 1};
    for (Wide left = inverse ? -exponent.top : exponent.top; left > 0; --left) value = times(value, base);
    return inverse ? fraction(value.bottom, value.top) : value;
  }

  Fraction atom() {
    if (take('(')) {
      const Fraction value = terms();
      if (!take(')')) refuse("a bracket is open");
      return value;
    }
    return number();
  }

  Fraction number() {
    peek();
    const size_t begin = at_;
    Wide top = 0, bottom = 1;
    bool point = false;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '.' && !point) {
        point = true;
      } else if (std::isdigit(static_cast<unsigned char>(c))) {
        top = checked(product(top, 10) + (c - '0'));
        if (point) bottom = product(bottom, 10);
      } else {
        break;
      }
    }
    if (at_ == begin || text_.substr(begin, at_ - begin) == ".")
      refuse(at_ < text_.size() ? cat("cannot read \"", text_.substr(begin), "\"")
                                : "the expression ends too early");
    return fraction(top, bottom);
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
};

// With twelve digits behind the point, cut; "" if the fraction is an integer.
std::string decimal(Fraction value) {
  const bool negative = value.top < 0;
  const Wide top = negative ? -value.top : value.top;
  std::string text = (negative ? "-" : "") + digits(top / value.bottom) + ".";
  Wide rest = top % value.bottom;
  for (int i = 0; i < 12 && rest != 0; ++i) {
    rest *= 10;  // below 2^124
    text += static_cast<char>('0' + static_cast<int>(rest / value.bottom));
    rest %= value.bottom;
  }
  return text + (rest == 0 ? "" : "...");
}

}  // namespace

std::string calculate(std::string_view expression) {
  if (expression.size() > 10000) refuse("the expression is longer than 10000 bytes");
  const Fraction value = Parser(expression).whole();
  if (value.bottom == 1) return digits(value.top);
  return cat(digits(value.top), "/", digits(value.bottom), " = ", decimal(value));
}

}  // namespace hadal
