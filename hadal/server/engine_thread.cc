#include "hadal/server/engine_thread.h"

#include <algorithm>

#include "hadal/base/clock.h"
#include "hadal/network/latent_pages.h"

namespace hadal {
EngineThread::EngineThread(Engine engine, const QueueLimits& limits)
    : engine_(std::move(engine)),
      model_(engine_.model()),
      tokenizer_(engine_.tokenizer()),
      context_(std::min(engine_.context(), engine_.stats().pages * kPageTokens)),
      max_sequences_(engine_.max_sequences()),
      limits_(limits),
      stats_(engine_.stats()),
      slots_(max_sequences_) {}

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

// REQUIRES: the lock is held.
std::optional<double> EngineThread::refuses(int64_t requests, int64_t tokens) const {
  if (stopping_) return 1;
  if (queued_requests_ == 0) return {};
  const int64_t all = queued_requests_ + requests, all_tokens = queued_tokens_ + tokens;
  if (all > limits_.requests || all_tokens > limits_.tokens) return 1;
  if (limits_.seconds <= 0) return {};
  WaitingWork work{.requests = all, .prompt_tokens = all_tokens, .generated = {}, .at_most = {}};
  for (const auto& [id, job] : live_) {
    if (!job.first_token) continue;
    work.generated.push_back(job.generated);
    work.at_most.push_back(job.max_tokens);
  }
  const double wait = estimate_.seconds(work, slots_);
  return wait > limits_.seconds ? std::optional(wait - limits_.seconds) : std::nullopt;
}

std::optional<double> EngineThread::refuses_all() const {
  const std::lock_guard lock(mutex_);
  return refuses(1, 1);
}

Submission EngineThread::submit(std::vector<Request> requests) {
  int64_t tokens = 0;
  for (const Request& request : requests) tokens += static_cast<int64_t>(request.prompt.size());
  Submission out;
  {
    const std::lock_guard lock(mutex_);
    if (const auto retry = refuses(static_cast<int64_t>(requests.size()), tokens))
      return {.jobs = {}, .retry_seconds = *retry};
    for (Request& request : requests) {
      const JobId job = next_job_++;
      live_[job] = {.prompt_tokens = static_cast<int64_t>(request.prompt.size()),
                    .max_tokens = request.max_tokens};
      commands_.push_back({.job = job, .cancel = false, .request = std::move(request)});
      out.jobs.push_back(job);
    }
    queued_requests_ += static_cast<int64_t>(out.jobs.size());
    queued_tokens_ += tokens;
  }
  wake_.notify_one();
  return out;
}

void EngineThread::cancel(JobId job) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = live_.find(job);
    if (it == live_.end()) return;
    if (it->second.first_token)
      estimate_.add_answer(it->second.generated);
    else
      --queued_requests_, queued_tokens_ -= it->second.prompt_tokens;
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
  step_began_ = last_step_ = now_seconds();
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
  EngineStats now = engine_.stats();
  const std::lock_guard lock(mutex_);
  for (const JobEvent& event : events) {
    const auto it = live_.find(event.job);
    if (it == live_.end()) continue;
    Job& job = it->second;
    job.generated += static_cast<int64_t>(event.delta.tokens.size());
    const bool over = !event.error.empty() || event.delta.finished;
    if (!job.first_token && (over || !event.delta.tokens.empty())) {
      job.first_token = true;
      --queued_requests_;
      queued_tokens_ -= job.prompt_tokens;
    }
    if (!over) continue;
    if (event.error.empty()) estimate_.add_answer(job.generated);
    live_.erase(it);
  }
  measure(now);
  stats_ = std::move(now);
}

// What the last step did, and whether the cache is full: then requests wait though no prompt is under way.
void EngineThread::measure(const EngineStats& now) {
  const int64_t prompt_rows = now.prompt_rows - stats_.prompt_rows;
  estimate_.add_step(now_seconds() - step_began_, prompt_rows,
                     now.generated_tokens - stats_.generated_tokens);
  const bool full = now.waiting > 0 && prompt_rows == 0 && now.running > 0;
  slots_ = full ? std::min(now.running, max_sequences_) : max_sequences_;
}

}  // namespace hadal
