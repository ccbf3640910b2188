// hadal train --dry-run: what a run will need, before anything is allocated.
#include <cstdio>

#include "hadal/base/machine.h"
#include "hadal/base/text.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/output.h"
#include "hadal/config/presets.h"
#include "hadal/planner/rank_split.h"
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

void print_dry_run(const TrainConfig& config, const RankInfo& info) {
  const ModelConfig model = model_config_of(config);
  const RankSplit split(config.parallel, model, config.batch.length, info.size, info.rank);
  const int64_t workers =
      config.batch.workers > 0 ? config.batch.workers : default_workers(split, num_threads());
  const TrainMemory m = train_memory(model, config, workers, info.rank, info.size);
  const int64_t own = own_bytes(), available = this_machine().available_bytes;
  if (info.size > 1) print(cat("rank ", info.rank, " of ", info.size, "\n"));
  const auto parameters = static_cast<double>(m.weights) / 4;
  line("weights, fp32 (the master weights)", m.weights);
  line(config.optimizer.bf16_moments ? "moments, bf16" : "moments, fp32", m.moments);
  line("average of the weights (optimizer.ema)", m.average);
  line("sums of gradients that wait for those of other slots", m.sums);
  print("when most slots are in flight:\n");
  line("  activations", m.activations);
  line("  a piece of logits, the head's gradients", m.logits);
  line("  workspace of the largest operation", m.workspace);
  print("at the end of a backward pass:\n");
  line("  activations of the other slots", m.others);
  line("  gradients, fp32", m.gradients);
  if (info.size > 1) line("at the end of a step: gradients that ranks exchange", m.exchange);
  if (m.gathered > 0) line("after a step that is saved: moments of all ranks", m.gathered);
  line("the largest of these, with the sums", m.passing());
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
  if (available > 0 && info.local_size * (own + m.total()) > available) {
    line(info.local_size > 1 ? "the ranks here need more than this machine has left"
                             : "more than this machine has left",
         available);
    print(
        "compute.recompute, optimizer.bf16_moments, batch.micro, batch.workers 1 and checkpoint.background "
        "false "
        "need less.\n");
  }
}

}  // namespace hadal
