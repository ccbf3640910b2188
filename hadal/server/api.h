// The routes of the server, without sockets: a request in, an answer or a stream out. One thread, that of the
// sockets; the engine's events come to it through deliver().
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/server/api_error.h"
#include "hadal/server/engine_thread.h"
#include "hadal/server/metrics_text.h"
#include "hadal/server/openai_request.h"
#include "hadal/server/openai_response.h"
#include "hadal/server/page.h"

namespace hadal {

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // without the query
  std::string authorization, content_type;
  std::string body;
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// Where an answer goes. Either respond() once, or begin_stream(), send()s and end_stream().
class Responder {
 public:
  virtual ~Responder() = default;
  virtual void respond(int status, const std::string& content_type, std::string body,
                       const HttpHeaders& headers = {}) = 0;
  virtual void begin_stream(const std::string& content_type) = 0;
  virtual void send(std::string_view bytes) = 0;
  virtual void end_stream() = 0;
};

struct ApiConfig {
  std::string model;            // its name to clients
  std::string api_key;          // "": none is asked for
  std::string chat_template;    // "": the tokenizer's own
  double deadline_seconds = 0;  // of an answer; 0: none
  RequestCaps caps;
};

// A request whose answer is not complete.
struct Exchange;

class Api {
 public:
  // `engine` must outlive this.
  Api(ApiConfig config, EngineThread& engine);
  ~Api();

  // Answers now, or begins to: then the exchange is returned, and abandon() ends it if its client leaves.
  std::shared_ptr<Exchange> handle(const HttpRequest& request, std::shared_ptr<Responder> responder);
  void abandon(const std::shared_ptr<Exchange>& exchange);
  void abandon_all();

  void deliver(std::vector<JobEvent> events);
  // About once a second: keep-alives of quiet streams, deadlines.
  void tick();
  // Refuses new work from now on.
  void drain();
  size_t num_exchanges() const { return exchanges_.size(); }

  ServerMetrics metrics;

 private:
  using Started = std::shared_ptr<Exchange>;
  using Handler = Started (Api::*)(const HttpRequest&, std::shared_ptr<Responder>&);
  struct Route {
    const char* method;
    const char* path;
    Handler handler;
    bool open;  // without the key
  };
  static const std::vector<Route>& routes();

  void check_key(const HttpRequest& request) const;
  void check_model(const std::string& model) const;
  const Tokenizer& need_tokenizer() const;
  Json body_json(const HttpRequest& request) const;

  Started get_page(const HttpRequest&, std::shared_ptr<Responder>&);
  Started get_health(const HttpRequest&, std::shared_ptr<Responder>&);
  Started get_ready(const HttpRequest&, std::shared_ptr<Responder>&);
  Started get_metrics(const HttpRequest&, std::shared_ptr<Responder>&);
  Started get_models(const HttpRequest&, std::shared_ptr<Responder>&);
  Started get_openapi(const HttpRequest&, std::shared_ptr<Responder>&);
  Started post_tokenize(const HttpRequest&, std::shared_ptr<Responder>&);
  Started post_detokenize(const HttpRequest&, std::shared_ptr<Responder>&);
  Started post_chat(const HttpRequest&, std::shared_ptr<Responder>&);
  Started post_completion(const HttpRequest&, std::shared_ptr<Responder>&);

  std::vector<int32_t> chat_prompt(const ChatCall& call, AnswerFormat& format) const;
  std::vector<int32_t> encode(const std::string& text, const std::string& param) const;
  std::shared_ptr<const Constraint> constraint_of(const ChatCall& call) const;
  Request engine_request(const GenerationCall& call, std::vector<int32_t> prompt,
                         const std::string& param) const;
  Started begin(const GenerationCall& call, bool chat, const AnswerFormat& format,
                std::vector<Request> requests, std::shared_ptr<Responder>& responder);
  void take(const std::shared_ptr<Exchange>& exchange, size_t choice, JobEvent event);
  void stream_news(Exchange& exchange, AnswerChoice& choice, const ChoiceNews& news);
  void complete(const std::shared_ptr<Exchange>& exchange);
  void fail(const std::shared_ptr<Exchange>& exchange, const ApiError& error);
  void close(const std::shared_ptr<Exchange>& exchange);
  void count_finished(const Exchange& exchange, const AnswerChoice& choice);

  ApiConfig config_;
  EngineThread& engine_;
  std::optional<ChatTemplate> chat_;
  std::string chat_problem_;  // why there is none
  size_t longest_token_ = 0;  // bytes
  Page page_;
  std::string openapi_;
  int64_t started_;  // Unix time
  bool draining_ = false;
  struct JobPlace {
    std::shared_ptr<Exchange> exchange;
    size_t choice;
  };
  std::unordered_map<JobId, JobPlace> jobs_;
  std::unordered_map<Exchange*, std::shared_ptr<Exchange>> exchanges_;
};

// The HTTP status for an error of the engine or the tokenizer about a request.
int http_status(ErrorCode code);

}  // namespace hadal
