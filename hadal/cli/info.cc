// hadal info without a model: this program and this machine. With one: info_model.cc.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "hadal/base/cuda_driver.h"
#include "hadal/base/json.h"
#include "hadal/base/machine.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/info_model.h"
#include "hadal/cli/output.h"
#include "hadal/cli/version.h"
#include "hadal/kernels/infer.h"

namespace hadal {
namespace {

std::string capability(const CudaDevice& gpu) {
  return cat(gpu.major, ".", gpu.minor);
}

Json gpus_json(const CudaDevices& gpus) {
  Json all = Json::array();
  for (const CudaDevice& gpu : gpus.devices)
    all.push_back({{"name", gpu.name}, {"memory_bytes", gpu.memory_bytes}, {"capability", capability(gpu)}});
  return all;
}

// "NVIDIA H100 80GB HBM3, 79.2 GiB, compute capability 9.0 (cuda:0)"
std::string gpus_text(const CudaDevices& gpus) {
  std::string text;
  for (size_t i = 0; i < gpus.devices.size(); ++i) {
    const CudaDevice& gpu = gpus.devices[i];
    text += cat(i > 0 ? "\n               " : "", gpu.name, ", ", human_bytes(gpu.memory_bytes),
                ", compute capability ", capability(gpu), " (cuda:", i, ")");
  }
  return text.empty() ? "none: " + gpus.problem : text;
}

int info_machine(bool json) {
  const Machine machine = this_machine();
  const CudaDevices gpus = cuda_devices();
  const std::string compute = find_compute(), torch = libtorch_folder();
  const bool torch_there = !torch.empty() && std::filesystem::exists(torch);
  if (json) {
    const Json all = {{"version", version_text()},
                      {"build", build_text()},
                      {"cpu", machine.cpu},
                      {"isa", machine.isa},
                      {"kernels", infer_kernels().isa},
                      {"cores", machine.cores},
                      {"memory_bytes", machine.memory_bytes},
                      {"gpus", gpus_json(gpus)},
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
            "\nkernels        ", infer_kernels().isa, " (HADAL_ISA chooses another)", "\ncores          ",
            machine.cores, "\nmemory         ", human_bytes(machine.memory_bytes), ", ",
            human_bytes(machine.available_bytes), " available\nGPU            ", gpus_text(gpus),
            "\nhadal-compute  ", compute.empty() ? "not found: training and logits need it" : compute,
            "\nLibTorch       ",
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
