// Threads that run one function together and meet at barriers. Made for many short phases: they spin before
// they sleep.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace hadal {

class WorkerPool {
 public:
  // threads >= 1, the caller's included; 0: one per core. Not thread-safe: one run at a time.
  explicit WorkerPool(int threads = 0);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;

  int size() const { return size_; }

  // Runs f(worker) for worker 0 .. size()-1, worker 0 on the caller's thread; returns when all have ended.
  // f must not throw: the others would wait for ever, so the program ends instead.
  void run(const std::function<void(int worker)>& f);

  // Inside run: waits until every worker is here. What was written before is seen after.
  void barrier();

 private:
  void serve(int worker);

  int size_ = 1;
  std::vector<std::thread> threads_;
  const std::function<void(int)>* job_ = nullptr;
  alignas(64) std::atomic<uint32_t> started_{0};  // runs begun; the workers' signal
  alignas(64) std::atomic<uint32_t> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};  // barriers passed
  std::atomic<bool> stop_{false};
};

// Part `worker` of `size` of [0, n), in multiples of `unit`.
struct WorkRange {
  int64_t first = 0, last = 0;
};
constexpr WorkRange split_work(int64_t n, int64_t unit, int worker, int size) {
  const int64_t units = (n + unit - 1) / unit;
  const auto at = [&](int64_t i) { return std::min(n, units * i / size * unit); };
  return {at(worker), at(worker + 1)};
}

}  // namespace hadal
