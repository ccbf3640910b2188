// Training speed: tokens a second of whole steps (forward, backward, AdamW, bias) and where the time goes,
// against the GEMM rate measured in the same run. One JSON line last. Usage: train_bench [--config FILE]
// [--batch B] [--length T] [--steps N] [--threads N] [--workers N] [--precision f32|bf16|f16|fp8]
// [--device cpu|cuda|cuda:N]
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

#include "hadal/base/machine.h"
#include "hadal/base/text.h"
#include "hadal/kernels/half.h"
#include "hadal/kernels/train.h"
#include "hadal/planner.h"
#include "hadal/tensor/device.h"
#include "hadal/tensor/make.h"
#include "hadal/train/adamw.h"
#include "hadal/train/gemm_peak.h"
#include "hadal/train/gradient_workers.h"

namespace hadal {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Of all threads of the process: what a step costs where other programs take turns.
double cpu_now() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// The model `nano` that peers are measured on: 11.7 M parameters, V3 architecture, no MTP.
ModelConfig nano() {
  ModelConfig c;
  c.vocab_size = 4096, c.width = 256, c.num_layers = 6, c.dense_dim = 704, c.max_positions = 65536;
  c.mla = {
      .num_heads = 4, .query_latent = 96, .kv_latent = 64, .nope_dim = 32, .rope_dim = 16, .value_dim = 32};
  c.moe = {.num_experts = 16,
           .num_shared = 1,
           .top_k = 4,
           .expert_dim = 128,
           .num_groups = 4,
           .num_groups_kept = 2,
           .first_layer = 1,
           .scoring = Scoring::kSigmoid,
           .choice = Choice::kGroupTopTwo,
           .normalize = true,
           .scale = 2.5};
  return c;
}

struct Options {
  ModelConfig config = nano();
  std::string device = "cpu";
  int64_t batch = 8, length = 256, steps = 10, threads = 0, workers = 0;
  Products products = half_is_fast(HalfFormat::kFp16)   ? Products::kF16
                      : half_is_fast(HalfFormat::kBf16) ? Products::kBf16
                                                        : Products::kF32;
  std::optional<Fp8Recipe> fp8;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--config") require_dense_attention(o.config = load_config(value), value);
    if (flag == "--batch") o.batch = std::stoll(value);
    if (flag == "--length") o.length = std::stoll(value);
    if (flag == "--steps") o.steps = std::stoll(value);
    if (flag == "--workers") o.workers = std::stoll(value);
    if (flag == "--precision") o.products = products_named(value);
    if (flag == "--precision" && value == "fp8") o.fp8.emplace();
    if (flag == "--device") o.device = value;
    if (flag == "--threads") o.threads = std::stoll(value);
  }
  return o;
}

int run(const Options& o) {
  set_num_threads(
      static_cast<int>(o.threads > 0 ? o.threads : std::max(1u, std::thread::hardware_concurrency())));
  keep_freed_memory();
  const at::Device device = open_device(o.device);
  const int64_t peak_size = device.is_cpu() ? 1536 : kGpuPeakSize;
  const double peak_f32 = gemm_peak(peak_size, at::kFloat, device),
               peak_bf16 = gemm_peak(peak_size, at::kBFloat16, device);
  Transformer model(o.config, on_device(o.config, random_weights(o.config, 1), device));
  AdamW optimizer(model, {});
  const int64_t X = o.length + 1 + o.config.mtp_depth;
  const Tensor window_BX =
      on_device(arange(0, o.batch * X).mul(7919).remainder(o.config.vocab_size).view({o.batch, X}), device);
  GradientWorkers workers(model, o.workers > 0 ? o.workers : device.is_cpu() ? num_threads() : 1);
  std::vector<double> seconds, gradients, update, cpu;
  for (int64_t step = 0; step < o.steps + 2; ++step) {
    const double t0 = now(), cpu0 = cpu_now();
    const StepLoss loss = workers.step(window_BX, {.products = o.products, .fp8 = o.fp8}, {});
    const double t2 = now();
    update_balance_bias(model, loss.loads, 1e-3);
    optimizer.step(1e-4);
    synchronize(device);
    const double t3 = now();
    if (step < 2) continue;  // caches and memory pools fill
    seconds.push_back(t3 - t0), gradients.push_back(t2 - t0), update.push_back(t3 - t2);
    cpu.push_back(cpu_now() - cpu0);
  }
  const auto median = [](std::vector<double> x) {
    std::sort(x.begin(), x.end());
    return x[x.size() / 2];
  };
  const auto tokens = static_cast<double>(o.batch * o.length);
  std::printf("best step %.1f ms of %.1f ms CPU, %.0f tokens/s\n",
              1e3 * *std::min_element(seconds.begin(), seconds.end()),
              1e3 * *std::min_element(cpu.begin(), cpu.end()),
              tokens / *std::min_element(seconds.begin(), seconds.end()));
  // Three times the forward matrix products of main model and MTP, attention over half the square included.
  const double flops = 3.0 * static_cast<double>(prefill_flops(o.config, o.length).total()) * tokens;
  const double rate = flops / median(seconds);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("%s, %lld threads, kernels %s\n", this_machine().cpu.c_str(),
              static_cast<long long>(num_threads()), train_kernels().isa);
  std::printf("GEMM peak: f32 %.0f, bf16 %.0f GFLOP/s\n", peak_f32 / 1e9, peak_bf16 / 1e9);
  std::printf("%lld x %lld tokens a step, %lld workers: %.1f ms (gradients %.1f, update %.1f)\n",
              static_cast<long long>(o.batch), static_cast<long long>(o.length),
              static_cast<long long>(workers.num_workers()), 1e3 * median(seconds), 1e3 * median(gradients),
              1e3 * median(update));
  std::printf("%.0f tokens/s, %.0f GFLOP/s, %.0f %% of the f32 GEMM peak, %.0f %% of the bf16 one\n",
              tokens / median(seconds), rate / 1e9, 100 * rate / peak_f32, 100 * rate / peak_bf16);
  std::printf(
      "{\"bench\": \"train\", \"batch\": %lld, \"length\": %lld, \"workers\": %lld, \"tokens_per_second\": "
      "%.1f, \"gflops\": %.1f, "
      "\"gemm_peak_f32_gflops\": %.1f, \"gemm_peak_bf16_gflops\": %.1f, \"gradients_ms\": %.2f, "
      "\"update_ms\": %.2f, \"peak_rss_mb\": %ld}\n",
      static_cast<long long>(o.batch), static_cast<long long>(o.length),
      static_cast<long long>(workers.num_workers()), tokens / median(seconds), rate / 1e9, peak_f32 / 1e9,
      peak_bf16 / 1e9, 1e3 * median(gradients), 1e3 * median(update), usage.ru_maxrss / 1024);
  return 0;
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) {
  return hadal::run(hadal::parse(argc, argv));
}
