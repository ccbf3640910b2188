#include "hadal/rewards/code_checker.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

std::vector<std::string_view> words_of(std::string_view text) {
  constexpr std::string_view blanks = " \t\n\r\v\f";
  std::vector<std::string_view> words;
  for (size_t begin = 0; (begin = text.find_first_not_of(blanks, begin)) != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(blanks, begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

bool read_number(std::string_view text, double& value) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(value);
}

bool near(double a, double b, double eps) {
  return std::abs(a - b) <= eps * std::max(1.0, std::abs(b));
}

double tolerance(std::string_view checker) {
  double eps = -1;
  return checker.starts_with("float:") && read_number(checker.substr(6), eps) ? eps : -1;
}

std::string_view without_last_breaks(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

bool same(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number())
    return a.is_number_integer() && b.is_number_integer() ? a == b
                                                          : near(a.get<double>(), b.get<double>(), 1e-9);
  if (a.type() != b.type() || a.size() != b.size()) return false;
  if (a.is_array()) return std::equal(a.begin(), a.end(), b.begin(), same);
  if (!a.is_object()) return a == b;
  return std::all_of(a.items().begin(), a.items().end(), [&](const auto& item) {
    return b.contains(item.key()) && same(item.value(), b[item.key()]);
  });
}

}  // namespace

bool is_program_checker(std::string_view checker) {
  return checker.starts_with("cpp:") || checker.starts_with("python:");
}

void require_checker(std::string_view checker, const std::string& where) {
  if (checker == "tokens" || checker == "exact" || is_program_checker(checker)) return;
  if (const double eps = tolerance(checker); eps >= 0) return;
  throw Error(ErrorCode::kInvalidArgument,
              cat(where, ": checker \"", checker.substr(0, 40),
                  "\" is none of tokens, exact, float:<eps>, cpp:<program>, python:<program>."));
}

bool output_matches(std::string_view checker, std::string_view output, std::string_view expected) {
  if (checker == "exact") return without_last_breaks(output) == without_last_breaks(expected);
  const std::vector<std::string_view> got = words_of(output), want = words_of(expected);
  const double eps = tolerance(checker);
  return std::equal(
      got.begin(), got.end(), want.begin(), want.end(), [&](std::string_view a, std::string_view b) {
        double x = 0, y = 0;
        return a == b || (eps >= 0 && read_number(a, x) && read_number(b, y) && near(x, y, eps));
      });
}

bool result_matches(std::string_view output, std::string_view expected) {
  try {
    return same(parse_json(output, "result"), parse_json(expected, "expected"));
  } catch (const Error&) {
    return false;
  }
}

}  // namespace hadal
