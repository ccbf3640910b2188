#include "hadal/server/engine_thread.h"

#include <algorithm>

#include "hadal/base/clock.h"
#include "hadal/network/latent_pages.h"

namespace hadal {
namespace {
constexpr double kStatsInterval = 0.1;  // seconds
}

EngineThread::EngineThread(Engine engine, const QueueLimits& limits)
    : engine_(std::move(engine)),
      model_(engine_.model()),
      tokenizer_(engine_.tokenizer()),
      context_(std::min(engine_.context(), engine_.stats().pages * kPageTokens)),
      limits_(limits),
      stats_(engine_.stats()) {}

EngineThread::~EngineThread() {
  stop();
}

void EngineThread::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void EngineThread::start(Deliver deliver) {
  deliver_ = std::move(deliver);
  thread_ = std::thread([this] { loop(); });
}

std::vector<JobId> EngineThread::submit(std::vector<Request> requests) {
  int64_t tokens = 0;
  for (const Request& request : requests) tokens += static_cast<int64_t>(request.prompt.size());
  std::vector<JobId> jobs;
  {
    const std::lock_guard lock(mutex_);
    const int64_t all = queued_requests_ + static_cast<int64_t>(requests.size());
    const bool fits = all <= limits_.requests && queued_tokens_ + tokens <= limits_.tokens;
    if (stopping_ || (!fits && queued_requests_ > 0)) return {};
    for (Request& request : requests) {
      const JobId job = next_job_++;
      live_[job] = {.tokens = static_cast<int64_t>(request.prompt.size())};
      commands_.push_back({.job = job, .cancel = false, .request = std::move(request)});
      jobs.push_back(job);
    }
    queued_requests_ = all;
    queued_tokens_ += tokens;
  }
  wake_.notify_one();
  return jobs;
}

void EngineThread::cancel(JobId job) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = live_.find(job);
    if (it == live_.end()) return;
    if (!it->second.first_token) --queued_requests_, queued_tokens_ -= it->second.tokens;
    live_.erase(it);
    commands_.push_back({.job = job, .cancel = true, .request = {}});
  }
  wake_.notify_one();
}

EngineStats EngineThread::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

int64_t EngineThread::queued_requests() const {
  const std::lock_guard lock(mutex_);
  return queued_requests_;
}

int64_t EngineThread::jobs() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(live_.size());
}

double EngineThread::seconds_since_step() const {
  const std::lock_guard lock(mutex_);
  return live_.empty() || last_step_ == 0 ? 0 : now_seconds() - last_step_;
}

void EngineThread::loop() {
  std::vector<Command> commands;
  std::vector<JobEvent> events;
  while (take_commands(commands)) {
    for (Command& command : commands) apply(command, events);
    if (!engine_.idle()) step(events);
    account(events);
    if (!events.empty()) deliver_(std::move(events));
    events.clear();
    commands.clear();
  }
}

// Waits while there is nothing to do. False: stop.
bool EngineThread::take_commands(std::vector<Command>& commands) {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return stopping_ || !commands_.empty() || !engine_.idle(); });
  commands.swap(commands_);
  last_step_ = now_seconds();
  return !stopping_;
}

void EngineThread::apply(Command& command, std::vector<JobEvent>& events) {
  if (command.cancel) {
    const auto it = request_of_.find(command.job);
    if (it == request_of_.end()) return;
    engine_.cancel(it->second);
    job_of_.erase(it->second);
    request_of_.erase(it);
    return;
  }
  try {
    const RequestId id = engine_.submit(std::move(command.request));
    request_of_[command.job] = id;
    job_of_[id] = command.job;
  } catch (const Error& error) {
    events.push_back({.job = command.job, .delta = {}, .error = error.what(), .code = error.code()});
  } catch (const std::exception& error) {  // out of memory
    events.push_back({.job = command.job, .delta = {}, .error = error.what(), .code = ErrorCode::kInternal});
  }
}

void EngineThread::step(std::vector<JobEvent>& events) {
  try {
    for (Delta& delta : engine_.step()) {
      const auto it = job_of_.find(delta.request);
      if (it == job_of_.end()) continue;
      const JobId job = it->second;
      if (delta.finished) {
        request_of_.erase(job);
        job_of_.erase(it);
      }
      events.push_back({.job = job, .delta = std::move(delta), .error = "", .code = {}});
    }
  } catch (const Error& error) {
    fail_all(error, events);
  } catch (const std::exception& error) {  // out of memory
    fail_all(Error(ErrorCode::kInternal, error.what()), events);
  }
}

void EngineThread::fail_all(const Error& error, std::vector<JobEvent>& events) {
  for (const auto& [job, request] : request_of_) {
    engine_.cancel(request);
    events.push_back({.job = job, .delta = {}, .error = error.what(), .code = error.code()});
  }
  request_of_.clear();
  job_of_.clear();
}

void EngineThread::account(const std::vector<JobEvent>& events) {
  const double now = now_seconds();
  const bool idle = engine_.idle();
  const std::lock_guard lock(mutex_);
  for (const JobEvent& event : events) {
    const auto it = live_.find(event.job);
    if (it == live_.end()) continue;
    const bool over = !event.error.empty() || event.delta.finished;
    if (!it->second.first_token && (over || !event.delta.tokens.empty())) {
      it->second.first_token = true;
      --queued_requests_;
      queued_tokens_ -= it->second.tokens;
    }
    if (over) live_.erase(it);
  }
  if (idle || now - stats_time_ >= kStatsInterval) stats_ = engine_.stats(), stats_time_ = now;
}

}  // namespace hadal
