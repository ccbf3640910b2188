#include "hadal/server/engine_thread.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <limits>
#include <set>

#include "tests/support/server_model.h"

namespace hadal {
namespace {

// A model that may be damaged: its last norm is the test's own.
struct DamagedModel {
  std::shared_ptr<std::vector<float>> norm;
  std::vector<float> good;
  Engine engine() {
    NetworkWeights weights = open_network(golden_dir("v3-mtp"));
    good.assign(weights.final_norm, weights.final_norm + weights.config.width);
    norm = std::make_shared<std::vector<float>>(good);
    weights.final_norm = norm->data();
    weights.owner.push_back(norm);
    return Engine(std::move(weights), byte_tokenizer(), {.threads = 1, .cache_tokens = 1024});
  }
};

class Events {
 public:
  void add(std::vector<JobEvent> events) {
    const std::lock_guard lock(mutex_);
    for (JobEvent& event : events) all_.push_back(std::move(event));
    news_.notify_one();
  }
  // Those that end a job, once there are so many.
  std::vector<JobEvent> ends(size_t count) {
    std::vector<JobEvent> out;
    std::unique_lock lock(mutex_);
    news_.wait_for(lock, std::chrono::seconds(30), [&] {
      out.clear();
      for (const JobEvent& event : all_)
        if (!event.error.empty() || event.delta.finished) out.push_back(event);
      return out.size() >= count;
    });
    all_.clear();
    return out;
  }

 private:
  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<JobEvent> all_;
};

std::vector<Request> three_requests() {
  std::vector<Request> out(3, Request{.prompt = {20, 21, 22}, .max_tokens = 4, .ignore_end = true});
  for (size_t i = 0; i < out.size(); ++i) out[i].prompt.push_back(static_cast<int32_t>(30 + i));
  return out;
}

TEST(EngineThread, AStepThatFailsEndsEveryJobAndTheNextOnesAreAnswered) {
  DamagedModel model;
  EngineThread engine(model.engine(), {});
  Events events;
  engine.start([&](std::vector<JobEvent> news) { events.add(std::move(news)); });
  (*model.norm)[0] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<JobId> jobs = engine.submit(three_requests()).jobs;
  ASSERT_EQ(jobs.size(), 3u);
  std::set<JobId> ended;
  for (const JobEvent& event : events.ends(3)) {
    EXPECT_NE(event.error.find("[sampler.logits]"), std::string::npos) << event.error;
    EXPECT_EQ(event.code, ErrorCode::kInternal);
    ended.insert(event.job);
  }
  EXPECT_EQ(ended, std::set<JobId>(jobs.begin(), jobs.end()));
  EXPECT_EQ(engine.jobs(), 0);
  EXPECT_EQ(engine.queued_requests(), 0);
  EXPECT_EQ(engine.stats().pages_used, 0);
  *model.norm = model.good;
  engine.submit(three_requests());
  const std::vector<JobEvent> answered = events.ends(3);
  ASSERT_EQ(answered.size(), 3u);
  for (const JobEvent& event : answered) {
    EXPECT_EQ(event.error, "");
    EXPECT_EQ(event.delta.usage.generated_tokens, 4);
  }
}

}  // namespace
}  // namespace hadal
