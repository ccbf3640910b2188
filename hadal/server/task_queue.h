// A few threads for work that would keep the sockets waiting, and a bounded queue before them.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace hadal {

class TaskQueue {
 public:
  // max_bytes: of what the tasks hold that have not ended.
  TaskQueue(int threads, size_t max_bytes);
  ~TaskQueue();  // stop()
  TaskQueue(const TaskQueue&) = delete;

  // Any thread, at once. False: too much waits already (a task larger than all may run alone), or stopped.
  bool run(size_t bytes, std::function<void()> task);
  // Waits for the tasks that have begun; the others never run.
  void stop();

 private:
  struct Task {
    size_t bytes;
    std::function<void()> work;
  };
  void loop();

  const size_t max_bytes_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  size_t bytes_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace hadal
