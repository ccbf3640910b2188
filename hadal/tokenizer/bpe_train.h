// Learning a tokenizer from text. The result is a tokenizer.json that both hadal and Hugging Face load, with
// equal ids. Deterministic: same texts and options, same files.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

enum class TokenizerKind {
  kBpe,   // byte-level BPE with the V3 split patterns
  kByte,  // one token per byte, no merges
  kChar,  // one token per character seen; others fall back to bytes
};

struct TrainTokenizerOptions {
  TokenizerKind kind = TokenizerKind::kBpe;
  int64_t vocab_size =
      4096;  // kBpe: special tokens + 256 bytes + merges; fewer if the text runs out of pairs
  int64_t min_pair_count = 2;  // kBpe: a pair seen less often is not merged
  std::vector<std::string> special_tokens = {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
                                             "<｜▁pad▁｜>", "<｜User｜>",
                                             "<｜Assistant｜>"};  // ids 0, 1, ...
  std::string bos_token = "<｜begin▁of▁sentence｜>";              // must be in special_tokens; "" for none
  std::string eos_token = "<｜end▁of▁sentence｜>";
  std::string pad_token = "<｜▁pad▁｜>";
  std::vector<std::string> split_patterns;  // kBpe; empty: the three of V3
};

struct TrainedTokenizer {
  std::string tokenizer_json;
  std::string config_json;  // tokenizer_config.json
  int64_t vocab_size = 0;
  int64_t num_merges = 0;
};

// Texts are UTF-8 and independent of each other (no token spans two). Throws invalid_argument for bad UTF-8,
// naming text and byte, and for options that contradict.
TrainedTokenizer train_tokenizer(const TrainTokenizerOptions& options,
                                 std::span<const std::string_view> texts);

// Writes tokenizer.json and tokenizer_config.json into `folder` (created if missing), each whole or not at
// all.
void save_tokenizer(const TrainedTokenizer& trained, const std::filesystem::path& folder);

// "bpe", "byte", "char". Throws invalid_argument with the list.
TokenizerKind parse_tokenizer_kind(std::string_view name);

}  // namespace hadal
