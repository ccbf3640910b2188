// hadal grpo: a model learns from rewards for its own answers.
#include "hadal/posttrain/grpo.h"
#include "hadal/posttrain/model_rewards.h"

#include <cstdio>

#include "hadal/base/text.h"
#include "hadal/checkpoint/load.h"
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/compute/train_signals.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/compute/training_rows.h"
#include "hadal/cli/output.h"
#include "hadal/cli/tool_episode.h"
#include "hadal/posttrain/chat_data.h"
#include "hadal/tensor/make.h"
#include "hadal/train/run_folder.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

struct GrpoData {
  Tokenizer tokenizer;
  NewEpisode episode;  // empty: no tools
  PromptTasks train;
  std::optional<PromptTasks> held_out;
};

GrpoData open_data(const GrpoConfig& config, const ModelConfig& model, const fs::path& out) {
  Tokenizer tokenizer = copy_tokenizer(config.policy.start, out);
  check_fits(tokenizer, model);
  const auto format = chat_format(tokenizer, config.policy.chat_template);
  const int64_t longest = model.max_positions - config.rollout.max_tokens;
  std::vector<Task> train = load_tasks(config.tasks.train), held_out;
  if (!config.tasks.held_out.empty()) {
    held_out = load_tasks(config.tasks.held_out);
    require_disjoint(train, held_out);
  }
  NewEpisode episode;
  if (const RolloutSection& r = config.rollout; !r.tools.empty())
    episode = episodes_with({.names = r.tools,
                             .documents = r.documents,
                             .budget = {.turns = r.turns, .calls = r.calls},
                             .told = r.tell_tools},
                            format, config.policy.start, tokenizer, {&train, &held_out});
  const bool measures = !held_out.empty();
  GrpoData data{tokenizer, episode, PromptTasks(std::move(train), tokenizer, format, longest), std::nullopt};
  if (measures) data.held_out.emplace(std::move(held_out), tokenizer, format, longest);
  std::fprintf(stderr, "%s tasks, %s held out%s\n", with_commas(data.train.size()).c_str(),
               with_commas(measures ? data.held_out->size() : 0).c_str(),
               data.train.too_long() > 0 ? cat("; ", data.train.too_long(), " too long").c_str() : "");
  return data;
}

void show_step(const ValuesRecord& r, const TimingRecord& t, int64_t steps) {
  const auto of = [&](const char* name) { return r.get(name).value_or(0); };
  std::fprintf(
      stderr,
      "step %4lld/%lld  reward %.3f  right %.1f %%  length %.1f  cut %.0f %%  entropy %.3f  kl %.4f  "
      "grad %.2f  lr %.1e  %.1f s\n",
      static_cast<long long>(r.step), static_cast<long long>(steps), of("reward"), 100 * of("accuracy_train"),
      of("completions/mean_length"), 100 * of("completions/clipped_ratio"), of("entropy"), of("kl"),
      of("grad_norm"), of("learning_rate"), t.seconds);
}

void show_measured(const ValuesRecord& r) {
  std::fprintf(stderr, "held-out tasks: %.1f %% right, greedy", 100 * r.get("accuracy/greedy").value_or(0));
  if (const auto sampled = r.get("accuracy/sampled"))
    std::fprintf(stderr, "; %.1f %% sampled", 100 * *sampled);
  std::fprintf(stderr, "; after %lld steps\n", static_cast<long long>(r.step));
}

int train(const GrpoConfig& config, const GrpoOptions& o) {
  const TrainSignals signals;
  ModelConfig model = start_config(config.policy.start);
  RunFolder folder(config.run.out);
  const fs::path& out = folder.path();
  if (o.restart) folder.discard();
  const auto changes = [&](const fs::path& file) { return result_changes(load_grpo_config(file), config); };
  folder.settle_config(grpo_config_toml(config), changes, o.force_config, note);
  const GrpoData data = open_data(config, model, out);
  const RewardSet rewards =
      reward_set(config.tasks.rewards, reward_kinds(static_cast<int>(config.run.threads)));
  CheckpointStore checkpoints(folder.checkpoints(), config.checkpoint.keep, config.checkpoint.background,
                              files_beside(out), note);
  if (!folder.has_checkpoints())
    for (const char* name : {"metrics.jsonl", "timing.jsonl", "completions.jsonl", "tensorboard"})
      fs::remove_all(out / name);
  MetricsWriter metrics(out);
  LineFile completions(out / "completions.jsonl");
  model.stored_dtype = DType::kF32;
  GrpoTrainer trainer(
      config, model, load_model(config.policy.start, DType::kF32).weights(), data.tokenizer, data.train,
      data.held_out ? &*data.held_out : nullptr,
      [&](std::span<const Task* const> tasks, std::span<const Completion> completions) {
        return rewards.score_all(tasks, completions, num_threads());
      },
      {.episode = data.episode,
       .report = [&](const ValuesRecord& r, const TimingRecord& t) { show_step(r, t, config.run.steps); },
       .measured = show_measured,
       .note = note,
       .stop = &stop_asked(),
       .save = &save_asked(),
       .checkpoints = &checkpoints,
       .metrics = &metrics,
       .completions = &completions});
  if (trainer.resume())
    std::fprintf(stderr, "%s: going on after step %lld\n", out.c_str(),
                 static_cast<long long>(trainer.counters().step));
  const TrainEnd end =
      run_to_end(trainer, run_record(config.policy.start, model, config.run.seed, config.run.steps), out,
                 metrics, checkpoints);
  if (end == TrainEnd::kFailed) {
    note("a gradient is not finite: lower optimizer.lr and go on from the last checkpoint.");
    return kDivergedTrainExit;
  }
  save_model(out, model, trainer.model().weights());
  std::fprintf(stderr, "%s %lld steps, saved to %s\n",
               end == TrainEnd::kStopped ? "stopped after" : "trained",
               static_cast<long long>(trainer.counters().step), out.c_str());
  return end == TrainEnd::kStopped ? kInterruptedTrainExit : 0;
}

}  // namespace

int run_grpo(const GrpoOptions& o) {
  const GrpoConfig config = grpo_config_of(o);
  if (o.print_config) {
    print(grpo_config_toml(config));
    return 0;
  }
  check(config, o.config.empty() ? "the command line" : o.config);
  use_threads(config.run.threads);
  return train(config, o);
}

}  // namespace hadal
