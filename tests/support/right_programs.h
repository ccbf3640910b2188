// Programs that are right, made from seeds: each reads numbers, does some steps and prints; the steps are
// also done here, so the expected output is known by construction.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "hadal/base/sha256.h"
#include "hadal/base/text.h"
#include "hadal/rewards/code_task.h"

namespace hadal {

struct RightProgram {
  CodeTask task;
  std::string source;
};

// One step on a list of numbers: in C++ on `vector<long long> v`, in Python on `v`, and here.
struct ProgramStep {
  const char* cpp;
  const char* python;
  void (*apply)(std::vector<int64_t>&, int64_t);
};

inline const std::vector<ProgramStep>& program_steps() {
  using V = std::vector<int64_t>;
  static const std::vector<ProgramStep> steps = {
      {"for (auto& x : v) x += K;", "v = [x + K for x in v]",
       [](V& v, int64_t k) {
         for (auto& x : v) x += k;
       }},
      {"for (auto& x : v) x = x * K % 10007;", "v = [int(math.fmod(x * K, 10007)) for x in v]",
       [](V& v, int64_t k) {
         for (auto& x : v) x = x * k % 10007;
       }},
      {"sort(v.begin(), v.end());", "v.sort()", [](V& v, int64_t) { std::sort(v.begin(), v.end()); }},
      {"reverse(v.begin(), v.end());", "v = v[::-1]",
       [](V& v, int64_t) { std::reverse(v.begin(), v.end()); }},
      {"for (size_t i = 1; i < v.size(); ++i) v[i] += v[i - 1];", "v = list(itertools.accumulate(v))",
       [](V& v, int64_t) {
         for (size_t i = 1; i < v.size(); ++i) v[i] += v[i - 1];
       }},
      {"rotate(v.begin(), v.begin() + K % v.size(), v.end());", "v = v[K % len(v):] + v[:K % len(v)]",
       [](V& v, int64_t k) {
         std::rotate(v.begin(), v.begin() + k % static_cast<int64_t>(v.size()), v.end());
       }},
      {"{ auto m = *max_element(v.begin(), v.end()); for (auto& x : v) x = m - x; }",
       "v = [max(v) - x for x in v]",
       [](V& v, int64_t) {
         const int64_t m = *std::max_element(v.begin(), v.end());
         for (auto& x : v) x = m - x;
       }},
      {"v.push_back(accumulate(v.begin(), v.end(), 0LL));", "v.append(sum(v))",
       [](V& v, int64_t) {
         int64_t sum = 0;
         for (const int64_t x : v) sum += x;
         v.push_back(sum);
       }},
      {"for (auto& x : v) x = x < 0 ? -x : x;", "v = [abs(x) for x in v]",
       [](V& v, int64_t) {
         for (auto& x : v) x = x < 0 ? -x : x;
       }},
      {"for (auto& x : v) x ^= K;", "v = [x ^ K for x in v]",
       [](V& v, int64_t k) {
         for (auto& x : v) x ^= k;
       }},
  };
  return steps;
}

inline std::string with_number(std::string text, int64_t number) {
  for (size_t at; (at = text.find('K')) != std::string::npos;) text.replace(at, 1, std::to_string(number));
  return text;
}

inline std::string spaced(const std::vector<int64_t>& numbers) {
  std::string text;
  for (const int64_t x : numbers) text += cat(x, " ");
  return text;
}

inline std::string cpp_source(const std::string& steps, bool streams) {
  const std::string read =
      streams ? "int n; cin >> n; vector<long long> v(n); for (auto& x : v) cin >> x;"
              : "int n; if (scanf(\"%d\", &n) != 1) return 1; vector<long long> v(n); for (auto& x : "
                "v) if (scanf(\"%lld\", &x) != 1) return 1;";
  const std::string print =
      streams ? "for (auto x : v) cout << x << ' '; cout << endl;" : "for (auto x : v) printf(\"%lld \", x);";
  return cat("#include <algorithm>\n#include <numeric>\n#include <vector>\n#include <",
             streams ? "iostream" : "cstdio", ">\nusing namespace std;\nint main() {\n  ", read, "\n", steps,
             "  ", print, "\n}\n");
}

// The same for the same seed.
inline RightProgram right_program(uint64_t seed, CodeLanguage language) {
  uint64_t draws = 0;
  const auto below = [&](uint64_t n) {
    return static_cast<int64_t>(sha256(cat(seed, " ", draws++))[0]) % static_cast<int64_t>(n);
  };
  std::vector<std::pair<size_t, int64_t>> chosen;
  for (int64_t left = 2 + below(5); left > 0; --left)
    chosen.emplace_back(static_cast<size_t>(below(program_steps().size())), 1 + below(97));
  const bool cpp = language == CodeLanguage::kCpp;
  std::string text;
  for (const auto& [step, number] : chosen)
    text += (cpp ? "  " : "") +
            with_number(cpp ? program_steps()[step].cpp : program_steps()[step].python, number) + "\n";
  RightProgram program{.task = {.language = language}};
  program.source = cpp ? cpp_source(text, below(2) == 0)
                       : "import itertools, math, sys\nv = [int(x) for x in sys.stdin.read().split()][1:]\n" +
                             text + "print(*v)\n";
  for (int test = 0; test < 2; ++test) {
    std::vector<int64_t> numbers(static_cast<size_t>(1 + below(9)));
    for (int64_t& x : numbers) x = below(200) - 100;
    const std::string input = cat(numbers.size(), "\n", spaced(numbers), "\n");
    for (const auto& [step, number] : chosen) program_steps()[step].apply(numbers, number);
    program.task.tests.push_back({input, spaced(numbers)});
  }
  return program;
}

}  // namespace hadal
