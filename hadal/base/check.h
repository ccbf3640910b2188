// HADAL_CHECK(cond) << "why": a broken invariant of our own. Always on; throws Error{internal} with the
// expression and place, since one bad request must not kill a server.
#pragma once
#include <sstream>

#include "hadal/error.h"

namespace hadal::detail {

class CheckFailure {
 public:
  CheckFailure(const char* expression, const char* file, int line) {
    text_ << file << ":" << line << ": [internal] check failed: " << expression << " ";
  }
  [[noreturn]] ~CheckFailure() noexcept(false) { throw Error(ErrorCode::kInternal, text_.str()); }
  template <class T>
  CheckFailure& operator<<(const T& value) {
    text_ << value;
    return *this;
  }

 private:
  std::ostringstream text_;
};

}  // namespace hadal::detail

#define HADAL_CHECK(cond) \
  if (cond) {             \
  } else                  \
    ::hadal::detail::CheckFailure(#cond, __FILE__, __LINE__)
