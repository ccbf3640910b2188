#include "hadal/server/batch.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>

#include "hadal/base/clock.h"
#include "hadal/server/batch_file.h"

namespace hadal {
namespace {

// From the engine's thread to this one.
class EventQueue {
 public:
  void push(std::vector<JobEvent> events) {
    {
      const std::lock_guard lock(mutex_);
      for (JobEvent& event : events) events_.push_back(std::move(event));
    }
    wake_.notify_one();
  }

  // Empty after a tenth of a second without any.
  std::vector<JobEvent> take() {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, std::chrono::milliseconds(100), [&] { return !events_.empty(); });
    return std::exchange(events_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<JobEvent> events_;
};

class BatchRun {
 public:
  BatchRun(BatchInput& input, BatchOutput& output, Api& api, const BatchOptions& options)
      : input_(input), output_(output), api_(api), options_(options) {
    counts_.lines = static_cast<int64_t>(input.size());
    counts_.succeeded = output.succeeded(), counts_.failed = output.failed();
    counts_.earlier = counts_.succeeded + counts_.failed;
  }

  BatchCounts run(EventQueue& events) {
    while (begin_requests() || in_flight_ > 0) {
      if (options_.interrupt && *options_.interrupt) {
        counts_.interrupted = true;
        break;
      }
      if (in_flight_ > 0) api_.deliver(events.take());
      if (now_seconds() - last_tick_ >= 1) api_.tick(), last_tick_ = now_seconds();
      if (options_.progress) options_.progress(counts_);
    }
    over_ = true;  // what is abandoned now has no result
    api_.abandon_all();
    output_.sync();
    if (options_.progress) options_.progress(counts_);
    return counts_;
  }

 private:
  // The answer to one request, to its line.
  class Collector : public Responder {
   public:
    Collector(BatchRun& run, BatchRequest request) : run_(run), request_(std::move(request)) {}
    void respond(int status, const std::string&, std::string body, const HttpHeaders&) override {
      run_.finish(request_, {.status = status, .body = std::move(body)});
    }
    void begin_stream(const std::string&) override {}  // streams are refused before
    void send(std::string_view) override {}
    void end_stream() override {}

   private:
    BatchRun& run_;
    BatchRequest request_;
  };

  // Fills the engine's queue. False: all lines were taken.
  bool begin_requests() {
    for (; next_ < input_.size() && in_flight_ < options_.in_flight; ++next_) {
      if (options_.interrupt && *options_.interrupt) return true;
      if (output_.has(next_)) continue;
      BatchRequest request = input_.read(next_);
      ++in_flight_;
      if (!request.problem.empty()) {
        finish(request, {});
        continue;
      }
      HttpRequest http{.method = "POST", .path = request.url, .content_type = "application/json"};
      http.body = request.body;
      request.body.clear();
      api_.handle(std::move(http), std::make_shared<Collector>(*this, std::move(request)));
    }
    return next_ < input_.size();
  }

  void finish(const BatchRequest& request, const BatchResult& result) {
    if (over_) return;
    --in_flight_;
    output_.append(batch_result_line(request, result));
    ++(result.succeeded() ? counts_.succeeded : counts_.failed);
    if (!result.succeeded()) return;
    const Json body = parse_json(result.body, "a response");
    counts_.prompt_tokens += body["usage"]["prompt_tokens"].get<int64_t>();
    counts_.answer_tokens += body["usage"]["completion_tokens"].get<int64_t>();
  }

  BatchInput& input_;
  BatchOutput& output_;
  Api& api_;
  const BatchOptions& options_;
  BatchCounts counts_;
  size_t next_ = 0;  // line of the input
  int64_t in_flight_ = 0;
  double last_tick_ = 0;
  bool over_ = false;
};

}  // namespace

BatchCounts run_batch(const std::filesystem::path& requests, const std::filesystem::path& results, Api& api,
                      EngineThread& engine, const BatchOptions& options) {
  BatchInput input(requests);
  BatchOutput output(results, input);
  EventQueue events;
  engine.start([&events](std::vector<JobEvent> news) { events.push(std::move(news)); });
  BatchRun run(input, output, api, options);
  // However this ends: no event may find the queue gone, no answer the run.
  struct Stop {
    Api& api;
    EngineThread& engine;
    ~Stop() {
      engine.stop();
      api.abandon_all();
    }
  } stop{api, engine};
  return run.run(events);
}

}  // namespace hadal
