// What hadal train and hadal quickstart share: a run in its folder, from a configuration to a saved model.
#pragma once
#include <optional>
#include <string>

#include "hadal/config/train_config.h"
#include "hadal/model/transformer.h"
#include "hadal/parallel/rank_environment.h"
#include "hadal/report/metrics.h"
#include "hadal/tokenizer.h"
#include "hadal/train/loop.h"

namespace hadal {

constexpr int kInterruptedTrainExit = 75;  // saved after SIGINT or SIGTERM; run again to go on
constexpr int kDivergedTrainExit = 5;      // gradients stay non-finite after every rollback

struct TrainFlags {
  bool force_config = false;      // go on although keys have changed that alter the result
  bool restart = false;           // discard what an earlier run left
  bool restart_finished = false;  // the same if that run was finished or another
};

struct TrainedModel {
  Transformer model;
  std::optional<Tokenizer> tokenizer;  // none: the tokens' own is not known
  TrainEnd end = TrainEnd::kFinished;
  int exit_code() const;
};

// Trains in config.run.out, from where an earlier process was stopped or killed, with a progress line on
// stderr; the run folder ends up as a model folder. The config must have passed check(). Throws unavailable
// if another process trains there. With ranks rank 0 alone writes; the others read the tokenizer and the
// checkpoints from the folder too.
TrainedModel train_in_folder(const TrainConfig& config, const TrainFlags& flags = {}, Comm* comm = nullptr);

// Prints the memory that a step will need on a rank, by part.
void print_dry_run(const TrainConfig& config, const RankInfo& info);

// What metrics.jsonl begins with: the model, this machine, the run.
RunRecord run_record(const std::string& name, const ModelConfig& model, uint64_t seed, int64_t steps);

// The rest of a run of Trainer or GrpoTrainer, with what its folder records of it.
template <class AnyTrainer>
TrainEnd run_to_end(AnyTrainer& trainer, const RunRecord& record, const std::filesystem::path& out,
                    MetricsWriter& metrics, CheckpointStore& checkpoints) {
  metrics.begin(record);
  TensorBoardWriter tensorboard(out / "tensorboard", trainer.counters().step + 1);
  trainer.use_tensorboard(&tensorboard);
  const TrainEnd end = trainer.run();
  trainer.use_tensorboard(nullptr);
  metrics.sync();
  checkpoints.finish();
  return end;
}

// Preset or config.json of the configuration.
ModelConfig model_config_of(const TrainConfig& config);

}  // namespace hadal
