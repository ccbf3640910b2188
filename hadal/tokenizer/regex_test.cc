#include "hadal/tokenizer/regex.h"

#include <gtest/gtest.h>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tokenizer/pre_tokenizer.h"

namespace hadal {
namespace {

// The matches joined by '|'.
std::string matches(std::string_view pattern, std::string_view text) {
  std::vector<Regex::Match> found;
  Regex::compile(pattern, "test").find_all(text, found);
  std::string out;
  for (const auto& match : found)
    out += cat(out.empty() ? "" : "|", text.substr(match.begin, match.end - match.begin));
  return out;
}

TEST(Regex, FirstAlternativeWinsOverTheLongest) {
  EXPECT_EQ(matches("a|ab", "ab"), "a");
  EXPECT_EQ(matches("(?:a|ab)(?:c|bcd)?", "abcd"), "abcd");
  EXPECT_EQ(matches("(?:a|ab)c", "abc"), "abc");  // after backtracking
}

TEST(Regex, CountsAreGreedyAndBounded) {
  EXPECT_EQ(matches(R"(\p{N}{1,3})", "1234567x89"), "123|456|7|89");
  EXPECT_EQ(matches("a{2}", "aaaaa"), "aa|aa");
  EXPECT_EQ(matches("a{2,}b?", "aab aaa ab"), "aab|aaa");
  EXPECT_EQ(matches("a{,2}b", "aaab"), "aab");
  EXPECT_EQ(matches("(?:(?:ab)*c)*d", "ababcabcd"), "ababcabcd");
}

TEST(Regex, LoopsGiveBackForWhatFollows) {
  EXPECT_EQ(matches(R"(\s+(?!\S)|\s+)", "a   b"), "  | ");
  EXPECT_EQ(matches(R"(\s*[\r\n]+)", " \n  \r\n x"), " \n  \r\n");
  EXPECT_EQ(matches(".+b", "aabab\nab"), "aabab|ab");
}

TEST(Regex, LookaheadSeesButDoesNotTake) {
  EXPECT_EQ(matches("a(?=b|cd)", "ab acd ace"), "a|a");
  EXPECT_EQ(matches("a(?!b)", "ab ac a"), "a|a");
}

TEST(Regex, LineAnchorsHoldAtEveryLine) {
  EXPECT_EQ(matches("^a|b$", "ab\nab"), "a|b|a|b");
  EXPECT_EQ(matches(R"(\s+$)", "a  b  "), "  ");
}

TEST(Regex, ClassesMixRangesCategoriesAndNegation) {
  EXPECT_EQ(matches(R"([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)", "x\xC2\xA0y,z\ne\xCC\x81"),
            "x|\xC2\xA0y|z|e\xCC\x81");
  EXPECT_EQ(matches(R"([^\s\p{Lu}]+)", "abCd E"), "ab|d");
  EXPECT_EQ(matches(R"([\]a\-]+)", "b]a-c"), "]a-");
  EXPECT_EQ(matches(R"(\P{L}+)", "ab12c"), "12");
  EXPECT_EQ(matches(R"(\p{^L}+)", "ab12c"), "12");
  EXPECT_EQ(matches(R"([一-三])", "一丁万二"), "一|丁|万");
}

TEST(Regex, CaseIsIgnoredOnlyInsideItsGroup) {
  EXPECT_EQ(matches("(?i:'re|k)R", "'reR 'RER 'rEr KR"), "'reR|'RER|KR");
  EXPECT_EQ(matches("(?i:s)", "sS\xC5\xBF"), "s|S|\xC5\xBF");  // long s folds to s
}

TEST(Regex, EscapesNameCharacters) {
  EXPECT_EQ(matches(R"(\x41\u4e2d\x{1F600}\.)", "A中😀."), "A中😀.");
  EXPECT_EQ(matches(R"([\t\v\f]+)", "a\t\v\fb"), "\t\v\f");
}

TEST(Regex, EmptyMatchesAreReportedOnceAndNeverRightAfterAMatch) {
  std::vector<Regex::Match> found;
  Regex::compile("a*", "test").find_all("baac", found);
  ASSERT_EQ(found.size(), 3u);  // before b, "aa", at the end; not between aa and c
  EXPECT_EQ(found[0].begin, found[0].end);
  EXPECT_EQ(found[1].end, 3u);
  EXPECT_EQ(found[2].begin, 4u);
}

std::string problem(std::string_view pattern, ErrorCode code) {
  try {
    Regex::compile(pattern, "some.field");
  } catch (const Error& e) {
    return e.code() == code ? e.what() : cat("other code: ", e.what());
  }
  return "none";
}

TEST(Regex, UnknownConstructsAreRefusedByName) {
  for (const char* pattern : {"a+?",          "a++",     "a**",     "(?<=a)b", "(?<n>a)",
                              "(?>a)",        R"(\1)",   R"(\bx)",  "[a[b]]",  "[a&&b]",
                              R"(\p{Greek})", "a{x}",    "(?:a*)*", "(?=a+)",  R"((?i:\p{L}))",
                              "(?i:é)",       "(?i:ss)", R"(\xff)", "a{2000}", "(?:a{1000}){1000}"}) {
    const std::string text = problem(pattern, ErrorCode::kUnsupported);
    EXPECT_NE(text.find("some.field"), std::string::npos) << pattern << " gave " << text;
  }
  EXPECT_NE(problem("x(?<=a)", ErrorCode::kUnsupported).find("the group (?<"), std::string::npos);
}

TEST(Regex, BrokenPatternsAreCorrupt) {
  for (const char* pattern : {"(a", "a)", "[a", "*a", "|+", R"(\)", R"(\p{L)", "a{3,2}", "[b-a]",
                              R"(\x{110000})", R"(\x{D800})", "\xFF", R"(\u12)"}) {
    const std::string text = problem(pattern, ErrorCode::kCorrupt);
    EXPECT_NE(text.find("some.field"), std::string::npos) << pattern << " gave " << text;
  }
}

TEST(Regex, DeepNestingIsRefusedNotOverflowed) {
  EXPECT_NE(problem(std::string(100000, '('), ErrorCode::kUnsupported).find("nested"), std::string::npos);
}

// Work is counted, not timed: characters looked at, instructions run.
uint64_t work(const Regex& regex, const std::string& text) {
  std::vector<Regex::Match> found;
  uint64_t steps = 0;
  regex.find_all(text, found, &steps);
  return steps;
}

std::string repeat(std::string_view unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

TEST(Regex, HostileTextCostsLinearWork) {
  const char* kPatterns[] = {
      R"(\s+$)",          // V2: each white space would scan the rest of its run
      R"(\s*[\r\n]+|x)",  //
      "(?:a+)+b",         // exponential for plain backtracking
      "(?:a|a)*b",        //
      "(?:a|ab|b)*c",     //
      "a*a*a*b",          //
      "(?:a?){20}a{20}b", kByteLevelPattern,
  };
  constexpr size_t kBytes = 200'000;
  for (const char* pattern : kPatterns) {
    const Regex regex = Regex::compile(pattern, "test");
    for (const char* unit : {"a", " ", "!", "\xCC\x81", "ab", " \n", "\xE3\x80\x80"}) {
      const std::string text = repeat(unit, kBytes) + "x";
      // At most the budget, and once each of the < 64 choice points at each position, a few steps apiece.
      EXPECT_LT(work(regex, text), 300 * text.size()) << pattern << " on " << unit;
    }
  }
}

TEST(Regex, MatchesStayTheSameWhenTheWorkIsRemembered) {
  // The budget of a short text is never reached; the long one holds the short one's cases after a hostile
  // head.
  const std::string head = repeat(" ", 100'000) + "x";
  for (const char* pattern : {R"(\s+$|\w+)", R"(\s*[\r\n]+|\s+(?!\S)|\s+|\w+)"}) {
    const std::string tail = "ab  cd \n\n e  \nf   ";
    const std::string alone = matches(pattern, tail), after = matches(pattern, head + tail);
    ASSERT_GE(after.size(), alone.size());
    EXPECT_EQ(after.substr(after.size() - alone.size() + 2), alone.substr(2))
        << pattern;  // "xab" is one word now
  }
}

TEST(Regex, AMatchEndsWithoutPoisoningTheNext) {
  // After "dede" the second branch matches nothing before c, so c is passed over. Were the end state of
  // "dede" remembered as failed, the third branch would take c.
  const Regex regex = Regex::compile("(?:a|a)*b|(?:de)*(?!x)|c", "test");
  const std::string head = repeat("a", 30'000);  // makes the engine remember
  std::vector<Regex::Match> found;
  regex.find_all(head + "dedecde", found);
  std::erase_if(found, [](const auto& match) { return match.begin == match.end; });
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].end - found[0].begin, 4u);
  EXPECT_EQ(found[1].begin, head.size() + 5);
}

}  // namespace
}  // namespace hadal
