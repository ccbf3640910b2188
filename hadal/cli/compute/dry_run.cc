// hadal train --dry-run: what a run will need, before anything is allocated.
#include <cstdio>

#include "hadal/base/machine.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/output.h"
#include "hadal/config/presets.h"
#include "hadal/planner.h"
#include "hadal/planner/train_memory.h"
#include "hadal/tensor/make.h"
#include "hadal/train/gradient_workers.h"

namespace hadal {
namespace {

// Memory of the process once LibTorch has run what a step runs: a step of a model of a few kilobytes.
int64_t own_bytes() {
  ModelConfig c = preset("tiny");
  c.vocab_size = 64, c.width = 32, c.dense_dim = 32, c.num_layers = 3, c.moe.expert_dim = 16;
  Transformer model(c, random_weights(c, 1));
  AdamW optimizer(model, {});
  const int64_t X = 32 + 1 + c.mtp_depth;
  GradientWorkers(model, num_threads()).step(arange(0, 2 * X).remainder(64).view({2, X}), {}, {});
  optimizer.step(1e-3);
  return resident_bytes();
}

void line(const char* what, int64_t bytes) {
  char text[120];
  std::snprintf(text, sizeof text, "%-58s %10.1f MiB\n", what, static_cast<double>(bytes) / (1 << 20));
  print(text);
}

}  // namespace

void print_dry_run(const TrainConfig& config) {
  const ModelConfig model = model_config_of(config);
  const int64_t workers = config.batch.workers > 0 ? config.batch.workers : num_threads();
  const TrainMemory m = train_memory(model, config, workers);
  const int64_t own = own_bytes(), available = this_machine().available_bytes;
  const bool activations_first = m.activations + m.logits + m.workspace >= m.gradients;
  const auto parameters = static_cast<double>(m.weights) / 4;
  line("weights, fp32 (the master weights)", m.weights);
  line(config.optimizer.bf16_moments ? "moments, bf16" : "moments, fp32", m.moments);
  line("average of the weights (optimizer.ema)", m.average);
  print("at the start of the backward pass:\n");
  line("  activations", m.activations);
  line("  a piece of logits, the head's gradients", m.logits);
  line("  workspace of the largest operation", m.workspace);
  print("at its end:\n");
  line("  gradients, fp32", m.gradients);
  line(activations_first ? "the larger of both: the start" : "the larger of both: the end", m.passing());
  line("allocator: freed blocks that do not fit", m.allocator);
  line("LibTorch and the program, measured now", own);
  line("PEAK OF A STEP", own + m.step());
  line("copy for checkpoints written beside (checkpoint.background)", m.checkpoint);
  line("PEAK", own + m.total());
  char text[160];
  std::snprintf(
      text, sizeof text, "%.1f M parameters; weights, moments, average and gradients: %.1f bytes each\n",
      parameters / 1e6, static_cast<double>(m.weights + m.moments + m.average + m.gradients) / parameters);
  print(text);
  if (available > 0 && own + m.total() > available) {
    line("more than this machine has left", available);
    print(
        "compute.recompute, optimizer.bf16_moments, batch.micro, batch.workers 1 and checkpoint.background "
        "false "
        "need less.\n");
  }
}

}  // namespace hadal
