#include "hadal/rewards/math_answer.h"

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/random.h"

namespace hadal {
namespace {

bool right(const std::string& reference, const std::string& answer, AnswerProfile profile) {
  return judge_math(reference, answer, {.profile = profile}) == MathVerdict::kRight;
}

std::vector<Json> cases() {
  std::vector<Json> all;
  const std::string text = read_file("tests/cases/math_answers.jsonl");
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    all.push_back(parse_json(text.substr(begin, end - begin), "tests/cases/math_answers.jsonl"));
    begin = end + 1;
  }
  return all;
}

TEST(MathAnswer, CasesAreJudgedAsTheFileSays) {
  for (const Json& one : cases()) {
    const std::string reference = one["reference"], answer = one["answer"];
    const bool reward = one["reward"];
    EXPECT_EQ(right(reference, answer, AnswerProfile::kReward), reward) << one;
    EXPECT_EQ(right(reference, answer, AnswerProfile::kEvaluation), one.value("evaluation", reward)) << one;
  }
}

TEST(MathAnswer, AnEvaluationAcceptsWhateverARewardAccepts) {
  for (const Json& one : cases()) EXPECT_LE(one["reward"].get<bool>(), one.value("evaluation", true)) << one;
}

TEST(MathAnswer, EveryReadableReferenceEqualsItself) {
  for (const Json& one : cases()) {
    const std::string reference = one["reference"];
    EXPECT_EQ(judge_math(reference, " " + reference + " "), MathVerdict::kRight) << one;
  }
}

TEST(MathAnswer, VerdictsTellWhatFailed) {
  EXPECT_EQ(judge_math("4", "5"), MathVerdict::kWrong);
  EXPECT_EQ(judge_math("4", "\\frac{"), MathVerdict::kUnreadable);
  EXPECT_EQ(judge_math("\\frac{", "4"), MathVerdict::kBadReference);
  EXPECT_EQ(judge_math("", "4"), MathVerdict::kBadReference);
  EXPECT_EQ(judge_math("4", "9^{9^{9^9}}"), MathVerdict::kTooLarge);
  EXPECT_EQ(judge_math("4", std::string(10'000, '4')), MathVerdict::kTooLarge);
}

TEST(MathAnswer, PlacesAndTheTwoAllowancesAreOptions) {
  const auto with = [](const char* reference, const char* answer, MathOptions options) {
    options.profile = AnswerProfile::kEvaluation;
    return judge_math(reference, answer, options) == MathVerdict::kRight;
  };
  EXPECT_TRUE(with("1/3", "0.33", {.places = 2}));
  EXPECT_FALSE(with("1/3", "0.33", {.places = 3}));
  EXPECT_FALSE(with("[-2,7]", "-2<=x<=7", {}));
  EXPECT_TRUE(with("[-2,7]", "-2<=x<=7", {.relation_for_set = true}));
  EXPECT_FALSE(with("x+2y", "a+2b", {}));
  EXPECT_TRUE(with("x+2y", "a+2b", {.any_names = true}));
  EXPECT_FALSE(with("x+2y", "a+2a", {.any_names = true}));
}

// --- texts that want to hang it

// Of this thread, so that a busy machine does not count.
// Of limits on time, where instrumented code is not the program's.
#ifdef __SANITIZE_ADDRESS__
constexpr double kSlowdown = 5;
#else
constexpr double kSlowdown = 1;
#endif

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// `pieces` joined at random; a function of the seed.
std::string babble(const std::vector<std::string>& pieces, uint64_t seed) {
  std::string text;
  const auto length = static_cast<int64_t>(uniform(seed, 1, 0) * 160);
  for (int64_t i = 0; i < length && text.size() < kMaxAnswerBytes - 16; ++i)
    text += pieces[static_cast<size_t>((1 - uniform(seed, 2, static_cast<uint64_t>(i))) *
                                       static_cast<double>(pieces.size()))];
  return text;
}

std::string repeated(const std::string& piece, size_t bytes) {
  std::string text;
  while (text.size() + piece.size() <= bytes) text += piece;
  return text;
}

std::vector<std::string> hostile_texts() {
  std::vector<std::string> pieces = {"{",
                                     "}",
                                     "(",
                                     ")",
                                     "[",
                                     "]",
                                     "\\{",
                                     "\\}",
                                     "|",
                                     "^",
                                     "_",
                                     "!",
                                     "%",
                                     ",",
                                     ";",
                                     "&",
                                     "\\\\",
                                     "\\",
                                     "$",
                                     " ",
                                     "=",
                                     "<",
                                     ">=",
                                     "\\frac",
                                     "\\frac{1}{",
                                     "\\sqrt",
                                     "\\sqrt[3]{",
                                     "\\pm",
                                     "\\cup",
                                     "\\in",
                                     "\\sin",
                                     "\\log_",
                                     "\\infty",
                                     "\\begin{pmatrix}",
                                     "\\end{pmatrix}",
                                     "\\binom{9}{",
                                     "\\sum_{k=0}^{n}",
                                     "\\text{and}",
                                     "\\boxed{",
                                     "e",
                                     "i",
                                     "\\pi",
                                     "x",
                                     "y",
                                     "f(",
                                     "9",
                                     "9^9",
                                     "9^{",
                                     "999999999",
                                     "0",
                                     "0.1",
                                     "1e99",
                                     "\xe2\x88\x92",
                                     "\xf0\x9f\x98\x80",
                                     "\xff",
                                     "+",
                                     "-",
                                     "*",
                                     "/",
                                     ":",
                                     "or",
                                     "cm",
                                     "\\mathbb{R}",
                                     "\\setminus",
                                     "\\lfloor"};
  std::vector<std::string> texts;
  for (const std::string& piece : pieces)
    for (const size_t bytes : {64, 500}) texts.push_back(repeated(piece, bytes));
  for (const char* core :
       {"(",      "{",  "\\{", "[",   "\\sqrt{", "\\frac{1}{1+", "-(",    "f(", "|",   "x^{",
        "\\sin ", "--", "+-",  "9^{", "2^{9999", "((x+1)^2)^{",  "\\pm(", "1!", "x_{", "\\lfloor "})
    for (const char* close : {"", "1", "1}", ")))))))))", "}}}}}}}}}}}}}}}}}}}}"})
      texts.push_back(repeated(core, 400) + close);
  for (const char* text :
       {"9^9^9^9^9^9", "9999999!", "(500!)^{500!}", "\\binom{10^9}{10^8}", "1e400^{1e400}",
        "(1+x)^{1000000007}", "\\sqrt{\\sqrt{\\sqrt{2}}}^{99999}", "\\sin(10^{300})", "2^{2^{2^{2^{2^2}}}}"})
    texts.emplace_back(text);
  for (uint64_t seed = 0; texts.size() < 5'000; ++seed) texts.push_back(babble(pieces, seed));
  return texts;
}

TEST(MathAnswer, NoHostileTextTakesTwentyMilliseconds) {
  const std::vector<std::string> texts = hostile_texts();
  ASSERT_EQ(texts.size(), 5'000U);
  const char* references[] = {"42", "x^2+\\sqrt{x}", "\\{1,2,3\\}", "[0,\\pi)"};
  for (size_t i = 0; i < texts.size(); ++i) {
    const double start = cpu_seconds();
    const std::string& text = texts[i];
    const MathVerdict verdict = judge_math(references[i % 4], text, {.profile = AnswerProfile(i / 4 % 2)});
    double seconds = cpu_seconds() - start;
    if (seconds > 0.02) {  // once more: caches may have been cold
      const double again = cpu_seconds();
      judge_math(references[i % 4], text, {.profile = AnswerProfile(i / 4 % 2)});
      seconds = std::min(seconds, cpu_seconds() - again);
    }
    EXPECT_LE(seconds, 0.02) << text;
    EXPECT_NE(verdict, MathVerdict::kBadReference);
  }
}

TEST(MathAnswer, ListsThatAreLongToCompareEndInTheBudget) {
  for (const auto& [before, after] : std::initializer_list<std::pair<std::string, std::string>>{
           {"x^{.", "}"}, {"(1/7)^{9", "}"}, {"\\sin 7^{", "}"}, {"9^{", "}!"}, {"[1,", ")"}}) {
    std::string reference, answer;  // one item differs, the others come the other way round
    for (int k = 10; reference.size() + before.size() + after.size() + 3 < kMaxAnswerBytes; ++k) {
      const std::string item = before + std::to_string(k) + after;
      reference += item + ",", answer = "," + item + answer;
    }
    reference += "0", answer = "1" + answer;
    const double start = cpu_seconds();
    const MathVerdict verdict = judge_math(reference, answer);
    EXPECT_LE(cpu_seconds() - start, 0.1 * kSlowdown) << answer;  // 10 ms where nobody else uses the caches
    EXPECT_NE(verdict, MathVerdict::kRight) << answer;
    if (before == "x^{.") {
      EXPECT_EQ(verdict, MathVerdict::kTooLarge);
    }
  }
}

TEST(MathAnswer, HostileReferencesEndToo) {
  const std::vector<std::string> texts = hostile_texts();
  for (size_t i = 0; i < texts.size(); i += 5) {
    const double start = cpu_seconds();
    judge_math(texts[i], texts[(i + 1) % texts.size()]);
    judge_math(texts[i], texts[i] + "+0", {.profile = AnswerProfile::kEvaluation});
    EXPECT_LE(cpu_seconds() - start, 0.2) << texts[i];
  }
}

}  // namespace
}  // namespace hadal
