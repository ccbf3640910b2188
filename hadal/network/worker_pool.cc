#include "hadal/network/worker_pool.h"

#include <algorithm>
#include <chrono>

#include "hadal/base/machine.h"

namespace hadal {
namespace {

inline void pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

// Spins until `ready`, at most for about `micros`; gives the core away now and then in case the awaited
// thread needs it. True if it became ready.
template <typename F>
bool spin(F&& ready, int64_t micros) {
  for (int i = 0; i < 2000; ++i) {
    if (ready()) return true;
    pause();
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(micros);
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 200; ++i) {
      if (ready()) return true;
      pause();
    }
    std::this_thread::yield();
  }
  return ready();
}

constexpr int64_t kSpinMicros = 1000;  // between two steps of decoding there are some hundred

}  // namespace

WorkerPool::WorkerPool(int threads) {
  size_ = threads > 0 ? threads : static_cast<int>(std::max<int64_t>(1, this_machine().cores));
  for (int worker = 1; worker < size_; ++worker) threads_.emplace_back([this, worker] { serve(worker); });
}

WorkerPool::~WorkerPool() {
  stop_ = true;
  started_.fetch_add(1);
  started_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::serve(int worker) {
  uint32_t seen = 0;
  while (true) {
    const auto ready = [&] { return started_.load(std::memory_order_acquire) != seen; };
    if (!spin(ready, kSpinMicros)) started_.wait(seen);
    if (!ready()) continue;
    ++seen;
    if (stop_) return;
    (*job_)(worker);
    barrier();
  }
}

void WorkerPool::run(const std::function<void(int)>& f) {
  if (size_ == 1) return f(0);
  job_ = &f;
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  f(0);
  barrier();
}

void WorkerPool::barrier() {
  if (size_ == 1) return;
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  const auto passed = [&] { return phase_.load(std::memory_order_acquire) != phase; };
  while (!spin(passed, kSpinMicros)) std::this_thread::yield();
}

}  // namespace hadal
