// Names that c10d's ProcessGroupGloo.hpp mentions, for compiling against a wheel without Gloo's own headers.
// Nothing here is defined or called by us: the code is in libtorch_cpu.
#pragma once
#include <chrono>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
}  // namespace gloo
