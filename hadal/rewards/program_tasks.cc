// Small C++ functions, told in words, judged by compiling and running them.
#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/rewards/made_tasks.h"

namespace hadal {
namespace {

std::string fenced(const std::string& code) {
  return cat("\n```cpp\n", code, "\n```\n");
}

// A test for each list of arguments; `result` is what the function must give.
template <class Arguments>
Json tests_of(const std::vector<Arguments>& all, const std::function<int64_t(const Arguments&)>& result) {
  Json tests = Json::array();
  for (const Arguments& one : all) tests.push_back({{"args", one}, {"result", result(one)}});
  return tests;
}

// --- f(a, b) = an expression, folded from the left

struct Operation {
  const char* words;
  char sign;
  int64_t operand;  // 0: b
};

int64_t applied(const Operation& op, int64_t value, int64_t b) {
  const int64_t operand = op.operand ? op.operand : b;
  return op.sign == '+' ? value + operand : op.sign == '-' ? value - operand : value * operand;
}

}  // namespace

MadeTask cpp_expression(TaskRandom& random, int64_t level) {
  std::vector<Operation> operations;
  std::string words = "a", code = "a", thought = "a";
  for (int64_t i = 0; i < level; ++i) {
    Operation op = random.one_of<Operation>({{" plus ", '+', 0}, {" minus ", '-', 0}, {" times ", '*', 0}});
    if (random.between(0, 2) > 0) op.operand = random.between(2, 9);
    const std::string operand = op.operand ? std::to_string(op.operand) : "b";
    words += cat(i == 0 ? "" : ", then", op.words, operand);
    const bool brackets = op.sign == '*' && i > 0;
    code = cat(brackets ? "(" : "", code, brackets ? ")" : "", " ", std::string(1, op.sign), " ", operand);
    thought += cat(", ", code);
    operations.push_back(op);
  }
  std::vector<std::vector<int64_t>> arguments = {{0, 0}, {1, 2}, {-3, 5}, {7, -4}};
  for (int i = 0; i < 4; ++i) arguments.push_back({random.between(-20, 20), random.between(-20, 20)});
  MadeTask task{.prompt = cat("C++ f(a,b): ", words, "\n"), .verifier = "code", .thought = thought};
  task.columns = {{"language", "cpp"}, {"function", "f"}, {"signature", "int f(int a, int b)"}};
  task.columns["tests"] = tests_of<std::vector<int64_t>>(arguments, [&](const std::vector<int64_t>& of) {
    int64_t value = of[0];
    for (const Operation& op : operations) value = applied(op, value, of[1]);
    return value;
  });
  task.solution = fenced(cat("int f(int a, int b) { return ", code, "; }"));
  return task;
}

namespace {

// --- functions of a range 1..n with a filter and a fold

struct Filter {
  const char* words;
  const char* code;  // with k for the constant; "": all
  bool (*keeps)(int64_t i, int64_t k);
};
struct Fold {
  const char* words;
  const char* start;
  const char* code;
  int64_t begin;
  int64_t (*add)(int64_t sum, int64_t i);
};

const std::vector<Filter> kFilters = {
    {"the numbers from 1 to n", "", [](int64_t, int64_t) { return true; }},
    {"the numbers from 1 to n that K divides", "i % K == 0", [](int64_t i, int64_t k) { return i % k == 0; }},
    {"the numbers from 1 to n that K does not divide", "i % K != 0",
     [](int64_t i, int64_t k) { return i % k != 0; }},
    {"the numbers from 1 to n that end in K", "i % 10 == K",
     [](int64_t i, int64_t k) { return i % 10 == k; }},
    {"the numbers from 1 to n that are larger than K", "i > K", [](int64_t i, int64_t k) { return i > k; }},
    {"the divisors of n that are larger than K", "n % i == 0 && i > K", nullptr}};
const std::vector<Fold> kFolds = {
    {"the sum of", "0", "s += i", 0, [](int64_t s, int64_t i) { return s + i; }},
    {"how many are", "0", "s += 1", 0, [](int64_t s, int64_t) { return s + 1; }},
    {"the sum of the squares of", "0", "s += i * i", 0, [](int64_t s, int64_t i) { return s + i * i; }},
    {"the largest, or 0, of", "0", "s = i", 0, [](int64_t, int64_t i) { return i; }},
    {"the alternating sum, signs by parity, of", "0", "s += i % 2 ? i : -i", 0,
     [](int64_t s, int64_t i) { return s + (i % 2 ? i : -i); }}};

std::string with_constant(std::string text, int64_t k) {
  for (size_t at; (at = text.find('K')) != std::string::npos;) text.replace(at, 1, std::to_string(k));
  return text;
}

}  // namespace

MadeTask cpp_function(TaskRandom& random, int64_t) {
  const Filter& filter = random.one_of(kFilters);
  const Fold& fold = random.one_of(kFolds);
  const int64_t k = random.between(2, 9), times = random.between(1, 9), plus = random.between(0, 9);
  std::vector<std::vector<int64_t>> arguments;
  for (const int64_t n : {0, 1, 2, 10, 37, 60}) arguments.push_back({n});
  for (int i = 0; i < 2; ++i) arguments.push_back({random.between(3, 100)});
  const std::string what = with_constant(filter.words, k), condition = with_constant(filter.code, k);
  const std::string tail = cat(times == 1 ? "" : cat(" * ", times), plus == 0 ? "" : cat(" + ", plus));
  MadeTask task{.prompt = cat("C++ f(n): ", fold.words, " ", what, times == 1 ? "" : cat(", times ", times),
                              plus == 0 ? "" : cat(", plus ", plus), "\n"),
                .verifier = "code"};
  task.columns = {{"language", "cpp"}, {"function", "f"}, {"signature", "int f(int n)"}};
  task.columns["tests"] = tests_of<std::vector<int64_t>>(arguments, [&](const std::vector<int64_t>& of) {
    int64_t value = fold.begin;
    for (int64_t i = 1; i <= of[0]; ++i)
      if (filter.keeps ? filter.keeps(i, k) : of[0] % i == 0 && i > k) value = fold.add(value, i);
    return value * times + plus;
  });
  task.thought = cat("loop i over 1..n", condition.empty() ? "" : cat(", keep i if ", condition), ", ",
                     fold.code, tail.empty() ? "" : cat(", at the end s", tail));
  task.solution = fenced(cat("int f(int n) {\n  int s = ", fold.start, ";\n  for (int i = 1; i <= n; ++i)",
                             condition.empty() ? " " : cat(" if (", condition, ") "), fold.code,
                             ";\n  return s", tail, ";\n}"));
  return task;
}

}  // namespace hadal
