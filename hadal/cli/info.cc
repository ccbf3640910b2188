// hadal info without a model: this program and this machine. With one: info_model.cc.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/info_model.h"
#include "hadal/cli/output.h"
#include "hadal/cli/version.h"

namespace hadal {
namespace {

struct Machine {
  std::string cpu = "unknown";
  std::vector<std::string> isa;  // of the instruction sets that matter here
  int64_t cores = 0, memory_bytes = 0, available_bytes = 0;
};

// The value of "key : value" in a line of /proc.
std::string value_of(const std::string& line) {
  const size_t at = line.find_first_not_of(" \t", line.find(':') + 1);
  return at == std::string::npos ? "" : line.substr(at);
}

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

int info_machine(bool json) {
  const Machine machine = this_machine();
  const std::string compute = find_compute(), torch = libtorch_folder();
  const bool torch_there = !torch.empty() && std::filesystem::exists(torch);
  if (json) {
    const Json all = {{"version", version_text()},
                      {"build", build_text()},
                      {"cpu", machine.cpu},
                      {"isa", machine.isa},
                      {"cores", machine.cores},
                      {"memory_bytes", machine.memory_bytes},
                      {"memory_available_bytes", machine.available_bytes},
                      {"hadal_compute", compute.empty() ? Json() : Json(compute)},
                      {"libtorch", torch_there ? Json(torch) : Json()}};
    print(dump_json(all) + "\n");
    return 0;
  }
  std::string isa;
  for (const std::string& one : machine.isa) isa += (isa.empty() ? "" : " ") + one;
  print(cat("version        ", version_text(), "\nbuild          ", build_text(), "\ncpu            ",
            one_line(machine.cpu), "\nisa            ", isa.empty() ? "none of those hadal looks for" : isa,
            "\ncores          ", machine.cores, "\nmemory         ", human_bytes(machine.memory_bytes), ", ",
            human_bytes(machine.available_bytes), " available\nhadal-compute  ",
            compute.empty() ? "not found: run, logits and train need it" : compute, "\nLibTorch       ",
            torch_there     ? torch
            : torch.empty() ? "not in this build"
                            : "missing from " + torch,
            "\n"));
  return 0;
}

}  // namespace

int run_info(const InfoOptions& options) {
  if (options.model.empty() && options.preset.empty()) return info_machine(options.json);
  const ModelConfig config = options.preset.empty() ? load_config(options.model) : preset(options.preset);
  const std::string source = options.preset.empty() ? options.model : "preset " + options.preset;
  return info_model(config, source, options.context, options.json);
}

}  // namespace hadal
