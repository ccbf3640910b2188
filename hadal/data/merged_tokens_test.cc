#include "hadal/data/merged_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "hadal/tokenizer/bpe_train.h"

namespace hadal {
namespace {

// Learned from lines that end in a full stop, one or two line breaks after it.
Tokenizer tokenizer_of_lines() {
  std::string text;
  for (int i = 0; i < 50; ++i) text += i % 3 ? "one two three.\n" : "four five!)\r\n\n";
  const std::vector<std::string_view> texts = {text};
  const TrainedTokenizer made = train_tokenizer({.vocab_size = 300}, texts);
  return Tokenizer::parse(made.tokenizer_json, made.config_json);
}

std::string lines(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += "one three.\n";
  return text;
}

TEST(MergedTokens, AreTokensOfPunctuationAndTheLineBreaksAfterIt) {
  const Tokenizer tokenizer = tokenizer_of_lines();
  const MergedTokens merged(tokenizer);
  EXPECT_GE(merged.size(), 2);
  const auto split = [&](const std::string& text) {
    return merged.split(tokenizer.encode(text, false), 1, 1, 0);
  };
  const auto whole = tokenizer.encode(".\n", false);
  ASSERT_EQ(whole.size(), 1u);
  EXPECT_EQ(split(".\n"),
            (std::vector<int32_t>{tokenizer.encode(".", false)[0], tokenizer.encode("\n", false)[0]}));
  EXPECT_EQ(split("one two\n\n"), tokenizer.encode("one two\n\n", false));
  EXPECT_GT(split("four five!)\r\n\n").size(), tokenizer.encode("four five!)\r\n\n", false).size());
}

TEST(MergedTokens, SplitLeavesTheTextAsItIs) {
  const Tokenizer tokenizer = tokenizer_of_lines();
  const MergedTokens merged(tokenizer);
  const std::string text = lines(100) + "four five!)\r\n\n. \n!\n";
  const auto ids = tokenizer.encode(text, false);
  for (const double rate : {0.1, 0.5, 1.0}) {
    const auto split = merged.split(ids, rate, 3, 7);
    EXPECT_GT(split.size(), ids.size());
    EXPECT_EQ(tokenizer.decode(split), text);
  }
  EXPECT_EQ(merged.split(ids, 0, 3, 7), ids);
}

// 5 standard deviations either way: a false alarm in two million.
TEST(MergedTokens, AreSplitAtTheRate) {
  const Tokenizer tokenizer = tokenizer_of_lines();
  const MergedTokens merged(tokenizer);
  const int n = 20'000;
  const auto ids = tokenizer.encode(lines(n), false);
  for (const double rate : {0.1, 0.6}) {
    const auto more = static_cast<double>(merged.split(ids, rate, 1, 0).size() - ids.size());
    EXPECT_NEAR(more, rate * n, 5 * std::sqrt(n * rate * (1 - rate)));
  }
}

TEST(MergedTokens, SplitIsAFunctionOfSeedAndDocument) {
  const Tokenizer tokenizer = tokenizer_of_lines();
  const MergedTokens merged(tokenizer);
  const auto ids = tokenizer.encode(lines(60), false);
  const auto split = merged.split(ids, 0.5, 1, 0);
  EXPECT_EQ(split, MergedTokens(tokenizer).split(ids, 0.5, 1, 0));
  EXPECT_NE(split, merged.split(ids, 0.5, 2, 0));
  EXPECT_NE(split, merged.split(ids, 0.5, 1, 1));
}

}  // namespace
}  // namespace hadal
