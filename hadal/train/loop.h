// The training loop: rows in, a better model out, whatever happens in between.
#pragma once
#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hadal/config/train_config.h"
#include "hadal/parallel/comm.h"
#include "hadal/report/metrics.h"
#include "hadal/report/tensorboard.h"
#include "hadal/train/adamw.h"
#include "hadal/train/evaluate.h"
#include "hadal/train/gradient_workers.h"
#include "hadal/train/model_part.h"
#include "hadal/train/pipeline_stages.h"
#include "hadal/train/train_state.h"

namespace hadal {

// What is trained other than the next token, on rows of its own. Weights that it does not use get no
// gradient. Without `measure` nothing is measured.
struct Objective {
  // Forward and backward of rows first ... first + n - 1. Loss and gradient are their share of a step of
  // `step_rows` rows: those of all slots add up to the step's.
  std::function<StepLoss(const Transformer& replica, int64_t first, int64_t n, int64_t step_rows)> run;
  std::function<EvalRecord(const Transformer& model)> measure;  // on held-out data
};

// What is trained and measured on.
struct TrainRows {
  // Rows first ... first + n - 1 of T + 1 + J tokens, a pure function of the row number, without end.
  std::function<TrainBatch(int64_t first, int64_t n)> read;
  Objective objective;               // instead of the next token, with no use for `read` or the held-out rows
  std::string fingerprint;           // changes when the data do; "": not checked
  Tensor held_out_NX;                // [N, T + 1 + J]; undefined or no rows: nothing is measured
  Tensor held_out_start_NX;          // first position of each token's document; undefined: not masked
  Tensor held_out_trained_NX;        // bool: the tokens that are measured; undefined: all
  std::vector<int64_t> token_bytes;  // bytes of text of each id, for bits per byte; may be empty
};

// What training starts from; empty: random weights by run.seed. Called once at the start, and again should it
// go back there.
using StartWeights = std::function<ModelWeights()>;

struct TrainProgress {
  int64_t step = 0, steps = 0;  // done, planned
  double seconds = 0;           // of training, over all restarts
  double loss = 0, mtp_loss = 0, balance_loss = 0;
  double rate = 0, grad_norm = 0;
  double max_violation = 0;
  double tokens_per_second = 0;  // of this process
  double mfu = 0;                // share of the peak, of this process; 0: not known
  int64_t skipped = 0;           // steps with a non-finite gradient, left out
};

// Whom the loop tells and asks; all of it optional.
struct TrainHooks {
  std::function<void(const TrainProgress&)> report;  // after every step
  std::function<void(const std::string&)> note;      // what a user should read
  std::function<void(const EvalRecord&)> measured;
  const std::atomic<bool>* stop = nullptr;  // end after the current step, saved
  std::atomic<bool>* save = nullptr;        // save after the current step; reset then
  CheckpointStore* checkpoints = nullptr;
  MetricsWriter* metrics = nullptr;
  TensorBoardWriter* tensorboard = nullptr;
  StartWeights start;
  double flops_per_token = 0, peak_flops = 0;  // of training; for MFU, if both are given
  std::function<double()> clock;               // seconds since some moment; empty: now_seconds()
  // Of the ranks that train this model together, all with the same configuration and data; null: alone. Rank
  // 0 alone has checkpoints, metrics, tensorboard, note, measured and report; each may have stop and save.
  Comm* comm = nullptr;
};

enum class TrainEnd {
  kFinished,  // all planned steps, or the time is over
  kStopped,   // as asked; goes on where it was when run again
  kFailed,    // gradients stay non-finite after every rollback that is allowed
};

class Trainer {
 public:
  // The config must have passed check(). With ranks, all their members must
  // be called on every rank; batch.workers is the number of all of them together.
  Trainer(const TrainConfig& config, const ModelConfig& model, TrainRows rows, TrainHooks hooks);

  // Goes on from the newest checkpoint that can be used; false: there is none. Cuts the metrics to its step.
  // Throws invalid_argument if the data are others. Without batch.workers it takes as many workers as it
  // began with, whatever the number of threads is now.
  bool resume();
  void resume(const std::filesystem::path& checkpoint);
  // Trains until one of the ends. Metrics, checkpoints and weights are the same whether or not it was stopped
  // or killed and resumed in between. A run bounded by time fixes its number of steps after step 8, whatever
  // happened before, and saves a checkpoint then: it stays as it is from there on.
  TrainEnd run();

  void use_tensorboard(TensorBoardWriter* writer) { hooks_.tensorboard = writer; }

  Transformer& model() { return model_; }  // what this rank has of it
  const TrainCounters& counters() const { return counters_; }
  const TrainProgress& progress() const { return progress_; }
  std::vector<ModelPart>& parts() { return parts_; }
  WeightAverage* average() { return average_ ? &*average_ : nullptr; }
  HeldOut measure() const;  // by all ranks that do so together, see RankLayout
  // All moments, whole, on rank 0; elsewhere perhaps none. Not of a model that ranks share out.
  std::vector<AdamW::Moments> gather_state();
  // The model, or its average, into a folder, by all ranks together: a model folder as any other.
  void save_model_to(const std::filesystem::path& folder, bool of_average);

 private:
  int64_t planned() const;
  bool step();  // false: the gradient was not finite
  // Of this rank's slots of a step: the gradients of each of its parts, the numbers of slots from `first` on.
  struct StepResults {
    std::vector<TreeSum<Gradients>> gradients;
    int64_t first = 0;
    std::vector<StepLoss> losses;
  };
  StepResults run_slots(int64_t B, const LossConfig& loss);
  StepResults run_stages(const RankSlots& slots, const LossConfig& loss, const LossDivisor& divisor);
  ModelWeights start_weights(const ModelConfig& model) const;
  std::vector<AdamW*> optimizers();
  void agree();  // of all ranks, once a step: what time it is, whether to stop, whether to save
  std::optional<std::filesystem::path> newest_checkpoint(bool good) const;
  void begin_workers(int64_t all);
  void record_step();
  void record_loads();
  void record_eval();
  bool calibrate();  // true: this step fixed the number of steps
  void after_step(bool last, bool save_now);
  bool save_is_due() const;
  void save();
  bool roll_back();

  TrainConfig config_;
  TrainRows rows_;
  TrainHooks hooks_;
  Comm* const comm_;  // null: alone
  const at::Device device_;
  RankLayout ranks_;
  Transformer model_;
  std::vector<ModelPart> parts_;
  std::optional<GradientWorkers> workers_;  // where ranks do not share the model out
  std::vector<Transformer> replicas_;       // where they do: of each stage
  std::optional<WeightAverage> average_;
  TrainCounters counters_;
  TrainProgress progress_;
  std::vector<double> mtp_losses_;
  bool has_experts_ = false;
  int64_t step_tokens_ = 0, process_tokens_ = 0, process_steps_ = 0;
  double process_seconds_ = 0, step_seconds_ = 0, saved_at_ = 0;
  int64_t saved_step_ = -1, num_workers_ = 1;  // of all ranks
  double now_ = 0;                             // agreed
  bool stop_ = false, save_ = false, saves_ = false;
};

}  // namespace hadal
