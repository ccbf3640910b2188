#include "hadal/bindings/shared_engine.h"

#include <limits>

#include "hadal/base/clock.h"
#include "hadal/error.h"

namespace hadal {

// Whoever asks waits; nothing is refused for the length of the queue.
constexpr QueueLimits kNoLimits{.requests = std::numeric_limits<int64_t>::max() / 2,
                                .tokens = std::numeric_limits<int64_t>::max() / 2};

std::shared_ptr<SharedEngine> SharedEngine::open(const std::filesystem::path& folder,
                                                 const EngineConfig& config) {
  return std::make_shared<SharedEngine>(Engine::open(folder, config));
}

SharedEngine::SharedEngine(Engine engine) : thread_(std::move(engine), kNoLimits) {
  thread_.start([this](std::vector<JobEvent> events) { deliver(std::move(events)); });
}

const Tokenizer& SharedEngine::tokenizer() const {
  if (thread_.tokenizer()) return *thread_.tokenizer();
  throw Error(ErrorCode::kNotFound,
              "[bindings.tokenizer] the model has no tokenizer.json. Put it into the model's folder, or work "
              "with token ids.");
}

AnswerStream SharedEngine::start(Request request) {
  if (!request.stops.empty()) tokenizer();  // or they would never be found
  auto inbox = std::make_shared<Inbox>();
  const std::lock_guard lock(mutex_);  // over both, or the first events would find no inbox
  std::vector<Request> one;
  one.push_back(std::move(request));
  const JobId job = thread_.submit(std::move(one)).jobs.at(0);
  inboxes_[job] = inbox;
  return AnswerStream(shared_from_this(), job, std::move(inbox));
}

void SharedEngine::deliver(std::vector<JobEvent> events) {
  for (JobEvent& event : events) {
    std::shared_ptr<Inbox> inbox;
    {
      const std::lock_guard lock(mutex_);
      const auto it = inboxes_.find(event.job);
      if (it == inboxes_.end()) continue;  // cancelled
      inbox = it->second;
    }
    const std::lock_guard lock(inbox->mutex);
    inbox->events.push_back(std::move(event));
    inbox->news.notify_one();
  }
}

void SharedEngine::leave(JobId job) {
  const std::lock_guard lock(mutex_);
  inboxes_.erase(job);
}

AnswerStream::AnswerStream(std::shared_ptr<SharedEngine> engine, JobId job,
                           std::shared_ptr<SharedEngine::Inbox> inbox)
    : engine_(std::move(engine)), job_(job), inbox_(std::move(inbox)), began_(now_seconds()) {}

AnswerStream::~AnswerStream() {
  if (engine_) cancel();
}

void AnswerStream::cancel() {
  if (over_) return;
  over_ = true;
  reason_ = FinishReason::kCancelled;
  engine_->leave(job_);
  engine_->thread_.cancel(job_);
}

std::optional<Delta> AnswerStream::next() {
  if (over_) return {};
  JobEvent event;
  {
    std::unique_lock lock(inbox_->mutex);
    inbox_->news.wait(lock, [&] { return !inbox_->events.empty(); });
    event = std::move(inbox_->events.front());
    inbox_->events.pop_front();
  }
  if (!event.error.empty() || event.delta.finished) {
    over_ = true;
    engine_->leave(job_);
  }
  if (!event.error.empty()) throw Error(event.code, event.error);
  usage_ = event.delta.usage;
  reason_ = event.delta.finished;
  const double passed = now_seconds() - began_;
  if (!event.delta.tokens.empty()) {
    if (first_token_seconds_ == 0) first_token_seconds_ = passed;
    decode_seconds_ = passed - first_token_seconds_;
  }
  return std::move(event.delta);
}

}  // namespace hadal
