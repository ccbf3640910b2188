// What the Api does beside its own thread, and when it refuses.
#include <gtest/gtest.h>

#include <future>

#include "tests/support/served_api.h"

namespace hadal {
namespace {

// A task queue of one thread that waits until it is let go: before Served, which stops it, goes.
class Gated {
 public:
  explicit Gated(size_t max_bytes = 1 << 20) : tasks(1, max_bytes) {
    tasks.run(1, [this] {
      begun_.set_value();
      gate_.get_future().wait();
    });
    begun_.get_future().wait();
  }
  ~Gated() { open(); }
  void open() {
    if (!std::exchange(opened_, true)) gate_.set_value();
  }

 private:
  std::promise<void> begun_, gate_;
  bool opened_ = false;

 public:
  TaskQueue tasks;
};

TEST(ApiQueue, BodiesAreReadOffTheThreadOfTheSockets) {
  Gated gated;
  Served served;
  served.work_on(gated.tasks);
  std::vector<std::shared_ptr<Kept>> all;
  Json body = ask("Hello", 8);
  body["seed"] = 5;
  all.push_back(served.begin("/v1/chat/completions", body).first);
  all.push_back(served.begin("/tokenize", Json{{"prompt", "abc"}}).first);
  all.push_back(served.begin("/v1/completions", Json{{"prompt", 1}}).first);
  for (const auto& kept : all) EXPECT_FALSE(kept->over);
  EXPECT_EQ(served.get("/health")->status, 200);  // meanwhile
  EXPECT_EQ(served.api.num_exchanges(), 3u);
  gated.open();
  served.finish(all);
  Served inline_one;
  EXPECT_EQ(content(*all[0]), content(*inline_one.post("/v1/chat/completions", body)));
  EXPECT_EQ(all[1]->json()["count"], 4);
  EXPECT_EQ(all[2]->status, 400);
  EXPECT_EQ(all[2]->json()["error"]["param"], "prompt");
  EXPECT_EQ(served.api.num_exchanges(), 0u);
}

TEST(ApiQueue, AnswersWithWhatIsToldOfEachTokenAreTheSameFromThere) {
  TaskQueue tasks(1, 1 << 20);
  Json body = ask("Hello", 8);
  body["seed"] = 5, body["logprobs"] = true, body["top_logprobs"] = 5, body["n"] = 2;
  Served served, inline_one;
  served.work_on(tasks);
  Json first = served.post("/v1/chat/completions", body)->json();
  EXPECT_EQ(first["choices"], inline_one.post("/v1/chat/completions", body)->json()["choices"]);
}

TEST(ApiQueue, AClientThatLeavesWhileItsBodyIsReadIsNotAnswered) {
  Gated gated;
  Served served;
  served.work_on(gated.tasks);
  const auto [kept, exchange] = served.begin("/v1/chat/completions", ask("a"));
  served.api.abandon(exchange);
  EXPECT_EQ(served.api.num_exchanges(), 0u);
  gated.open();
  for (int i = 0; i < 3; ++i) served.pump();
  EXPECT_FALSE(kept->over);
  EXPECT_EQ(served.engine.jobs(), 0);
}

TEST(ApiQueue, BodiesThatWaitAreBounded) {
  Gated gated(/*max_bytes=*/3000);
  Served served;
  served.work_on(gated.tasks);
  EXPECT_TRUE(served.begin("/tokenize", Json{{"prompt", std::string(2000, 'x')}}).second);
  const auto refused = served.post("/tokenize", Json{{"prompt", std::string(2000, 'x')}});
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->header("Retry-After"), "1");
  EXPECT_TRUE(served.begin("/tokenize", Json{{"prompt", "x"}}).second);
  gated.open();
}

TEST(ApiQueue, WhatWouldWaitTooLongIsRefusedWithTheTimeToComeBack) {
  Served served({}, {.requests = 1000, .seconds = 1e-6});
  Json body = ask("Hello", 300);
  body["ignore_eos"] = true, body["n"] = 16;  // all the engine computes at a time
  served.post("/v1/chat/completions", body);  // measured
  const auto running = served.begin("/v1/chat/completions", body);
  while (served.engine.queued_requests() > 0) served.pump();
  const auto waiting = served.begin("/v1/chat/completions", ask("a", 300));  // alone in the queue: taken
  ASSERT_TRUE(waiting.second);
  const auto refused = served.post("/v1/chat/completions", ask("b", 300));
  EXPECT_EQ(refused->status, 429);
  EXPECT_GE(std::stoi(refused->header("Retry-After")), 1);
  EXPECT_EQ(served.api.metrics.rejected, 1);
  // A queue that is full refuses before it reads.
  const auto unread = served.post("/v1/chat/completions", Json{{"nonsense", true}});
  EXPECT_EQ(unread->status, 429);
  served.api.abandon_all();
}

TEST(ApiQueue, WithoutABoundInSecondsNothingIsRefusedForIt) {
  Served served({}, {.requests = 1000, .seconds = 0});
  Json body = ask("Hello", 300);
  body["ignore_eos"] = true, body["n"] = 16;
  served.post("/v1/chat/completions", body);
  const auto running = served.begin("/v1/chat/completions", body);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(served.begin("/v1/chat/completions", ask("a", 300)).second);
  served.api.abandon_all();
}

}  // namespace
}  // namespace hadal
