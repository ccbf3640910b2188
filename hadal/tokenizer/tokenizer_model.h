// A tokenizer.json, understood: what Tokenizer shares between copies.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/tokenizer/added_tokens.h"
#include "hadal/tokenizer/bpe.h"
#include "hadal/tokenizer/pre_tokenizer.h"
#include "hadal/tokenizer/vocabulary.h"

namespace hadal {

struct TokenizerModel {
  Vocabulary vocabulary;  // model.vocab and added tokens
  int64_t num_base_tokens = 0;
  int64_t num_merges = 0;
  MergeTable merges;
  std::array<int32_t, 256> byte_ids{};  // -1: none
  bool ignore_merges = false;           // a piece that is a token stays whole, whatever the merges say
  AddedTokens added;
  std::vector<bool> special, is_added;  // by id
  PreTokenizer pre_tokenizer;
  std::vector<int32_t> prompt_prefix, prompt_suffix;  // what post_processor puts around a text

  std::optional<int32_t> bos_id, eos_id, pad_id;  // tokenizer_config.json
  std::optional<bool> add_bos, add_eos;           // if it says so, it overrules post_processor
  std::string chat_template;

  void encode(std::string_view text, bool parse_special, std::vector<int32_t>& out) const;
};

// Both throw as Tokenizer::load; `source` names the file in errors. `slack`: bytes after the text that may be
// read (their values do not matter); with enough of them the text is parsed in place.
void read_tokenizer_json(std::string_view text, std::string_view source, TokenizerModel& model,
                         size_t slack = 0);
void read_tokenizer_config(std::string_view text, std::string_view source, TokenizerModel& model);

}  // namespace hadal
