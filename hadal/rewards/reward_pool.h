// Scores in the background, so that running programs overlaps with decoding the next answers.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "hadal/rewards/reward.h"

namespace hadal {

class RewardPool {
 public:
  // `workers` threads; `queue`: scores that may wait, submit() blocks when there are more. Each at least 1.
  RewardPool(const RewardSet& rewards, int64_t workers, int64_t queue = 1024);
  ~RewardPool();  // what has been submitted is finished
  RewardPool(const RewardPool&) = delete;

  // `task` must live until the result is there. Errors of score() come out of the future.
  std::future<RewardResult> submit(const Task& task, Completion completion);

 private:
  void work();

  const RewardSet rewards_;
  const size_t max_waiting_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::packaged_task<RewardResult()>> waiting_;
  bool closing_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace hadal
