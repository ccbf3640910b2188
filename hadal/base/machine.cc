#include "hadal/base/machine.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "hadal/base/text.h"

namespace hadal {
namespace {

// The value of "key : value" in a line of /proc.
std::string value_of(const std::string& line) {
  const size_t at = line.find_first_not_of(" \t", line.find(':') + 1);
  return at == std::string::npos ? "" : line.substr(at);
}

}  // namespace

Machine this_machine() {
  static const char* kIsa[] = {"sse4_2",   "avx",      "avx2",        "fma",         "f16c",
                               "avx512f",  "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16",
                               "avx_vnni", "amx_tile", "amx_int8",    "amx_bf16",    "asimd",
                               "asimddp",  "bf16",     "i8mm",        "sve"};
  Machine machine;
  machine.cores = std::max(1u, std::thread::hardware_concurrency());
  machine.memory_bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  std::ifstream cpuinfo("/proc/cpuinfo");  // up to the end of the first core
  for (std::string line; std::getline(cpuinfo, line) && !line.empty();) {
    if (line.rfind("model name", 0) == 0) machine.cpu = value_of(line);
    if (line.rfind("flags", 0) != 0 && line.rfind("Features", 0) != 0) continue;
    const std::string flags = " " + value_of(line) + " ";
    for (const char* isa : kIsa)
      if (flags.find(cat(" ", isa, " ")) != std::string::npos) machine.isa.push_back(isa);
  }
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);)
    if (line.rfind("MemAvailable:", 0) == 0)
      machine.available_bytes = std::atoll(value_of(line).c_str()) * 1024;
  return machine;
}

}  // namespace hadal
