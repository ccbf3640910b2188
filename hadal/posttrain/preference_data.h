// Pairs of answers to learn a reward model from: JSONL, one object a line.
//
//   {"prompt": ..., "chosen": ..., "rejected": ..., "margin": 0.5, "domain": "maths"}
//
// prompt (optional), chosen and rejected are texts or lists of messages; the answers carry the reasoning that
// leads to them, as "<think>...</think>" in the text or as reasoning_content of a message. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hadal/tokenizer.h"

namespace hadal {

// What a reward model sees: prompt, reasoning and answer in the chat's format, up to the end of the
// assistant's turn, at which the score is read. Without a format: the texts one after the other, and EOS. No
// text can spell a marker of the format.
std::vector<int32_t> encode_exchange(const Tokenizer& tokenizer, const std::optional<ChatTemplate>& format,
                                     std::span<const ChatMessage> messages);

struct Preference {
  std::vector<int32_t> chosen, rejected;  // encode_exchange()
  double margin = 0;                      // by which the scores are to differ at least
  std::string domain;                     // "": not said
};

struct PreferenceData {
  std::vector<Preference> pairs;
  int64_t dropped = 0;      // pairs with an answer of more than max_tokens
  int64_t longest = 0;      // tokens of the longest one kept
  std::string fingerprint;  // 64 hex digits, of all that is learned from
};

// A text is the user's turn as a prompt, the assistant's as an answer. Throws corrupt or invalid_argument
// "[posttrain.data] FILE line 3: ...": answers that are the same, an answer that does not end with the
// assistant, data for other uses.
PreferenceData read_preferences(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                const std::optional<ChatTemplate>& format, int64_t max_tokens);

}  // namespace hadal
