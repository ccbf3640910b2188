// What a run of reinforcement learning is told. TOML and flags as in a training run
// (hadal/config/train_config.h). Torch-free.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "hadal/config/config_fields.h"
#include "hadal/config/train_config.h"
#include "hadal/posttrain/advantages.h"
#include "hadal/posttrain/policy_loss.h"

namespace hadal {

struct GrpoRunSection {
  std::string out;
  int64_t steps = 100;
  double minutes = 0;
  uint64_t seed = 0;
  int64_t threads = 0;
  int64_t log_completions = 10;
  void fields(auto&& f) {
    f("out", out, "run folder; the trained model ends up in it");
    f("steps", steps, "rollout batches");
    f("minutes", minutes,
      "wall time of steps, over all restarts, after which no further step begins; 0: no limit");
    f("seed", seed, "of the order of tasks and of every sample");
    f("threads", threads, "0: all cores");
    f("log_completions", log_completions,
      "steps between those whose answers are written to completions.jsonl; 0: never");
  }
};

struct PolicySection {
  std::string start, chat_template;
  void fields(auto&& f) {
    f("start", start, "folder of the model to begin with");
    f("chat_template", chat_template, "v2, v3, r1, r1-0528, v3.1; empty: the tokenizer's own");
  }
};

struct TaskSection {
  std::string train, held_out;
  std::vector<std::string> rewards = {"accuracy"};
  void fields(auto&& f) {
    f("train", train, "JSONL of tasks to learn from (docs/tasks.md)");
    f("held_out", held_out, "JSONL of other tasks to measure on; empty: nothing is measured");
    f("rewards", rewards, "parts of the reward, each NAME or NAME:WEIGHT (docs/rewards.md)");
  }
};

struct RolloutSection {
  int64_t prompts = 8, group_size = 8, max_tokens = 128;
  double temperature = 1;
  int64_t dynamic_rounds = 1;
  std::string speculation = "off";
  std::string check = "one";
  double max_logp_difference = 1e-2;
  std::vector<std::string> tools;
  std::string documents;
  bool tell_tools = true;
  int64_t turns = 8, calls = 16;
  void fields(auto&& f) {
    f("prompts", prompts, "tasks of a step");
    f("group_size", group_size, "answers to each");
    f("max_tokens", max_tokens, "of an answer, what tools give included");
    f("temperature", temperature, "of sampling");
    f("dynamic_rounds", dynamic_rounds,
      "tasks whose answers all got the same reward are replaced by others, in up to this many rounds in all; "
      "1: they are not");
    f("speculation", speculation, "drafts by the MTP module: off, on, auto (while it pays)");
    f("check", check,
      "log probabilities that are computed again, and must be the same bits: one (answer of each group a "
      "step, "
      "all in the first step of a process and at temperatures other than 1), all");
    f("max_logp_difference", max_logp_difference,
      "the run ends if log probabilities of training and sampling differ by more before the first update");
    f("tools", tools,
      "that the policy may call: calculator, python, shell, search, read, note (docs/agents.md)");
    f("documents", documents, "folder of search and read");
    f("tell_tools", tell_tools, "the tools and how to call them stand in the system message");
    f("turns", turns, "of an answer with tools: calls in the last one are not made, and it counts as cut");
    f("calls", calls, "of tools in an answer; one more cuts it");
  }
};

struct PolicyLossSection {
  std::string kind = "dapo";
  double eps_low = 0.2, eps_high = 0.2, delta = 0, dual_clip = 0;
  double beta = 0;
  std::string kl = "k3";
  bool kl_ratio = true;
  std::string advantage = "group";
  double advantage_eps = 1e-4;
  bool mask_truncated = false;
  double entropy = 0;
  int64_t minibatches = 1, iterations = 1;
  bool replay_routes = true;
  void fields(auto&& f) {
    f("kind", kind, "grpo, bnpo, dr_grpo, dapo, cispo, gspo (grpo with the ratio of whole answers)");
    f("eps_low", eps_low, "the ratio to the sampling policy is clipped at 1 minus this");
    f("eps_high", eps_high, "and at 1 plus this; cispo: at this");
    f("delta", delta, "the ratio is at most this before it is clipped; 0: not limited");
    f("dual_clip", dual_clip,
      "of bad answers a token's loss is at most this times |advantage|; 0: not limited");
    f("beta", beta, "of the KL to the reference; 0: there is no reference");
    f("kl", kl, "its estimate: k1, k2, k3");
    f("kl_ratio", kl_ratio,
      "the estimate is multiplied by the ratio, so that its gradient is that of the KL");
    f("advantage", advantage, "group (by the group's deviation), none, batch (by the batch's), rloo");
    f("advantage_eps", advantage_eps, "added to the deviation");
    f("mask_truncated", mask_truncated, "answers that were cut off train nothing");
    f("entropy", entropy, "of a bonus on the entropy of each token");
    f("minibatches", minibatches, "updates a step, each from its share of the answers");
    f("iterations", iterations, "passes over a step's answers");
    f("replay_routes", replay_routes, "experts are those that were chosen in sampling");
  }
};

struct ReferenceSection {
  std::string refresh = "never";
  int64_t every = 400;
  double mix = 0.6;
  void fields(auto&& f) {
    f("refresh", refresh, "never; copy (it becomes the policy); mix (the policy is mixed in)");
    f("every", every, "steps between refreshes");
    f("mix", mix, "share of the policy when it is mixed in");
  }
};

struct PolicyBatchSection {
  int64_t row_tokens = 512, micro = 0, workers = 0;
  void fields(auto&& f) {
    f("row_tokens", row_tokens, "answers are packed into rows of so many tokens, or of the longest");
    f("micro", micro, "rows at a time, their gradients are added; 0: all");
    f("workers", workers, "share these rows, one thread each; 0: one per thread");
  }
};

struct GrpoEvalSection {
  int64_t every = 10, tasks = 200, samples = 1;
  double temperature = 1;
  void fields(auto&& f) {
    f("every", every, "steps between measurements on held-out tasks, also before and after; 0: only those");
    f("tasks", tasks, "at most so many of them, from the beginning of the file");
    f("samples", samples, "sampled answers to each, besides the greedy one; 0: none");
    f("temperature", temperature, "of those");
  }
};

struct GrpoConfig {
  GrpoRunSection run;
  PolicySection policy;
  TaskSection tasks;
  RolloutSection rollout;
  PolicyLossSection loss;
  ReferenceSection reference;
  PolicyBatchSection batch;
  OptimizerSection optimizer{.lr = 1e-6, .weight_decay = 0};
  ScheduleSection schedule{.kind = "constant", .warmup_steps = 5};
  CheckpointSection checkpoint;
  GrpoEvalSection eval;
  void sections(auto&& f) {
    f("run", run), f("policy", policy), f("tasks", tasks), f("rollout", rollout), f("loss", loss);
    f("reference", reference), f("batch", batch), f("optimizer", optimizer), f("schedule", schedule);
    f("checkpoint", checkpoint), f("eval", eval);
  }
};

inline constexpr ConfigDialect kGrpoDialect{"[config.grpo]", "hadal grpo"};

GrpoConfig load_grpo_config(const std::filesystem::path& path);
std::string grpo_config_toml(const GrpoConfig& config, bool with_help = true);

// "deepseekmath", "r1-zero", "r1", "dapo", "dr_grpo", "tiny-cpu": what their reports state, the rest as it
// is. Throws invalid_config with the list.
void apply_profile(GrpoConfig& config, const std::string& name);
std::vector<std::string> grpo_profiles();

// Every cross-field rule. Throws invalid_config naming `source`, key, value and need.
void check(const GrpoConfig& config, const std::string& source);

// "rollout.prompts: 8 before, 16 now" for each key that differs and on which the trained weights depend.
std::vector<std::string> result_changes(const GrpoConfig& before, const GrpoConfig& now);

// The words of the configuration as values. The config must have passed check().
PolicyLossConfig policy_loss_config(const GrpoConfig& config);
AdvantageKind advantage_kind(const GrpoConfig& config);

}  // namespace hadal
