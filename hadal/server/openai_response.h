// Answers in the forms of the OpenAI API. Socket-free.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/engine.h"
#include "hadal/server/answer_parser.h"
#include "hadal/server/openai_request.h"

namespace hadal {

// One answer of a request (of n, or of several prompts) while it arrives.
struct AnswerChoice {
  int64_t index = 0;
  bool first_of_prompt = true;  // the prompt's tokens count once for all answers to it
  AnswerParser parser{AnswerFormat{}};
  bool began = false;  // its first chunk was sent
  std::string content, reasoning;
  std::vector<AnswerPiece> calls;
  std::vector<NewToken> tokens;          // with logprobs or trace only
  std::vector<bool> token_in_reasoning;  //
  size_t text_offset = 0;                // of the next token, for logprobs of text completions
  std::optional<FinishReason> finished;
  Usage usage;
};

// The facts of a response that all its chunks share.
struct ResponseHead {
  std::string id;  // "chatcmpl-..." or "cmpl-..."
  std::string model;
  int64_t created = 0;  // Unix time
  bool chat = true;
  bool logprobs = false, trace = false, include_usage = false;
  int64_t experts_per_token = 0;
};

// What a delta adds to a choice.
struct ChoiceNews {
  std::vector<AnswerPiece> pieces;
  size_t first_token = 0;  // of choice.tokens
};

// "stop", "length" or "tool_calls".
const char* openai_finish_reason(const AnswerChoice& choice);

// Whole, from choices that have all finished.
std::string response_json(const ResponseHead& head, const std::vector<AnswerChoice>& choices,
                          const Tokenizer* tokenizer);

// Chunks of a stream. "" if there is nothing to say.
std::string begin_chunk_json(const ResponseHead& head, const AnswerChoice& choice);
std::string delta_chunk_json(const ResponseHead& head, AnswerChoice& choice, const ChoiceNews& news,
                             const Tokenizer* tokenizer);
std::string end_chunk_json(const ResponseHead& head, const AnswerChoice& choice);
std::string usage_chunk_json(const ResponseHead& head, const std::vector<AnswerChoice>& choices);

}  // namespace hadal
