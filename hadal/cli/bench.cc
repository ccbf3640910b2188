// hadal bench: speed of inference against the machine's bandwidth and multiply-add rate.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/machine.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/kernels/infer.h"

namespace hadal {
namespace {

std::string hex(uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

void print_row(const EngineBenchResult& r) {
  char text[300];
  if (r.work == "spec")
    std::snprintf(text, sizeof text,
                  "%-8s %7lld %6lld %10.1f %10.1f   %.1f %% of drafts stood, %.2f x without drafts  %s\n",
                  r.work.c_str(), static_cast<long long>(r.prompt_tokens),
                  static_cast<long long>(r.sequences), r.tokens_per_second, r.median_tokens_per_second,
                  100 * r.acceptance, r.speedup, hex(r.hash).c_str());
  else
    std::snprintf(text, sizeof text, "%-8s %7lld %6lld %10.1f %10.1f %10.2f %8.1f %8.1f %8.1f  %s\n",
                  r.work.c_str(), static_cast<long long>(r.prompt_tokens),
                  static_cast<long long>(r.sequences), r.tokens_per_second, r.median_tokens_per_second,
                  r.bytes_per_token / 1e6, 100 * r.bandwidth_share,
                  r.flops_per_token * r.tokens_per_second / 1e9, 100 * r.peak_share, hex(r.hash).c_str());
  print(text);
}

Json to_json(const EngineBenchResult& r) {
  Json out{{"work", r.work},
           {"prompt_tokens", r.prompt_tokens},
           {"new_tokens", r.new_tokens},
           {"sequences", r.sequences}};
  out["tokens_per_second"] = r.tokens_per_second,
  out["median_tokens_per_second"] = r.median_tokens_per_second;
  if (r.work == "spec") {
    out["acceptance"] = r.acceptance, out["speedup"] = r.speedup;
  } else {
    out["bytes_per_token"] = r.bytes_per_token, out["bandwidth_share"] = r.bandwidth_share;
    out["flops_per_token"] = r.flops_per_token, out["peak_share"] = r.peak_share;
  }
  out["hash"] = hex(r.hash);
  return out;
}

}  // namespace

int run_bench(const BenchCommandOptions& o) {
  EngineBenchOptions bench = o.bench;
  bench.threads = static_cast<int>(o.threads);
  const MachineSpeed machine = measure_machine(bench.threads);
  if (!o.json) {
    char text[300];
    std::snprintf(text, sizeof text, "%s, %d threads, %s: %.1f GB/s reads, %.0f GFLOP/s multiply-add\n",
                  this_machine().cpu.c_str(), machine.threads, infer_kernels().isa,
                  machine.read_bandwidth / 1e9, machine.fma_peak / 1e9);
    print(text);
    print(bench.work == "spec" ? "work      prompt    seq    tokens/s     median   drafts\n"
                               : "work      prompt    seq    tokens/s     median   MB/token   % read  "
                                 "GFLOP/s   % peak  hash of logits\n");
  }
  Json rows = Json::array();
  for (const int64_t prompt : o.prompts)
    for (const int64_t sequences : bench.work == "batch" ? o.sequences : std::vector<int64_t>{1}) {
      bench.prompt_tokens = prompt, bench.sequences = sequences;
      const EngineBenchResult result = bench_engine(o.model, bench, machine);
      if (!o.json) print_row(result);
      flush_output();
      rows.push_back(to_json(result));
    }
  const Json all{{"model", o.model},
                 {"cpu", this_machine().cpu},
                 {"isa", infer_kernels().isa},
                 {"threads", machine.threads},
                 {"read_bandwidth", machine.read_bandwidth},
                 {"fma_peak", machine.fma_peak},
                 {"results", rows}};
  print(dump_json(all) + "\n");
  return 0;
}

}  // namespace hadal
