// Prompts and token ids from files.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "hadal/tokenizer.h"

namespace hadal {

// The UTF-8 text of a file, "-" for stdin. Throws what read_file throws, and invalid_argument naming the
// first byte that is not UTF-8.
std::string read_text(const std::string& path);

// Token ids from a file, "-" for stdin: a line per sequence, ids apart by blanks or commas; or JSON: [1, 2],
// [[1, 2], [3]] or {"ids": [1, 2]}. Empty lines are skipped. Throws corrupt naming line and word,
// invalid_argument if there is no id.
std::vector<std::vector<int32_t>> read_token_ids(const std::string& path);
std::vector<std::vector<int32_t>> parse_token_ids(const std::string& text, const std::string& source);

// Throws invalid_argument naming the first byte that is not UTF-8; `source` names the text.
void require_utf8(const std::string& text, const std::string& source);

// Bytes of text that each id of a model stands for; [vocab_size].
std::vector<int64_t> token_byte_lengths(const Tokenizer& tokenizer, int64_t vocab_size);

}  // namespace hadal
