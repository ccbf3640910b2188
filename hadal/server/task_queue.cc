#include "hadal/server/task_queue.h"

#include <algorithm>
#include <utility>

namespace hadal {

TaskQueue::TaskQueue(int threads, size_t max_bytes) : max_bytes_(max_bytes) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { loop(); });
}

TaskQueue::~TaskQueue() {
  stop();
}

bool TaskQueue::run(size_t bytes, std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || (bytes_ > 0 && bytes > max_bytes_ - std::min(bytes_, max_bytes_))) return false;
    bytes_ += bytes;
    tasks_.push_back({bytes, std::move(task)});
  }
  wake_.notify_one();
  return true;
}

void TaskQueue::stop() {
  std::deque<Task> dropped;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    dropped.swap(tasks_);
  }
  wake_.notify_all();
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
}

void TaskQueue::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
    if (stopping_) return;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task.work();
    task.work = nullptr;
    lock.lock();
    bytes_ -= task.bytes;
  }
}

}  // namespace hadal
