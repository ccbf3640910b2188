// The thread that owns the engine, and the two queues that join it to the thread of the sockets. Knows no
// JSON.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "hadal/engine.h"
#include "hadal/error.h"
#include "hadal/server/wait_estimate.h"

namespace hadal {

using JobId = uint64_t;

// What happened to a job: a delta, or the error that ended it.
struct JobEvent {
  JobId job = 0;
  Delta delta;
  std::string error;  // not empty: the job is over
  ErrorCode code = ErrorCode::kInternal;
};

struct QueueLimits {
  int64_t requests = 256;    // waiting for their first token
  int64_t tokens = 1 << 18;  // of their prompts
  double seconds = 0;        // that the last of them is expected to wait (wait_estimate.h); 0: any
};

// What became of requests for the queue.
struct Submission {
  std::vector<JobId> jobs;   // none: refused
  double retry_seconds = 0;  // then: when there may be room
};

class EngineThread {
 public:
  // Called on the engine's thread after each step that gave something; must only pass the events on.
  using Deliver = std::function<void(std::vector<JobEvent>)>;

  EngineThread(Engine engine, const QueueLimits& limits);
  ~EngineThread();  // stop()
  EngineThread(const EngineThread&) = delete;

  // Once, before the first submit.
  void start(Deliver deliver);

  // Ends the thread and what runs; no event follows.
  void stop();

  // Any thread, at once: queues a job for each request, or none if they do not all fit. What is larger than
  // the whole queue may wait alone.
  Submission submit(std::vector<Request> requests);
  // Would submit() refuse even the shortest request now? Then after how many seconds to try again.
  std::optional<double> refuses_all() const;
  // Any thread: ends a job before the next step; at most the events of the step in progress follow.
  void cancel(JobId job);

  // A copy that is at most a step old.
  EngineStats stats() const;
  int64_t queued_requests() const;    // without a first token yet
  int64_t jobs() const;               // not ended
  double seconds_since_step() const;  // while there is work; 0 when idle

  // Facts that do not change; any thread.
  const ModelConfig& model() const { return model_; }
  const std::optional<Tokenizer>& tokenizer() const { return tokenizer_; }
  std::shared_ptr<const VocabularyTrie> vocabulary() const { return engine_.vocabulary(); }
  int64_t context() const { return context_; }  // longest prompt and answer together; the cache holds it

 private:
  struct Command {
    JobId job = 0;
    bool cancel = false;
    Request request;
  };
  struct Job {
    int64_t prompt_tokens = 0, max_tokens = 0;
    int64_t generated = 0;
    bool first_token = false;
  };

  std::optional<double> refuses(int64_t requests, int64_t tokens) const;
  void loop();
  bool take_commands(std::vector<Command>& commands);
  void apply(Command& command, std::vector<JobEvent>& events);
  void step(std::vector<JobEvent>& events);
  void fail_all(const Error& error, std::vector<JobEvent>& events);
  void account(const std::vector<JobEvent>& events);
  void measure(const EngineStats& now);

  Engine engine_;
  const ModelConfig model_;
  const std::optional<Tokenizer> tokenizer_;
  const int64_t context_, max_sequences_;
  const QueueLimits limits_;
  Deliver deliver_;

  // Of the engine's thread alone.
  std::unordered_map<JobId, RequestId> request_of_;
  std::unordered_map<RequestId, JobId> job_of_;
  double step_began_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Command> commands_;
  std::unordered_map<JobId, Job> live_;
  int64_t queued_requests_ = 0, queued_tokens_ = 0;
  JobId next_job_ = 1;
  bool stopping_ = false;
  EngineStats stats_;
  WaitEstimate estimate_;
  int64_t slots_;  // answers at a time: fewer than max_sequences_ when the cache is full
  double last_step_ = 0;

  std::thread thread_;
};

}  // namespace hadal
