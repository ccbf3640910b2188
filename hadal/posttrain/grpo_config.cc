#include "hadal/posttrain/grpo_config.h"

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

bool alters_results(const std::string& key) {
  for (const char* free : {"run.out", "run.threads", "run.log_completions", "rollout.speculation"})
    if (key == free) return false;
  return !key.starts_with("checkpoint.") && !key.starts_with("eval.");
}

void check_loss(const PolicyLossSection& l, const ConfigRules& need) {
  need(is_one_of(l.kind, {"grpo", "bnpo", "dr_grpo", "dapo", "cispo", "gspo"}), "loss.kind", l.kind,
       "grpo, bnpo, dr_grpo, dapo, cispo or gspo");
  need(l.eps_low > 0 && l.eps_low < 1, "loss.eps_low", l.eps_low, "more than 0 and below 1");
  need(l.eps_high > 0, "loss.eps_high", l.eps_high, "more than 0");
  need(l.delta == 0 || l.delta > 1 + l.eps_high, "loss.delta", l.delta,
       "0 (not limited) or more than 1 + loss.eps_high");
  need(l.dual_clip == 0 || l.dual_clip > 1, "loss.dual_clip", l.dual_clip, "0 (not limited) or more than 1");
  need(l.beta >= 0, "loss.beta", l.beta, "0 (no reference) or more");
  need(is_one_of(l.kl, {"k1", "k2", "k3"}), "loss.kl", l.kl, "k1, k2 or k3");
  need(is_one_of(l.advantage, {"group", "none", "batch", "rloo"}), "loss.advantage", l.advantage,
       "group, none, batch or rloo");
  need(l.advantage_eps >= 0, "loss.advantage_eps", l.advantage_eps, "0 or more");
  need(l.entropy >= 0, "loss.entropy", l.entropy, "0 (no bonus) or more");
  need(l.minibatches >= 1, "loss.minibatches", l.minibatches, "at least 1");
  need(l.iterations >= 1, "loss.iterations", l.iterations, "at least 1");
}

void check_rollout(const RolloutSection& r, const ConfigRules& need) {
  need(r.prompts >= 1, "rollout.prompts", r.prompts, "at least 1");
  need(r.group_size >= 2, "rollout.group_size", r.group_size, "at least 2: answers are compared");
  need(r.max_tokens >= 1, "rollout.max_tokens", r.max_tokens, "at least 1");
  need(r.temperature > 0, "rollout.temperature", r.temperature,
       "more than 0: greedy answers are all the same");
  need(r.dynamic_rounds >= 1, "rollout.dynamic_rounds", r.dynamic_rounds, "at least 1");
  need(is_one_of(r.speculation, {"off", "on", "auto"}), "rollout.speculation", r.speculation,
       "off, on or auto");
  need(is_one_of(r.check, {"one", "all"}), "rollout.check", r.check, "one or all");
  need(r.turns >= 1, "rollout.turns", r.turns, "at least 1");
  need(r.calls >= 1, "rollout.calls", r.calls, "at least 1");
  need(r.max_logp_difference > 0, "rollout.max_logp_difference", r.max_logp_difference, "more than 0");
}

}  // namespace

GrpoConfig load_grpo_config(const std::filesystem::path& path) {
  GrpoConfig config;
  read_toml(read_file(path, 1 << 20), path.string(), fields_of(config), kGrpoDialect);
  return config;
}

std::string grpo_config_toml(const GrpoConfig& config, bool with_help) {
  GrpoConfig copy = config;
  return toml_text(fields_of(copy), with_help);
}

std::vector<std::string> grpo_profiles() {
  return {"deepseekmath", "r1-zero", "r1", "dapo", "dr_grpo", "tiny-cpu"};
}

// DeepSeekMath 4.2; R1 (Nature), methods; DAPO and Dr. GRPO, their papers.
void apply_profile(GrpoConfig& c, const std::string& name) {
  if (name == "deepseekmath") {
    c.optimizer.lr = 1e-6, c.loss.kind = "grpo", c.loss.beta = 0.04, c.loss.kl_ratio = false;
    c.rollout.group_size = 64, c.rollout.prompts = 16, c.rollout.max_tokens = 1024;
  } else if (name == "r1-zero" || name == "r1") {
    c.optimizer.lr = 3e-6, c.loss.kind = "grpo", c.loss.beta = 0.001, c.loss.kl_ratio = false;
    c.rollout.group_size = 16, c.rollout.prompts = 32 * 16, c.rollout.max_tokens = 32768;
    c.loss.minibatches = 16, c.reference.refresh = "copy", c.reference.every = 25;  // 400 updates
    if (name == "r1") c.loss.eps_high = 10, c.tasks.rewards = {"accuracy", "language"};
  } else if (name == "dapo") {
    c.loss.kind = "dapo", c.loss.eps_high = 0.28, c.loss.beta = 0, c.rollout.dynamic_rounds = 4;
    c.loss.mask_truncated = true;
  } else if (name == "dr_grpo") {
    c.loss.kind = "dr_grpo", c.loss.advantage = "none", c.loss.beta = 0;
  } else if (name == "tiny-cpu") {
    c.loss.kind = "dapo", c.loss.eps_high = 0.28, c.optimizer.lr = 3e-4;
    c.rollout.prompts = 16, c.rollout.group_size = 8, c.rollout.max_tokens = 32;
  } else {
    std::string list;
    for (const std::string& each : grpo_profiles()) list += (list.empty() ? "" : ", ") + each;
    throw Error(ErrorCode::kInvalidConfig, cat("[config.grpo] there is no profile \"", name, "\"",
                                               did_you_mean(name, grpo_profiles()), ". Known: ", list, "."));
  }
}

void check(const GrpoConfig& c, const std::string& source) {
  const ConfigRules need(kGrpoDialect, source);
  need(c.run.steps >= 1, "run.steps", c.run.steps, "at least 1");
  need(c.run.minutes >= 0, "run.minutes", c.run.minutes, "0 or more");
  need(c.run.threads >= 0, "run.threads", c.run.threads, "0 (all cores) or more");
  need(!c.policy.start.empty(), "policy.start", c.policy.start, "the folder of a model");
  need(!c.tasks.train.empty(), "tasks.train", c.tasks.train, "a JSONL of tasks");
  need(!c.tasks.rewards.empty(), "tasks.rewards", c.tasks.rewards, "at least one part");
  check_rollout(c.rollout, need);
  check_loss(c.loss, need);
  need(c.loss.minibatches <= c.rollout.prompts, "loss.minibatches", c.loss.minibatches,
       "at most rollout.prompts");
  need(is_one_of(c.reference.refresh, {"never", "copy", "mix"}), "reference.refresh", c.reference.refresh,
       "never, copy or mix");
  need(c.reference.every >= 1, "reference.every", c.reference.every, "at least 1");
  need(c.reference.mix >= 0 && c.reference.mix <= 1, "reference.mix", c.reference.mix, "a share from 0 to 1");
  need(c.batch.row_tokens >= 2, "batch.row_tokens", c.batch.row_tokens, "at least 2");
  need(c.batch.micro >= 0, "batch.micro", c.batch.micro, "0 (all at once) or more");
  need(c.batch.workers >= 0, "batch.workers", c.batch.workers, "0 (one per thread) or more");
  check(c.optimizer, need);
  check(c.schedule, need);
  need(c.optimizer.ema == 0, "optimizer.ema", c.optimizer.ema, "0: no average is kept here");
  check(c.checkpoint, need);
  need(c.eval.every >= 0, "eval.every", c.eval.every, "0 (before and after) or more");
  need(c.eval.tasks >= 1, "eval.tasks", c.eval.tasks, "at least 1");
  need(c.eval.samples >= 0, "eval.samples", c.eval.samples, "0 (none) or more");
  need(c.eval.temperature > 0, "eval.temperature", c.eval.temperature, "more than 0");
}

std::vector<std::string> result_changes(const GrpoConfig& before, const GrpoConfig& now) {
  GrpoConfig a = before, b = now;
  return changed_fields(fields_of(a), fields_of(b), alters_results);
}

PolicyLossConfig policy_loss_config(const GrpoConfig& config) {
  const PolicyLossSection& l = config.loss;
  PolicyLossConfig c{.eps_low = l.eps_low,
                     .eps_high = l.eps_high,
                     .delta = l.delta,
                     .dual_clip = l.dual_clip,
                     .beta = l.beta,
                     .kl_ratio = l.kl_ratio,
                     .max_length = config.rollout.max_tokens};
  c.kind = l.kind == "grpo" || l.kind == "gspo" ? LossKind::kGrpo
           : l.kind == "bnpo"                   ? LossKind::kBnpo
           : l.kind == "dr_grpo"                ? LossKind::kDrGrpo
           : l.kind == "cispo"                  ? LossKind::kCispo
                                                : LossKind::kDapo;
  c.level = l.kind == "gspo" ? RatioLevel::kSequence : RatioLevel::kToken;
  c.kl = l.kl == "k1" ? KlEstimate::kK1 : l.kl == "k2" ? KlEstimate::kK2 : KlEstimate::kK3;
  return c;
}

AdvantageKind advantage_kind(const GrpoConfig& config) {
  const std::string& name = config.loss.advantage;
  return name == "none"    ? AdvantageKind::kNone
         : name == "batch" ? AdvantageKind::kBatch
         : name == "rloo"  ? AdvantageKind::kRloo
                           : AdvantageKind::kGroup;
}

}  // namespace hadal
