// What this machine is.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace hadal {

struct Machine {
  std::string cpu = "unknown";
  std::vector<std::string> isa;  // of the instruction sets that matter here, in the kernel's names
  int64_t cores = 0, memory_bytes = 0, available_bytes = 0;  // available: without swapping, now
};
Machine this_machine();

}  // namespace hadal
