// Requests of the OpenAI API, read and checked. Torch-free, socket-free.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/sampling.h"
#include "hadal/tokenizer.h"

namespace hadal {

// What one request may ask for at most.
struct RequestCaps {
  int64_t choices = 16;           // n times prompts
  int64_t stops = 16;             // stop strings, each of stop_bytes at most
  size_t stop_bytes = 1024;       //
  int64_t messages = 2048;        //
  int64_t tools = 128;            //
  int64_t logit_bias = 1024;      // entries
  int64_t top_logprobs = 20;      //
  size_t schema_bytes = 1 << 18;  // of a response_format or a tool's parameters
};

// What chat and text completions have in common.
struct GenerationCall {
  std::string model;                  // "": not said
  SamplingParams sampling;            // without its seed
  std::optional<uint64_t> seed;       // none: drawn by the server
  std::optional<int64_t> max_tokens;  // none: what the context has room for
  int64_t n = 1;
  std::vector<std::string> stops;
  bool stream = false, include_usage = false;
  int64_t top_logprobs = -1;  // >= 0: report the chosen token's log probability and this many alternatives
  bool trace = false;         // report each token's experts and whether MTP guessed it
  bool ignore_end = false;
};

enum class ResponseFormat { kText, kJsonObject, kJsonSchema };
enum class ToolChoice { kNone, kAuto, kRequired, kNamed };

struct ToolSpec {
  std::string name, description;
  std::string parameters;  // a JSON schema; "": none given
  bool strict = false;
};

struct ChatCall : GenerationCall {
  std::vector<ChatMessage> messages;
  std::vector<ToolSpec> tools;
  ToolChoice tool_choice = ToolChoice::kAuto;
  std::string tool_name;  // with kNamed
  ResponseFormat format = ResponseFormat::kText;
  std::string schema_name;
  std::string schema;  // JSON text, with kJsonSchema
  std::optional<bool> thinking;
};

struct CompletionCall : GenerationCall {
  std::vector<std::variant<std::string, std::vector<int32_t>>> prompts;
};

// These throw ApiError 400 with the field at fault as its param. A field that no such API knows is refused;
// known ones without a meaning here (user, metadata, ...) are taken and not used.
ChatCall parse_chat_call(const Json& body, const RequestCaps& caps = {});
CompletionCall parse_completion_call(const Json& body, const RequestCaps& caps = {});

struct TokenizeCall {
  std::string model;
  std::string prompt;
  bool add_special_tokens = true;
};
TokenizeCall parse_tokenize_call(const Json& body);

struct DetokenizeCall {
  std::string model;
  std::vector<int32_t> tokens;
};
DetokenizeCall parse_detokenize_call(const Json& body);

}  // namespace hadal
