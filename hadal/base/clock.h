// Time that only goes forward.
#pragma once
#include <chrono>

namespace hadal {

// Seconds since some moment in the past.
inline double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace hadal
