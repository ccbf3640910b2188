#include "hadal/tokenizer/bpe_train.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/random.h"
#include "hadal/error.h"
#include "hadal/tokenizer.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

constexpr std::string_view kText =
    "low low low low lower lower newest newest newest newest newest newest widest widest widest 中文 中文 é";

TrainedTokenizer train(TokenizerKind kind, int64_t vocab_size = 280, std::string_view text = kText) {
  return train_tokenizer({.kind = kind, .vocab_size = vocab_size}, {&text, 1});
}

Tokenizer loaded(const TrainedTokenizer& trained) {
  return Tokenizer::parse(trained.tokenizer_json, trained.config_json);
}

// The slow way: recount everything after each merge.
std::vector<std::string> merges_by_recounting(std::string_view text, const TrainTokenizerOptions& options,
                                              size_t merges) {
  const Tokenizer bytes =
      loaded(train_tokenizer({.vocab_size = 261, .special_tokens = options.special_tokens}, {&text, 1}));
  std::vector<std::vector<std::string>> words;  // V3 pieces of a text of words and single spaces
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find(' ', at + 1);
    if (end == std::string_view::npos) end = text.size();
    words.emplace_back();
    for (size_t i = at; i < end; ++i) words.back().emplace_back(1, text[i]);
    at = end;
  }
  std::vector<std::string> out;
  std::map<std::string, int64_t> order;  // token -> id
  for (int b = 0; b < 256; ++b) order[std::string(1, static_cast<char>(b))] = b;
  for (size_t m = 0; m < merges; ++m) {
    std::map<std::pair<std::string, std::string>, int64_t> counts;
    for (const auto& word : words)
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    std::pair<std::string, std::string> best;
    int64_t most = 0;
    for (const auto& [pair, count] : counts) {
      const auto rank = [&](const auto& p) { return std::pair(order[p.first], order[p.second]); };
      if (count > most || (count == most && rank(pair) < rank(best))) best = pair, most = count;
    }
    if (most < options.min_pair_count) break;
    order.emplace(best.first + best.second, 256 + static_cast<int64_t>(m));
    out.push_back(best.first + best.second);
    for (auto& word : words)
      for (size_t i = 0; i + 1 < word.size(); ++i)
        if (word[i] == best.first && word[i + 1] == best.second) {
          word[i] += word[i + 1];
          word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
  }
  return out;
}

TEST(TrainTokenizer, IncrementalCountsChooseWhatRecountingChooses) {
  std::string text;  // words of few letters, so that pairs overlap ("aaa") and tie
  for (uint64_t i = 0; i < 400; ++i) {
    if (i) text += ' ';
    for (uint64_t k = 0; k < 1 + philox(3, i, 0)[0] % 7; ++k) text += "abc"[philox(3, i, k + 1)[0] % 3];
  }
  const std::string_view view = text;
  const Tokenizer tokenizer = loaded(train_tokenizer({.vocab_size = 261 + 60}, {&view, 1}));
  const std::vector<std::string> expected = merges_by_recounting(text, {}, 60);
  ASSERT_EQ(tokenizer.vocab_size(), 261 + 60);
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_EQ(tokenizer.token_bytes(261 + static_cast<int32_t>(i)), expected[i]) << i;
}

TEST(TrainTokenizer, AllKindsGiveBackAnyText) {
  for (const TokenizerKind kind : {TokenizerKind::kBpe, TokenizerKind::kByte, TokenizerKind::kChar}) {
    const Tokenizer tokenizer = loaded(train(kind));
    for (const std::string text : {"lowest newer", "unseen 漢字 🚀\r\n\t", "", "e\xCC\x81", "<｜User｜>hi"}) {
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
    }
    EXPECT_EQ(tokenizer.bos_id(), 0);
    EXPECT_EQ(tokenizer.eos_id(), 1);
    EXPECT_EQ(tokenizer.pad_id(), 2);
    EXPECT_EQ(tokenizer.encode("<｜User｜>"), (std::vector<int32_t>{3}));
    EXPECT_EQ(tokenizer.info().missing_bytes, 0);
  }
}

TEST(TrainTokenizer, ByteKindHasOneTokenPerByte) {
  const Tokenizer tokenizer = loaded(train(TokenizerKind::kByte));
  EXPECT_EQ(tokenizer.vocab_size(), 5 + 256);
  EXPECT_EQ(tokenizer.encode("a\xC3\xA9"), (std::vector<int32_t>{5 + 'a', 5 + 0xC3, 5 + 0xA9}));
}

TEST(TrainTokenizer, CharKindHasOneTokenPerCharacterSeen) {
  const Tokenizer tokenizer = loaded(train(TokenizerKind::kChar));
  EXPECT_EQ(tokenizer.encode("中文 é low").size(), 8u);
  EXPECT_EQ(tokenizer.encode("字").size(), 3u);  // not seen: its bytes
}

TEST(TrainTokenizer, VocabularyHasTheSizeAskedForUnlessPairsRunOut) {
  EXPECT_EQ(train(TokenizerKind::kBpe, 270).vocab_size, 270);
  const TrainedTokenizer all = train(TokenizerKind::kBpe, 4000);
  EXPECT_LT(all.vocab_size, 400);
  EXPECT_EQ(loaded(all).vocab_size(), all.vocab_size);
}

TEST(TrainTokenizer, TheSameTextGivesTheSameFile) {
  EXPECT_EQ(train(TokenizerKind::kBpe).tokenizer_json, train(TokenizerKind::kBpe).tokenizer_json);
}

TEST(TrainTokenizer, SplitsAsV3) {
  const Json ours = parse_json(train(TokenizerKind::kBpe).tokenizer_json, "ours");
  const Json v3 = parse_json(read_file(published_tokenizer_file()), "v3");
  EXPECT_EQ(ours["pre_tokenizer"], v3["pre_tokenizer"]);
}

TEST(TrainTokenizer, SpecialTokensAreNeverLearnedFrom) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "<｜User｜>x";
  const TrainedTokenizer trained = train(TokenizerKind::kBpe, 300, text);
  EXPECT_EQ(trained.num_merges, 0);
}

TEST(TrainTokenizer, SavedFilesLoad) {
  const auto folder = std::filesystem::temp_directory_path() / "hadal_train_tokenizer_test";
  save_tokenizer(train(TokenizerKind::kBpe), folder);
  EXPECT_EQ(Tokenizer::load(folder).encode("newest"), loaded(train(TokenizerKind::kBpe)).encode("newest"));
  EXPECT_EQ(Tokenizer::load(folder / "tokenizer.json").eos_id(), 1);
  std::filesystem::remove_all(folder);
}

std::string problem(const TrainTokenizerOptions& options, std::string_view text = "abc") {
  try {
    train_tokenizer(options, {&text, 1});
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "none";
}

TEST(TrainTokenizer, BadOptionsAndTextAreNamed) {
  EXPECT_NE(problem({.vocab_size = 200}).find("vocab_size is 200, need 261"), std::string::npos);
  EXPECT_NE(problem({.bos_token = "<s>"}).find("\"<s>\" is BOS"), std::string::npos);
  EXPECT_NE(problem({.special_tokens = {"<s>", "<s>"}}).find("given twice"), std::string::npos);
  EXPECT_NE(problem({.special_tokens = {"a"}}).find("special token \"a\""), std::string::npos);
  EXPECT_NE(problem({}, "ab\xFF").find("text 0: byte 2"), std::string::npos);
  EXPECT_THROW(parse_tokenizer_kind("word"), Error);
}

}  // namespace
}  // namespace hadal
