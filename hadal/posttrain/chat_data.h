// Chats and answers to learn from: JSONL in the forms that users of TRL have, one object a line.
//
//   {"messages": [{"role": ..., "content": ...}, ...]}     a conversation; the assistant's turns are learned
//   {"prompt": ..., "completion": ...}                     texts or lists of messages; the completion is
//   learned
//   {"text": ...}                                          all of it is learned
//   {"prompt": ..., "responses": [...], "critique": ...}   judged answers (judgement.h); the critique is
//   learned
//   {"instruction": ..., "input": ..., "output": ...}      read as prompt and completion
//
// Other keys are ignored. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "hadal/tokenizer.h"

namespace hadal {

struct ChatData {
  std::vector<TrainedTokens> samples;  // each at most max_tokens long, with at least one trained token
  int64_t cut = 0;                     // samples that were longer: their end is gone
  int64_t dropped = 0;                 // samples of which nothing trained was left
  int64_t tokens = 0, trained_tokens = 0;
  std::string fingerprint;  // 64 hex digits, of all ids and what is trained
};

// Messages are rendered by `format`; texts are encoded as they are, their special tokens recognised, and an
// EOS ends them. Reasoning stays. Throws corrupt or invalid_argument "[posttrain.data] FILE line 3: ...":
// lines of different kinds, no assistant's turn, an empty prompt, data for other uses.
ChatData read_chat_data(const std::filesystem::path& file, const Tokenizer& tokenizer,
                        const std::optional<ChatTemplate>& format, int64_t max_tokens);

// The model's chat format: `name` ("none": none), else the tokenizer's own, if it has one.
std::optional<ChatTemplate> chat_format(const Tokenizer& tokenizer, const std::string& name);

}  // namespace hadal
