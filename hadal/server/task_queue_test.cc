#include "hadal/server/task_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace hadal {
namespace {

TEST(TaskQueue, RunsEveryTaskOnceOffTheCallersThread) {
  std::atomic<int> runs{0}, here{0};
  std::promise<void> done;
  {
    TaskQueue queue(2, 1000);
    const auto caller = std::this_thread::get_id();
    for (int i = 0; i < 50; ++i)
      ASSERT_TRUE(queue.run(1, [&] {
        here += std::this_thread::get_id() == caller;
        if (++runs == 50) done.set_value();
      }));
    done.get_future().wait();
  }
  EXPECT_EQ(runs, 50);
  EXPECT_EQ(here, 0);
}

TEST(TaskQueue, BytesThatAreHeldBoundItAndOneTaskMayBeLargerThanAll) {
  std::promise<void> go, begun, second;
  TaskQueue queue(1, 10);
  const std::shared_future<void> open = go.get_future().share();
  ASSERT_TRUE(queue.run(25, [&begun, open] {
    begun.set_value();
    open.wait();
  }));
  begun.get_future().wait();
  EXPECT_FALSE(queue.run(1, [] {}));  // what runs counts
  go.set_value();
  while (!queue.run(6, [open] { open.wait(); })) std::this_thread::yield();
  while (!queue.run(10, [&second] { second.set_value(); })) std::this_thread::yield();
  second.get_future().wait();
}

TEST(TaskQueue, StopWaitsForWhatRunsAndDropsTheRest) {
  std::atomic<bool> ended{false}, ran{false};
  std::promise<void> begun;
  TaskQueue queue(1, 10);
  ASSERT_TRUE(queue.run(1, [&] {
    begun.set_value();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ended = true;
  }));
  begun.get_future().wait();
  ASSERT_TRUE(queue.run(1, [&] { ran = true; }));
  queue.stop();
  EXPECT_TRUE(ended);
  EXPECT_FALSE(ran);
  EXPECT_FALSE(queue.run(1, [] {}));
}

}  // namespace
}  // namespace hadal
