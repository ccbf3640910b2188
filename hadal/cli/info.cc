// hadal info without a model: this program and this machine. With one: info_model.cc.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

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

int info_machine(bool json) {
  const Machine machine = this_machine();
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
            human_bytes(machine.available_bytes), " available\nhadal-compute  ",
            compute.empty() ? "not found: train, eval, logits and quickstart need it" : compute,
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
