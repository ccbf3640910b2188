#include "hadal/rewards/reward_pool.h"

#include "hadal/base/check.h"

namespace hadal {

RewardPool::RewardPool(const RewardSet& rewards, int64_t workers, int64_t queue)
    : rewards_(rewards), max_waiting_(static_cast<size_t>(queue)) {
  HADAL_CHECK(workers >= 1 && queue >= 1) << "workers " << workers << ", queue " << queue;
  for (int64_t i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
}

RewardPool::~RewardPool() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::future<RewardResult> RewardPool::submit(const Task& task, Completion completion) {
  std::packaged_task<RewardResult()> scoring(
      [this, &task, completion = std::move(completion)] { return rewards_.score(task, completion); });
  std::future<RewardResult> result = scoring.get_future();
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_.size() < max_waiting_; });
    waiting_.push_back(std::move(scoring));
  }
  changed_.notify_all();
  return result;
}

void RewardPool::work() {
  for (;;) {
    std::packaged_task<RewardResult()> next;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return closing_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      next = std::move(waiting_.front());
      waiting_.pop_front();
    }
    changed_.notify_all();
    next();
  }
}

}  // namespace hadal
