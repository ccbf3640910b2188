// An Api without sockets, over the small model, driven by hand.
#pragma once
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "hadal/base/clock.h"
#include "hadal/base/text.h"
#include "hadal/server/api.h"
#include "tests/support/server_model.h"

namespace hadal {

// Keeps what is answered.
class Kept : public Responder {
 public:
  int status = 0;
  std::string type, body;
  HttpHeaders headers;
  bool streaming = false, over = false;

  void respond(int code, const std::string& content_type, std::string text,
               const HttpHeaders& more) override {
    EXPECT_FALSE(over) << "answered twice";
    status = code, type = content_type, body = std::move(text), headers = more, over = true;
  }
  void begin_stream(const std::string& content_type) override {
    status = 200, type = content_type, streaming = true;
  }
  void send(std::string_view bytes) override {
    EXPECT_TRUE(streaming && !over);
    body += bytes;
  }
  void end_stream() override { over = true; }

  Json json() const { return parse_json(body, "answer"); }
  std::string header(const std::string& name) const {
    for (const auto& [key, value] : headers)
      if (key == name) return value;
    return "";
  }
  // The stream's events; the last, "[DONE]", is checked and left out.
  std::vector<Json> events() const {
    std::vector<Json> out;
    size_t at = 0;
    bool done = false;
    while (at < body.size()) {
      const size_t end = body.find("\n\n", at);
      const std::string event = body.substr(at, end - at);
      at = end + 2;
      if (event.starts_with(":")) continue;
      EXPECT_TRUE(event.starts_with("data: ")) << event;
      EXPECT_FALSE(done);
      if (event == "data: [DONE]")
        done = true;
      else
        out.push_back(parse_json(event.substr(6), "event"));
    }
    EXPECT_TRUE(done);
    return out;
  }
};

// An Api and its engine, driven by hand: pump() passes on what the engine's thread gave.
class Served {
 public:
  explicit Served(ApiConfig config = {}, const QueueLimits& limits = {}, bool start = true)
      : engine(small_engine(), limits), api(named(std::move(config)), engine) {
    if (start)
      engine.start([this](std::vector<JobEvent> events) {
        const std::lock_guard lock(mutex_);
        for (JobEvent& event : events) events_.push_back(std::move(event));
        news_.notify_one();
      });
  }
  ~Served() {
    engine.stop();
    if (tasks_) tasks_->stop();
    api.abandon_all();
  }

  EngineThread engine;
  Api api;

  std::pair<std::shared_ptr<Kept>, std::shared_ptr<Exchange>> begin(const std::string& path, const Json& body,
                                                                    const std::string& key = "") {
    auto kept = std::make_shared<Kept>();
    HttpRequest request{
        .method = "POST", .path = path, .content_type = "application/json", .body = body.dump()};
    if (!key.empty()) request.authorization = key;
    return {kept, api.handle(std::move(request), kept)};
  }
  std::shared_ptr<Kept> post(const std::string& path, const Json& body, const std::string& key = "") {
    auto kept = begin(path, body, key).first;
    finish({kept});
    return kept;
  }
  std::shared_ptr<Kept> get(const std::string& path, const std::string& method = "GET") {
    auto kept = std::make_shared<Kept>();
    api.handle({.method = method, .path = path}, kept);
    return kept;
  }

  // From now on bodies are read by `tasks`; pump() does what comes back.
  void work_on(TaskQueue& tasks) {
    tasks_ = &tasks;
    api.work_on(tasks, [this](std::function<void()> work) {
      const std::lock_guard lock(mutex_);
      posted_.push_back(std::move(work));
      news_.notify_one();
    });
  }

  void pump() {
    std::unique_lock lock(mutex_);
    news_.wait_for(lock, std::chrono::milliseconds(100),
                   [&] { return !events_.empty() || !posted_.empty(); });
    std::vector<JobEvent> events = std::exchange(events_, {});
    const std::vector<std::function<void()>> posted = std::exchange(posted_, {});
    lock.unlock();
    for (const auto& work : posted) work();
    api.deliver(std::move(events));
  }
  void finish(const std::vector<std::shared_ptr<Kept>>& all) {
    const double give_up = now_seconds() + 120;
    for (const auto& kept : all)
      while (!kept->over && now_seconds() < give_up) pump();
    for (const auto& kept : all) ASSERT_TRUE(kept->over);
  }
  void wait_until_idle() {
    const double give_up = now_seconds() + 60;
    while ((engine.jobs() > 0 || engine.stats().pages_used > 0) && now_seconds() < give_up) pump();
  }

 private:
  static ApiConfig named(ApiConfig config) {
    config.model = "tiny", config.chat_template = "v3";
    return config;
  }
  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<JobEvent> events_;
  std::vector<std::function<void()>> posted_;
  TaskQueue* tasks_ = nullptr;
};

inline Json ask(const std::string& text, int64_t max_tokens = 12) {
  return Json{{"messages", {{{"role", "user"}, {"content", text}}}}, {"max_tokens", max_tokens}};
}

inline std::string content(const Kept& kept, size_t choice = 0) {
  return kept.json()["choices"][choice]["message"]["content"].get<std::string>();
}

}  // namespace hadal
