// Group relative policy optimisation (DeepSeekMath 4.1; R1): the engine samples answers with the weights that
// are trained, rules or models reward them, and the policy moves towards what was better than its group.
#pragma once
#include <atomic>
#include <functional>
#include <optional>
#include <string>

#include "hadal/posttrain/answer_groups.h"
#include "hadal/posttrain/policy_step.h"
#include "hadal/report/line_file.h"
#include "hadal/report/tensorboard.h"
#include "hadal/train/adamw.h"
#include "hadal/train/loop.h"
#include "hadal/train/train_state.h"

namespace hadal {

// Whom the loop tells and asks; all of it optional.
struct GrpoHooks {
  NewEpisode episode;  // who replies to the policy's turns, such as tools
  std::function<void(const ValuesRecord&, const TimingRecord&)> report;  // after every step
  std::function<void(const ValuesRecord&)> measured;
  std::function<void(const std::string&)> note;  // what a user should read
  const std::atomic<bool>* stop = nullptr;       // end after the current step, saved
  std::atomic<bool>* save = nullptr;             // save after the current step; reset then
  CheckpointStore* checkpoints = nullptr;
  MetricsWriter* metrics = nullptr;
  TensorBoardWriter* tensorboard = nullptr;
  LineFile* completions = nullptr;
};

class GrpoTrainer {
 public:
  // The config must have passed check(). The model's MTP modules, balance biases and all that the loss does
  // not reach stay as they are. held_out: null: nothing is measured.
  GrpoTrainer(const GrpoConfig& config, const ModelConfig& model, ModelWeights start, Tokenizer tokenizer,
              const PromptTasks& tasks, const PromptTasks* held_out, ScoreAnswers score, GrpoHooks hooks);

  // Goes on from the newest checkpoint that can be used; false: there is none. Throws invalid_argument if the
  // tasks are others.
  bool resume();
  // Weights, metrics and checkpoints are the same whether or not it was stopped or killed and resumed.
  // kFailed: a gradient is not finite.
  TrainEnd run();

  void use_tensorboard(TensorBoardWriter* writer) { hooks_.tensorboard = writer; }
  Transformer& model() { return model_; }
  const TrainCounters& counters() const { return counters_; }

 private:
  bool step();  // false: a gradient was not finite
  Engine make_engine() const;
  bool trains(const ScoredAnswer& answer) const;
  bool is_masked(const ScoredAnswer& answer) const;
  struct FrozenScores {
    std::vector<ScoredSample> old, reference;  // of the trained answers in order
  };
  FrozenScores frozen_scores(const std::vector<AnswerGroup>& groups, TimingRecord& timing);
  using TrainedSamples = std::vector<std::vector<const Sample*>>;  // of each group
  std::vector<ScoredSample> sampling_scores(const TrainedSamples& groups);
  struct Minibatch {
    std::vector<PolicySample> samples;
    PolicyDivisor divisor;
  };
  Minibatch minibatch(const std::vector<AnswerGroup>& groups, int64_t first, int64_t last,
                      const FrozenScores& scores, size_t& next) const;
  bool update(const std::vector<AnswerGroup>& groups, ValuesRecord& values, TimingRecord& timing);
  void require_near_sampling(const PolicyStepResult& result, PolicyStepResult& first) const;
  void add_update_values(const PolicyStepResult& sum, const PolicyStepResult& first,
                         ValuesRecord& values) const;
  void refresh_reference();
  void measure();
  void log_completions(const std::vector<AnswerGroup>& groups);
  void warn(const ValuesRecord& values);
  bool is_over() const;
  void save();

  GrpoConfig config_;
  Tokenizer tokenizer_;
  const PromptTasks& tasks_;
  const PromptTasks* held_out_;
  ScoreAnswers score_;
  GrpoHooks hooks_;
  Transformer model_;
  AdamW optimizer_;
  std::optional<GradientWorkers> workers_;
  Scorer scorer_;
  std::optional<ModelWeights> reference_;
  std::optional<Scorer> reference_scorer_;
  TrainCounters counters_;  // next_row: draws
  int64_t reference_step_ = 0, saved_step_ = -1;
  std::optional<ValuesRecord> first_;  // of this process, for the alarms
  bool checked_ = false;               // all answers of a step, in this process
};

}  // namespace hadal
