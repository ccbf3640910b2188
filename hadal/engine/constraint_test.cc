#include "hadal/engine/constraint.h"

#include <gtest/gtest.h>

#include <thread>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "tests/support/constrained_walk.h"
#include "tests/support/error_of.h"

namespace hadal {
namespace {

const WalkVocabulary& bytes() {
  static const WalkVocabulary kBytes = trained_vocabulary(TokenizerKind::kByte, "");
  return kBytes;
}
const WalkVocabulary& pairs() {
  static const WalkVocabulary kPairs =
      trained_vocabulary(TokenizerKind::kBpe, "(()) ((())) ()()() aab (ab) (ab) ((ab))", 300);
  return kPairs;
}

// Brackets, nested, around letters a and b: s = ( s* ) | [ab]
std::shared_ptr<const Constraint> brackets(const ConstraintLimits& limits = {}) {
  Grammar g;
  const Grammar::Rule s = g.add_rule();
  g.add_bytes(g.start(s), 'a', 'b', g.end(s));
  const Grammar::State inside = g.then_literal(g.start(s), "(");
  g.add_call(inside, s, inside);
  g.add_literal(inside, ")", g.end(s));
  return std::make_shared<Constraint>(g, s, limits);
}

bool matches(const std::shared_ptr<const Constraint>& constraint, std::string_view text) {
  ConstraintCursor cursor(constraint, bytes().trie);
  for (const int32_t id : bytes().tokenizer.encode(text, false)) {
    if (!is_allowed(cursor, id)) return false;
    cursor.push(id);
  }
  return cursor.allowed().ends;
}

TEST(Constraint, FollowsNestedRules) {
  const auto c = brackets();
  for (const char* text : {"a", "()", "(a)", "((a)b())", "(((((b)))))"})
    EXPECT_TRUE(matches(c, text)) << text;
  for (const char* text : {"", "c", "(", ")", "(a", "aa", "())", "(a))"})
    EXPECT_FALSE(matches(c, text)) << text;
}

// Along a random answer, each mask against the slow way: each token byte by byte through a cursor of single
// bytes. Returns how many tokens of several bytes were allowed.
int64_t check_masks(const std::shared_ptr<const Constraint>& c, const WalkVocabulary& vocabulary,
                    uint64_t steps) {
  ConstraintCursor cursor(c, vocabulary.trie);
  std::string text;
  int64_t longer = 0;
  for (uint64_t step = 0; step < steps; ++step) {
    std::vector<int32_t> allowed;
    for (int32_t id = 0; id < vocabulary.tokenizer.vocab_size(); ++id) {
      const std::string_view token = vocabulary.trie->bytes(id);
      ConstraintCursor slow(c, bytes().trie);
      bool follows = !token.empty();
      for (const char byte : text + std::string(token)) {
        int32_t one = 0;
        while (bytes().trie->bytes(one) != std::string_view(&byte, 1)) ++one;
        follows = follows && is_allowed(slow, one);
        if (follows) slow.push(one);
      }
      if (id == vocabulary.end) follows = cursor.allowed().ends;
      EXPECT_EQ(is_allowed(cursor, id), follows) << text << " + " << token;
      if (follows && id != vocabulary.end) allowed.push_back(id), longer += token.size() > 1;
    }
    EXPECT_EQ(static_cast<int64_t>(allowed.size()), cursor.allowed().num_tokens);
    if (allowed.empty()) break;
    const int32_t id = allowed[philox(5, 0, step)[0] % allowed.size()];
    text += vocabulary.trie->bytes(id);
    cursor.push(id);
  }
  return longer;
}

TEST(Constraint, AMaskHoldsExactlyTheTokensWhoseBytesFollow) {
  EXPECT_GT(check_masks(brackets(), pairs(), 40), 0);
}

// Any character but controls, quotes and backslashes, and but `without`, leads from one state to the other.
void add_characters(Grammar& g, Grammar::State from, Grammar::State to, const std::string& without) {
  for (int byte = 0x20; byte < 0x80; ++byte)
    if (byte != '"' && byte != '\\' && without.find(static_cast<char>(byte)) == without.npos)
      g.add_bytes(from, static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), to);
  const auto add = [&](uint8_t lead, uint8_t last_lead, uint8_t first, uint8_t last, int more) {
    Grammar::State at = g.state_beside(from);
    g.add_bytes(from, lead, last_lead, at);
    for (; more > 0; --more, first = 0x80, last = 0xBF) {
      const Grammar::State next = more == 1 ? to : g.state_beside(from);
      g.add_bytes(at, first, last, next);
      at = next;
    }
  };
  add(0xC2, 0xDF, 0x80, 0xBF, 1), add(0xE0, 0xE0, 0xA0, 0xBF, 2), add(0xE1, 0xEC, 0x80, 0xBF, 2);
  add(0xED, 0xED, 0x80, 0x9F, 2), add(0xF0, 0xF0, 0x90, 0xBF, 3), add(0xF1, 0xF3, 0x80, 0xBF, 3);
  add(0xEE, 0xEE, 0x80, 0xBF, 2), add(0xF4, 0xF4, 0x80, 0x8F, 3);
  add(0xEF, 0xEF, 0x80, without == "\xEF\xBF" ? 0xBE : 0xBF, 2);
}

std::shared_ptr<const Constraint> quoted(const std::string& without) {
  Grammar g;
  const Grammar::Rule s = g.add_rule();
  const Grammar::State inside = g.then_literal(g.start(s), "\"");
  g.add_literal(inside, "\"", g.end(s));
  add_characters(g, inside, inside, without);
  return std::make_shared<Constraint>(g, s);
}

// As many characters as `count`, whatever they are.
std::shared_ptr<const Constraint> counted(int count) {
  Grammar g;
  const Grammar::Rule s = g.add_rule();
  Grammar::State at = g.start(s);
  for (int i = 0; i < count; ++i) {
    const Grammar::State next = g.state_beside(at);
    add_characters(g, at, next, "");
    at = next;
  }
  g.add_literal(at, "\"", g.end(s));
  return std::make_shared<Constraint>(g, s);
}

TEST(Constraint, WhereAnyTextMayFollowTheMaskIsExactTooAndWhereNearlyAnyMay) {
  const std::string text =
      R"("alte Männer" "老人与海" "a\"b" "🚀🚀 los" "ﾀﾀ \\n" alte Männer, 老人与海 "zz" "az" "zzz", "ﾀﾀﾀ" ﾀﾀ)"
      " ￥￥ ￥￥ ================ ==================";
  const WalkVocabulary vocabulary = trained_vocabulary(TokenizerKind::kBpe, cat(text, text, text), 340);
  EXPECT_GT(vocabulary.trie->num_plain(), 100);
  EXPECT_FALSE(vocabulary.trie->nodes_of_others().empty());
  for (const char* without : {"", "z", "\xEF\xBF"}) EXPECT_GT(check_masks(quoted(without), vocabulary, 8), 0);
  for (const int count : {1, 15, 16, 18}) check_masks(counted(count), vocabulary, 3);
}

TEST(Constraint, DepthEndsInAWayOutNotInADeadEnd) {
  ConstraintLimits limits;
  limits.max_depth = 3;
  const auto c = brackets(limits);
  EXPECT_TRUE(matches(c, "(((a)))"));
  EXPECT_FALSE(matches(c, "((((a))))"));
  for (uint64_t seed = 0; seed < 50; ++seed) EXPECT_TRUE(walk(c, pairs(), seed, 400).has_value());
}

TEST(Constraint, SmallTablesGiveTheSameMasks) {
  ConstraintLimits limits;
  limits.max_states = 3, limits.max_masks = 1;
  const auto large = brackets(), small = brackets(limits);
  for (uint64_t seed = 0; seed < 30; ++seed)
    EXPECT_EQ(walk(large, pairs(), seed, 200), walk(small, pairs(), seed, 200));
}

TEST(Constraint, TooManyWaysLoseSomeAndNeverAll) {
  // Every bracket may be one of two rules that look the same: ways double with each.
  Grammar g;
  const Grammar::Rule s = g.add_rule(), twin = g.add_rule();
  g.add_bytes(g.start(s), 'a', 'b', g.end(s));
  for (const Grammar::Rule inner : {s, twin})
    g.add_literal(g.then_call(g.then_literal(g.start(s), "("), inner), ")", g.end(s));
  g.add_call(g.start(twin), s, g.end(twin));
  ConstraintLimits limits;
  limits.max_ways = 16;
  const auto c = std::make_shared<Constraint>(g, s, limits);
  EXPECT_TRUE(matches(c, std::string(20, '(') + "a" + std::string(20, ')')));
}

TEST(Constraint, ThreadsShareOne) {
  const auto c = brackets();
  std::vector<std::optional<std::string>> want(8), got(8);
  for (uint64_t i = 0; i < 8; ++i) want[i] = walk(brackets(), pairs(), i, 200);
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 8; ++i) threads.emplace_back([&, i] { got[i] = walk(c, pairs(), i, 200); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(got, want);
}

TEST(Constraint, AddedTokensAreMatchedAsThemselvesAlone) {
  Grammar g;
  const Grammar::Rule s = g.add_rule();
  const std::string mark = "<｜tool▁calls▁begin｜>";
  g.add_empty(g.then_markup(g.start(s), "a" + mark + "b", pairs().tokenizer), g.end(s));
  const auto c = std::make_shared<Constraint>(g, s);
  ConstraintCursor cursor(c, pairs().trie);
  cursor.push(pairs().tokenizer.encode("a")[0]);
  const int32_t id = *pairs().tokenizer.token_to_id(mark);
  EXPECT_EQ(cursor.allowed().num_tokens, 1);
  EXPECT_TRUE(is_allowed(cursor, id));
  cursor.push(id);
  EXPECT_FALSE(cursor.allowed().ends);
  cursor.push(pairs().tokenizer.encode("b")[0]);
  EXPECT_TRUE(cursor.allowed().ends);

  Grammar foreign;
  const Grammar::Rule root = foreign.add_rule();
  foreign.add_token(foreign.start(root), "<|elsewhere|>", foreign.end(root));
  const auto unknown = std::make_shared<Constraint>(foreign, root);
  EXPECT_NE(error_of([&] { ConstraintCursor(unknown, pairs().trie); }).find("<|elsewhere|>"),
            std::string::npos);
}

TEST(Constraint, RefusesWhatNeverBeginsOrNeverEnds) {
  Grammar left;
  const Grammar::Rule a = left.add_rule(), nothing = left.add_rule();
  left.add_empty(left.start(nothing), left.end(nothing));
  left.add_literal(left.then_call(left.then_call(left.start(a), nothing), a), "x", left.end(a));
  EXPECT_EQ(left.left_recursive_rule(), a);
  EXPECT_NE(error_of([&] { Constraint(left, a); }).find("calls itself"), std::string::npos);

  Grammar endless;
  const Grammar::Rule b = endless.add_rule();
  endless.add_call(endless.then_literal(endless.start(b), "x"), b, endless.end(b));
  EXPECT_NE(error_of([&] { Constraint(endless, b); }).find("no finite text"), std::string::npos);

  GrammarLimits limits;
  limits.states = 10;
  Grammar small(limits);
  const Grammar::Rule c = small.add_rule();
  EXPECT_NE(error_of([&] { small.then_literal(small.start(c), "more than ten"); }).find("states"),
            std::string::npos);
}

TEST(Constraint, AVocabularyWithoutTheBytesIsRefusedAtTheStart) {
  const Tokenizer letters = Tokenizer::parse(
      R"({"version":"1.0","model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]},"added_tokens":[],
      "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false},
      "decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}})");
  const auto trie = std::make_shared<VocabularyTrie>(letters, std::vector<int64_t>{});
  Grammar g;
  const Grammar::Rule s = g.add_rule();
  g.add_literal(g.start(s), "x", g.end(s));
  const auto c = std::make_shared<Constraint>(g, s);
  EXPECT_NE(error_of([&] { ConstraintCursor(c, trie); }).find("no token of this vocabulary"),
            std::string::npos);
  // Later, it is a mask without tokens.
  Grammar h;
  const Grammar::Rule t = h.add_rule();
  h.add_literal(h.start(t), "ax", h.end(t));
  ConstraintCursor cursor(std::make_shared<Constraint>(h, t), trie);
  cursor.push(0);
  EXPECT_EQ(cursor.allowed().num_tokens, 0);
  EXPECT_FALSE(cursor.allowed().ends);
}

}  // namespace
}  // namespace hadal
