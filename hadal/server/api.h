// The routes of the server, without sockets: a request in, an answer or a stream out. One thread, that of the
// sockets; the engine's events come to it through deliver().
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/planner.h"
#include "hadal/server/metrics_text.h"
#include "hadal/server/openai_response.h"
#include "hadal/server/page.h"
#include "hadal/server/request_reader.h"
#include "hadal/server/task_queue.h"

namespace hadal {

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

// A request whose answer is not complete.
struct Exchange;

class Api {
 public:
  // `engine` must outlive this.
  Api(ApiConfig config, EngineThread& engine);
  ~Api();

  // From now on bodies are read, and large answers written, by `tasks`; `post` brings what follows back to
  // this thread. Without: all on this thread. The tasks must be stopped before this goes.
  using Post = std::function<void(std::function<void()>)>;
  void work_on(TaskQueue& tasks, Post post) { tasks_ = &tasks, post_ = std::move(post); }

  // Answers now, or begins to: then the exchange is returned, and abandon() ends it if its client leaves.
  std::shared_ptr<Exchange> handle(HttpRequest request, std::shared_ptr<Responder> responder);
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
  struct Route {
    const char* method = nullptr;
    const char* path = nullptr;
    void (Api::*handler)(Responder&) = nullptr;  // or:
    RequestReader::Reading reading = nullptr;    // how its body is read
    bool generates = false;                      // work for the engine comes of it
    bool open = false;                           // without the key
  };
  static const std::vector<Route>& routes();

  void check_key(const HttpRequest& request) const;
  void get_page(Responder& responder);
  void get_health(Responder& responder);
  void get_ready(Responder& responder);
  void get_metrics(Responder& responder);
  void get_models(Responder& responder);
  void get_openapi(Responder& responder);

  std::shared_ptr<Exchange> read(const Route& route, HttpRequest request,
                                 std::shared_ptr<Responder>& responder);
  void refuse_early();
  ApiError queue_full(double retry_seconds);
  void begin(const std::shared_ptr<Exchange>& exchange, ReadRequest read);
  void take(const std::shared_ptr<Exchange>& exchange, size_t choice, JobEvent event);
  void stream_news(Exchange& exchange, AnswerChoice& choice, const ChoiceNews& news);
  void complete(const std::shared_ptr<Exchange>& exchange);
  void respond_whole(const std::shared_ptr<Exchange>& exchange, std::string body);
  void respond_error(Responder& responder, const ApiError& error);
  void fail(const std::shared_ptr<Exchange>& exchange, const ApiError& error);
  void close(const std::shared_ptr<Exchange>& exchange);
  void count_finished(const Exchange& exchange, const AnswerChoice& choice);

  const ApiConfig config_;
  EngineThread& engine_;
  const RequestReader reader_;
  const Page page_;
  const std::string openapi_;
  const ModelSize size_;
  const int64_t started_;  // Unix time
  TaskQueue* tasks_ = nullptr;
  Post post_;
  bool draining_ = false;
  struct JobPlace {
    std::shared_ptr<Exchange> exchange;
    size_t choice;
  };
  std::unordered_map<JobId, JobPlace> jobs_;
  std::unordered_map<Exchange*, std::shared_ptr<Exchange>> exchanges_;
};

}  // namespace hadal
