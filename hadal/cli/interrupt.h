// Ctrl-C as a flag. Torch-free.
#pragma once
#include <atomic>

namespace hadal {

// While one lives, the first SIGINT or SIGTERM sets the flag instead of ending the process; a second one ends
// it. One at a time.
class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  const std::atomic<bool>& flag() const;
};

}  // namespace hadal
