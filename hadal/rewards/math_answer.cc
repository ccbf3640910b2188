#include "hadal/rewards/math_answer.h"

#include <boost/multiprecision/cpp_int.hpp>
#include <optional>
#include <string>

namespace hadal {
namespace {

using boost::multiprecision::cpp_int;
using boost::multiprecision::cpp_rational;

// "-12", "3.50", "7/8" exactly.
std::optional<cpp_rational> read_number(std::string_view text) {
  text = trimmed(text);
  const bool negative = !text.empty() && text[0] == '-';
  if (negative) text.remove_prefix(1);
  cpp_int parts[2] = {0, 0}, scale = 1;
  int part = 0, digits = 0;
  bool point = false;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      parts[part] = parts[part] * 10 + (c - '0');
      if (point) scale *= 10;
      ++digits;
    } else if (c == '.' && !point && part == 0) {
      point = true;
    } else if (c == '/' && !point && part == 0 && digits > 0) {
      part = 1, digits = 0;
    } else {
      return std::nullopt;
    }
  }
  if (digits == 0 || (part == 1 && parts[1] == 0)) return std::nullopt;
  const cpp_rational value(parts[0], part == 1 ? parts[1] : scale);
  return negative ? -value : value;
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

MathVerdict judge_math(std::string_view reference, std::string_view prediction, const MathOptions&) {
  if (trimmed(prediction).empty()) return MathVerdict::kUnreadable;
  if (trimmed(reference) == trimmed(prediction)) return MathVerdict::kRight;
  const auto wanted = read_number(reference), got = read_number(prediction);
  if (!wanted) return MathVerdict::kBadReference;
  if (!got) return MathVerdict::kUnreadable;
  return *wanted == *got ? MathVerdict::kRight : MathVerdict::kWrong;
}

}  // namespace hadal
