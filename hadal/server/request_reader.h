// From the body of a request to what the engine is asked: JSON, chat formats, tokens, schemas. Takes time in
// proportion to the body. Socket-free; any thread, several at once.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/server/answer_parser.h"
#include "hadal/server/api_error.h"
#include "hadal/server/engine_thread.h"
#include "hadal/server/openai_request.h"

namespace hadal {

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // without the query
  std::string authorization, content_type;
  std::string body;
};

struct ApiConfig {
  std::string model;               // its name to clients
  std::string api_key;             // "": none is asked for
  std::string chat_template;       // "": the tokenizer's own
  double deadline_seconds = 0;     // of an answer; 0: none
  double keep_alive_seconds = 10;  // of silence in a stream, until a comment says that it goes on
  RequestCaps caps;
};

// One of: an error; a reply (JSON, status 200); what the engine is to answer.
struct ReadRequest {
  std::optional<ApiError> error;
  std::string reply;
  GenerationCall call;
  AnswerFormat format;
  std::vector<Request> requests;  // without seeds; call.n for each prompt
};

class RequestReader {
 public:
  // Both must outlive this. Throws for a chat template without that name.
  RequestReader(const ApiConfig& config, const EngineThread& engine);

  using Reading = void (RequestReader::*)(const Json& body, ReadRequest& out) const;
  ReadRequest read(Reading what, const HttpRequest& request) const;
  void chat(const Json& body, ReadRequest& out) const;
  void completion(const Json& body, ReadRequest& out) const;
  void tokenize(const Json& body, ReadRequest& out) const;
  void detokenize(const Json& body, ReadRequest& out) const;

  const std::optional<ChatTemplate>& chat_template() const { return chat_; }

 private:
  void check_model(const std::string& model) const;
  const Tokenizer& need_tokenizer() const;
  Json body_json(const HttpRequest& request) const;
  std::vector<int32_t> chat_prompt(const ChatCall& call, AnswerFormat& format) const;
  std::vector<int32_t> encode(const std::string& text, const std::string& param) const;
  std::shared_ptr<const Constraint> constraint_of(const ChatCall& call) const;
  Request engine_request(const GenerationCall& call, std::vector<int32_t> prompt,
                         const std::string& param) const;

  const ApiConfig& config_;
  const EngineThread& engine_;
  std::optional<ChatTemplate> chat_;
  std::string chat_problem_;  // why there is none
  size_t longest_token_ = 0;  // bytes
};

// The HTTP status for an error of the engine or the tokenizer about a request.
int http_status(ErrorCode code);

}  // namespace hadal
