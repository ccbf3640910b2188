// A model without sense: it draws uniformly from the tokens that a constraint allows.
#pragma once
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>

#include "hadal/base/random.h"
#include "hadal/engine/constraint.h"
#include "hadal/tokenizer/bpe_train.h"

namespace hadal {

struct WalkVocabulary {
  Tokenizer tokenizer;
  std::shared_ptr<const VocabularyTrie> trie;
  int32_t end;
};

inline WalkVocabulary trained_vocabulary(TokenizerKind kind, std::string_view text, int64_t size = 1024) {
  TrainTokenizerOptions options{.kind = kind, .vocab_size = size};
  options.special_tokens.push_back("<｜tool▁calls▁begin｜>");
  options.special_tokens.push_back("<｜tool▁calls▁end｜>");
  const std::string_view texts[] = {text};
  const TrainedTokenizer trained = train_tokenizer(options, texts);
  Tokenizer tokenizer = Tokenizer::parse(trained.tokenizer_json, trained.config_json);
  const int32_t end = tokenizer.eos_id().value();
  auto trie = std::make_shared<VocabularyTrie>(tokenizer, std::vector<int64_t>{end});
  return {std::move(tokenizer), std::move(trie), end};
}

inline bool is_allowed(const ConstraintCursor& cursor, int32_t id) {
  return cursor.allowed().bits[static_cast<size_t>(id / 64)] >> (id % 64) & 1;
}

// The text of a walk, nullopt if it did not end within max_tokens. After half of them it hurries: whatever
// closes something is taken first.
inline std::optional<std::string> walk(const std::shared_ptr<const Constraint>& constraint,
                                       const WalkVocabulary& vocabulary, uint64_t seed, int64_t max_tokens) {
  ConstraintCursor cursor(constraint, vocabulary.trie);
  std::string text;
  for (int64_t i = 0; i < max_tokens; ++i) {
    const bool hurry = i > max_tokens / 2;
    if (hurry && cursor.allowed().ends) return text;
    std::vector<int32_t> choices, closing;
    for (int32_t id = 0; id < vocabulary.tokenizer.vocab_size(); ++id) {
      if (!is_allowed(cursor, id) || cursor.refuses(id)) continue;
      if (id != vocabulary.end && vocabulary.tokenizer.is_added(id)) continue;  // walks are of plain text
      choices.push_back(id);
    }
    if (choices.empty()) {
      EXPECT_TRUE(cursor.allowed().ends) << "a dead end behind " << text;
      return text;
    }
    int32_t id = choices[philox(seed, 1, static_cast<uint64_t>(i))[0] % choices.size()];
    if (hurry)
      for (const std::string mark : {"}", "]", "\"", "0", "null", "n", "true", ":", "["}) {
        const auto found = std::find_if(choices.begin(), choices.end(),
                                        [&](int32_t c) { return vocabulary.trie->bytes(c) == mark; });
        if (found == choices.end()) continue;
        id = *found;
        break;
      }
    if (id == vocabulary.end) return text;
    text += vocabulary.trie->bytes(id);
    cursor.push(id);
  }
  return std::nullopt;
}

}  // namespace hadal
