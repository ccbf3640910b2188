// The kinds of tasks that are arithmetic; word problems and programs have files of their own.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/rewards/made_tasks.h"

namespace hadal {
namespace {

std::string joined(const std::vector<int64_t>& numbers, const char* between) {
  std::string text;
  for (const int64_t one : numbers) text += (text.empty() ? "" : between) + std::to_string(one);
  return text;
}

int64_t power_of_ten(int64_t n) {
  int64_t value = 1;
  while (n-- > 0) value *= 10;
  return value;
}

// Column by column from the right: "7+8=15 write 5 carry 1, 4+0+1=5 write 5".
std::string column_addition(int64_t a, int64_t b) {
  std::string thought;
  for (int64_t carry = 0; a > 0 || b > 0 || carry > 0; a /= 10, b /= 10) {
    const int64_t sum = a % 10 + b % 10 + carry;
    thought += cat(thought.empty() ? "" : ", ", a % 10, "+", b % 10, carry ? "+1" : "", "=", sum);
    carry = sum / 10;
  }
  return thought.empty() ? "0+0=0" : thought;
}

MadeTask addition(TaskRandom& random, int64_t level) {
  const auto number = [&] {
    const int64_t digits = random.between(1, level);
    return random.between(digits == 1 ? 0 : power_of_ten(digits - 1), power_of_ten(digits) - 1);
  };
  const int64_t a = number(), b = number();
  return {.prompt = cat(a, "+", b, "="),
          .verifier = "math",
          .answer = cat(a + b),
          .thought = column_addition(a, b),
          .solution = cat(a + b)};
}

MadeTask sorting(TaskRandom& random, int64_t level, int64_t largest) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < level; ++i) numbers.push_back(random.between(0, largest));
  MadeTask task{.prompt = cat("sort ", joined(numbers, " "), ":"), .verifier = "exact"};
  std::sort(numbers.begin(), numbers.end());
  task.thought = joined(numbers, "<=");
  task.answer = task.solution = joined(numbers, " ");
  return task;
}

// A value with the expression that gives it.
struct Term {
  int64_t value = 0;
  std::string text;
  bool sum = false;  // needs brackets as a factor
};

// a op b, of a - b and a / b the one that is a whole number from 1 on.
Term combined(TaskRandom& random, const Term& a, const Term& b, std::string& thought) {
  const auto factor = [](const Term& term) { return term.sum ? "(" + term.text + ")" : term.text; };
  const Term &large = a.value >= b.value ? a : b, &small = a.value >= b.value ? b : a;
  Term result;
  char sign = "+-*/"[random.between(0, 3)];
  if (sign == '-' && large.value == small.value) sign = '+';
  if (sign == '*' && large.value * small.value > 200) sign = '+';
  if (sign == '/' && large.value % small.value != 0) sign = '+';
  switch (sign) {
    case '+':
      result = {large.value + small.value, large.text + "+" + small.text, true};
      break;
    case '-':
      result = {large.value - small.value, large.text + "-" + factor(small), true};
      break;
    case '*':
      result = {large.value * small.value, factor(large) + "*" + factor(small), false};
      break;
    default:
      result = {
          large.value / small.value,
          factor(large) + "/" +
              (small.text.find_first_of("*/") == std::string::npos ? factor(small) : "(" + small.text + ")"),
          false};
  }
  thought +=
      cat(thought.empty() ? "" : ", ", large.value, std::string(1, sign), small.value, "=", result.value);
  return result;
}

MadeTask countdown(TaskRandom& random, int64_t level) {
  std::vector<Term> terms;
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < level; ++i) {
    numbers.push_back(random.between(1, 20));
    terms.push_back({numbers.back(), std::to_string(numbers.back()), false});
  }
  MadeTask task{.verifier = "countdown"};
  while (terms.size() > 1) {
    const auto at = static_cast<size_t>(random.between(0, static_cast<int64_t>(terms.size()) - 2));
    terms[at] = combined(random, terms[at], terms[at + 1], task.thought);
    terms.erase(terms.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  std::sort(numbers.begin(), numbers.end());
  task.prompt = cat("make ", terms[0].value, " from ", joined(numbers, " "), ":");
  task.columns = {{"numbers", numbers}, {"target", terms[0].value}};
  task.solution = terms[0].text;
  return task;
}

}  // namespace

const std::vector<TaskKind>& task_kinds() {
  static const std::vector<TaskKind> kinds = {
      {"addition", "two numbers of at most LEVEL digits", 1, 3, 9, addition},
      {"sort", "LEVEL numbers in ascending order", 1, 4, 20,
       [](TaskRandom& random, int64_t level) { return sorting(random, level, 99); }},
      {"sort-digits", "LEVEL digits in ascending order", 4, 6, 20,
       [](TaskRandom& random, int64_t level) { return sorting(random, level, 9); }},
      {"countdown", "an expression of LEVEL numbers with a given value", 2, 3, 6, countdown},
      {"words", "word problems of LEVEL steps", 1, 2, 4, word_problem},
      {"cpp-expression", "a C++ function of one expression with LEVEL operators", 1, 2, 5, cpp_expression},
      {"cpp-function", "a C++ function with a loop or a condition", 1, 1, 1, cpp_function},
      {"needle", "a fact in a text of LEVEL words and full stops", 16, 64, 131072, needle}};
  return kinds;
}

const TaskKind& task_kind(std::string_view name) {
  std::vector<std::string> names;
  for (const TaskKind& kind : task_kinds()) {
    if (name == kind.name) return kind;
    names.emplace_back(kind.name);
  }
  std::string list;
  for (const std::string& one : names) list += (list.empty() ? "" : ", ") + one;
  throw Error(ErrorCode::kInvalidArgument, cat("[rewards.task_maker] there is no kind of task \"", name,
                                               "\", need ", list, did_you_mean(name, names), "."));
}

}  // namespace hadal
