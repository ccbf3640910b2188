// Work that several threads do and one takes in order. Torch-free.
#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace hadal {

// For each job that `next` gives (until nothing): take(work(job)), `work` in `workers` threads, `next` and
// `take` in this one and in order. At most 2 workers + 2 jobs are under way, which bounds memory. The first
// exception in order of jobs is rethrown.
template <class Job, class Result>
void ordered_work(int64_t workers, const std::function<std::optional<Job>()>& next,
                  const std::function<Result(const Job&)>& work, const std::function<void(Result)>& take) {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::packaged_task<Result()>> waiting;
  bool closed = false;
  const auto serve = [&] {
    while (true) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return closed || !waiting.empty(); });
      if (waiting.empty()) return;
      auto task = std::move(waiting.front());
      waiting.pop_front();
      lock.unlock();
      task();
    }
  };
  struct Crew {
    std::mutex& mutex;
    std::condition_variable& changed;
    std::deque<std::packaged_task<Result()>>& waiting;
    bool& closed;
    std::vector<std::thread> threads;
    ~Crew() {
      {
        const std::lock_guard lock(mutex);
        closed = true;
        waiting.clear();  // after an exception; else it is empty
      }
      changed.notify_all();
      for (std::thread& thread : threads) thread.join();
    }
  } crew{mutex, changed, waiting, closed, {}};
  for (int64_t i = 0; i < workers; ++i) crew.threads.emplace_back(serve);

  std::deque<std::future<Result>> results;
  const auto take_first = [&] {
    Result result = results.front().get();
    results.pop_front();
    take(std::move(result));
  };
  while (std::optional<Job> job = next()) {
    std::packaged_task<Result()> task([&work, job = std::move(*job)] { return work(job); });
    results.push_back(task.get_future());
    {
      const std::lock_guard lock(mutex);
      waiting.push_back(std::move(task));
    }
    changed.notify_one();
    if (results.size() >= 2 * static_cast<size_t>(workers) + 2) take_first();
  }
  while (!results.empty()) take_first();
}

}  // namespace hadal
