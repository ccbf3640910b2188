// A step of building a box that the system refused.
#pragma once
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace hadal {

struct BoxFault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void box_fault(const std::string& what) {
  const int error_number = errno;
  throw BoxFault("cannot " + what + ": " + std::strerror(error_number));
}

// For calls that return -1 on failure.
inline void must(long result, const std::string& what) {
  if (result < 0) box_fault(what);
}

}  // namespace hadal
