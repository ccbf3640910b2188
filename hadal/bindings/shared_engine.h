// An engine that several threads ask at the same time; their answers share its steps. Behind the C library
// and the Python module.
#pragma once
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "hadal/engine.h"
#include "hadal/server/engine_thread.h"

namespace hadal {

class AnswerStream;

class SharedEngine : public std::enable_shared_from_this<SharedEngine> {
 public:
  // Throws what Engine::open throws.
  static std::shared_ptr<SharedEngine> open(const std::filesystem::path& folder,
                                            const EngineConfig& config = {});
  explicit SharedEngine(Engine engine);

  // Any thread. The answer begins; its stream keeps the engine alive.
  AnswerStream start(Request request);

  const ModelConfig& model() const { return thread_.model(); }
  int64_t context() const { return thread_.context(); }
  // Throws not_found if the model has none.
  const Tokenizer& tokenizer() const;
  bool has_tokenizer() const { return thread_.tokenizer().has_value(); }

 private:
  friend class AnswerStream;
  struct Inbox {
    std::mutex mutex;
    std::condition_variable news;
    std::deque<JobEvent> events;
  };
  void deliver(std::vector<JobEvent> events);
  void leave(JobId job);

  std::mutex mutex_;
  std::unordered_map<JobId, std::shared_ptr<Inbox>> inboxes_;
  EngineThread thread_;  // last: it ends before what it delivers to
};

// One answer while it comes. One thread at a time.
class AnswerStream {
 public:
  AnswerStream(AnswerStream&&) = default;
  ~AnswerStream();  // ends the answer if it goes on

  // Waits for what is new; nothing after the last. Throws what Engine::submit and Engine::step throw.
  std::optional<Delta> next();
  // So far; after cancel() the reason is kCancelled.
  const Usage& usage() const { return usage_; }
  const std::optional<FinishReason>& reason() const { return reason_; }
  double first_token_seconds() const { return first_token_seconds_; }
  double decode_seconds() const { return decode_seconds_; }
  void cancel();

 private:
  friend class SharedEngine;
  AnswerStream(std::shared_ptr<SharedEngine> engine, JobId job, std::shared_ptr<SharedEngine::Inbox> inbox);

  std::shared_ptr<SharedEngine> engine_;
  JobId job_;
  std::shared_ptr<SharedEngine::Inbox> inbox_;
  Usage usage_;
  std::optional<FinishReason> reason_;
  bool over_ = false;
  double began_ = 0, first_token_seconds_ = 0, decode_seconds_ = 0;
};

}  // namespace hadal
